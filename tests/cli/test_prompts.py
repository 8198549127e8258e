"""Files and standard input become part of a prompt; what cannot is refused in one line."""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from atmo.cli.prompts import DESCRIBE, MAX_TEXT_BYTES, read_prompt
from atmo.errors import UsageError
from tests.cluster import Cluster, atmo

PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with some files; nothing is piped in."""
    monkeypatch.chdir(tmp_path)
    piped(monkeypatch, b"")
    (tmp_path / "report.md").write_text("# Sales\n\nThey fell.\n")
    (tmp_path / "LICENSE").write_text("Do as you like.")
    (tmp_path / "photo.png").write_bytes(PNG)
    (tmp_path / "review").write_text("not meant")
    return tmp_path


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_words_then_files_then_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piped(monkeypatch, b"+ a line\n")
    prompt = read_prompt(["Summarise", "report.md", "./LICENSE"], ["review"])
    assert prompt.text == (
        "Summarise\n\nreport.md:\n\n# Sales\n\nThey fell.\n\nLICENSE:\n\nDo as you like.\n\n"
        "review:\n\nnot meant\n\n+ a line"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["report.md"],
        ["What", "is", "review"],
        ["What", "is", "3.5", "or", "e.g."],
        ["Is", "it", "so?", "Yes."],
    ],
)
def test_words_stay_words(folder: Path, words: list[str]) -> None:
    """The first is never a file, and a file's name without slash or ending is a word: what happens to lie in the folder
    does not change what is sent."""
    assert read_prompt(words, []).text == " ".join(words)


def test_images_by_name_or_piped_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert read_prompt(["What is this?", "photo.png"], []).images == (url,)
    piped(monkeypatch, PNG)
    prompt = read_prompt([], [])
    assert (prompt.text, prompt.images) == (DESCRIBE, (url,))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["Summarise", "reprot.md"], "Did you mean report.md? If you mean the word, put the whole prompt into quotes."),
        (["Summarise", "/nowhere/x"], "There is no file /nowhere/x"),
        (["Read", "https://example.com/x"], "is not fetched"),
        (["Read", "./"], "is a folder"),
        (["  "], "The prompt is empty"),
        (["Read", "empty.txt"], "is empty"),
        (["Read", "paper.pdf"], "is a PDF, not text. Take its text out first"),
        (["Read", "latin.txt"], "is not text in UTF-8"),
        (["Read", "zero.bin"], "is not text"),
        (["Read", "huge.txt"], "has more than 4 MiB"),
        (["Read", "half.txt", "half.txt"], "The prompt has more than 4 MiB of text"),
        (["See", "big.png"], "has more than 20 MiB"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line(folder: Path, words: list[str], says: str) -> None:
    (folder / "empty.txt").touch()
    (folder / "paper.pdf").write_bytes(b"%PDF-1.7 ...")
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (folder / "zero.bin").write_bytes(b"a\0b")
    (folder / "huge.txt").write_bytes(b"x" * (MAX_TEXT_BYTES + 1))
    (folder / "half.txt").write_bytes(b"x" * (MAX_TEXT_BYTES // 2 + 1))
    os.truncate(folder / "photo.png", 8)
    big = folder / "big.png"
    big.write_bytes(PNG)
    os.truncate(big, (20 << 20) + 1)
    with pytest.raises(UsageError) as caught:
        read_prompt(words, [])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def seeing(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    cluster.start("default", "", "--serve", "atmo-nano", "--serve", "atmo-shapes")
    yield cluster
    cluster.stop_all()


def test_files_and_images_reach_the_models(seeing: Cluster, tmp_path: Path) -> None:
    """A text goes to the model that chats, an image to the one that sees, without being told."""
    note, photo = tmp_path / "note.txt", tmp_path / "photo.png"
    note.write_text("What is 2+2?")
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((10, 10, 50, 50), fill="red")
    picture.save(photo)
    assert "4" in atmo("ask", "Answer this:", str(note)).out
    assert atmo("ask", "--file", str(photo)).out.startswith("red circle")
    assert atmo("ask", "hello", str(photo)).out.startswith("red circle"), "whatever the text says"
    refused = atmo("ask", "--file", str(photo), "--model", "atmo-nano")
    assert refused.code == 5
    assert "modality image" in refused.err
