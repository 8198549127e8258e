"""What a person writes to name a model: the forms, and what each of them may mean."""

from __future__ import annotations

import pytest

from atmo.errors import UsageError
from atmo.models.reference import parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "kind", "source"),
    [
        ("hf://org/repo", "hub", "hf://org/repo"),
        ("hf://org/repo:Q4_K_M", "hub", "hf://org/repo:Q4_K_M"),
        ("hf://org/repo@v1.0/sub/file.gguf", "hub", "hf://org/repo@v1.0/sub/file.gguf"),
        ("hf://org/repo/onnx/", "hub", "hf://org/repo/onnx/"),
        ("https://huggingface.co/org/repo", "hub", "hf://org/repo"),
        ("https://huggingface.co/org/repo/blob/main/a.gguf", "hub", "hf://org/repo@main/a.gguf"),
        ("https://huggingface.co/org/repo/resolve/main/a%20b.gguf?download=true", "hub", "hf://org/repo@main/a b.gguf"),
        ("https://example.org/m.gguf", "url", "https://example.org/m.gguf"),
        ("./m.gguf", "file", "./m.gguf"),
        ("~/models/m", "file", "~/models/m"),
        ("m.gguf", "file", "m.gguf"),
        ("qwen2.5-7b", "name", "qwen2.5-7b"),
        ("ab" * 32, "name", "ab" * 32),
    ],
)
def test_each_form_is_read_and_written_back(text: str, kind: str, source: str) -> None:
    found = parse(text)
    assert (found.kind, found.source) == (kind, source)
    if kind == "hub":
        assert parse(found.source).source == source


@pytest.mark.parametrize(
    "text", ["", "hf://", "hf://org", "hf://org/repo/../../x", "ftp://x/y", "org/repo", "http://", "a\x1bb"]
)
def test_what_is_no_form_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert "hf://" in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "source", "means"),
    [
        ("hf://org/repo/a.gguf", f"hf://org/repo@{COMMIT}/a.gguf", True),
        ("hf://Org/Repo/a.gguf", f"hf://org/repo@{COMMIT}/a.gguf", True),
        ("hf://org/repo", f"hf://org/repo@{COMMIT}/a.gguf", True),
        ("hf://org/repo:Q4_0", f"hf://org/repo@{COMMIT}/a-q4_0.gguf", True),
        ("hf://org/repo:Q8_0", f"hf://org/repo@{COMMIT}/a-q4_0.gguf", False),
        (f"hf://org/repo@{COMMIT}/a.gguf", f"hf://org/repo@{COMMIT}/a.gguf", True),
        ("hf://org/repo@v2/a.gguf", f"hf://org/repo@{COMMIT}/a.gguf", False),
        ("hf://org/repo/b.gguf", f"hf://org/repo@{COMMIT}/a.gguf", False),
        ("hf://org/other/a.gguf", f"hf://org/repo@{COMMIT}/a.gguf", False),
        ("hf://org/repo/a.gguf", "/home/me/a.gguf", False),
        ("hf://org/repo/a.gguf", "", False),
    ],
)
def test_a_model_that_somebody_has_is_what_was_asked_for_or_not(wanted: str, source: str, means: bool) -> None:
    assert parse(wanted).means("a", bytes(32), source) is means


def test_a_name_means_a_name_and_a_root_a_root() -> None:
    assert parse("Qwen").means("qwen", bytes(32), "")
    assert not parse("qwen").means("qwen2", bytes(32), "")
    assert parse("00" * 32).means("anything", bytes(32), "")
    assert not parse("00" * 32).means("00" * 32, b"\x01" * 32, "")


def test_only_a_commit_or_a_root_means_the_same_bytes_for_ever() -> None:
    pinned = {
        text: parse(text).pinned for text in (f"hf://o/r@{COMMIT}/a.gguf", "hf://o/r@main/a.gguf", "ab" * 32, "x")
    }
    assert list(pinned.values()) == [True, False, True, False]
