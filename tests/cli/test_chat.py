"""`atmo chat`: the conversation, commands with a slash, Markdown while it comes, and all of it in a real terminal."""

from __future__ import annotations

import io
import json
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from atmo.cli.chat import slash
from atmo.cli.chat.session import Session
from atmo.cli.chat.stream import MarkdownStream, blocks
from atmo.cli.prompts import Prompt
from atmo.errors import AtmoError, RequestTimeout, UsageError
from tests.cli.inside import inside
from tests.cli.terminal import Terminal, terminal
from tests.cluster import Cluster, atmo, eventually
from tests.inference.gguf_maker import write_parrot


class Said:
    """In a stream's place."""

    def __init__(self, steps: Iterator[dict[str, Any]]) -> None:
        self._steps = steps

    def steps(self) -> Iterator[dict[str, Any]]:
        return self._steps


class Listener:
    """In a client's place: what it is asked, and what it says. It raises what stands in `fails`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails: AtmoError | None = None

    def stream(self, text: str, **wishes: Any) -> Said:
        return Said(self._steps(text, wishes))

    def _steps(self, text: str, wishes: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.asked.append((text, wishes))
        yield {"event": "route"}
        yield {"event": "text", "text": f"To {text}: "}
        if self.fails is not None:
            raise self.fails
        yield {"event": "text", "text": "yes."}
        yield {"event": "done", "request_id": "00ff", "node": "desk", "capability": "atmo:chat:x"}

    def models(self) -> dict[str, Any]:
        return {"served": [{"id": "atmo:chat:qwen", "model": "qwen", "nodes": ["desk"]}]}


@pytest.fixture
def session() -> Session:
    return Session(Listener(), {"model": "", "constraints": {}})  # type: ignore[arg-type]


def say(session: Session, text: str) -> None:
    list(session.ask(Prompt(text)))


def heard(session: Session) -> list[tuple[str, dict[str, Any]]]:
    return cast(Listener, session.client).asked


# The conversation


def test_each_question_goes_with_what_was_said_before(session: Session) -> None:
    say(session, "one")
    say(session, "two")
    assert heard(session)[1][1]["history"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "To one: yes."},
    ]
    assert session.last_request == "00ff"


def test_what_came_of_an_answer_that_failed_is_kept_and_a_question_without_answer_is_not(session: Session) -> None:
    listener = cast(Listener, session.client)
    listener.fails = RequestTimeout("Too late.")
    with pytest.raises(RequestTimeout):
        say(session, "one")
    events = session.ask(Prompt("two"))
    next(events)
    events.close()
    assert [(turn.prompt.text, turn.answer, turn.done) for turn in session.turns] == [("one", "To one: ", None)]


def test_images_stay_in_the_conversation(session: Session) -> None:
    list(session.ask(Prompt("What is it?", ("data:image/png;base64,AA==",))))
    say(session, "And its colour?")
    assert heard(session)[0][1]["images"] == ["data:image/png;base64,AA=="]
    assert heard(session)[1][1]["history"][0]["images"] == ["data:image/png;base64,AA=="]


# Commands with a slash


def test_commands_change_what_is_asked_for(session: Session) -> None:
    for line in ("/model qwen", "/where residency=eu min_tps=20", "/system Be brief."):
        assert slash.run(session, line).show is not None
    say(session, "one")
    wishes = heard(session)[0][1]
    assert (wishes["model"], wishes["system"]) == ("qwen", "Be brief.")
    assert wishes["constraints"] == {"residency": "eu", "min_tps": "20"}
    for line in ("/model auto", "/where none", "/system none", "/new"):
        slash.run(session, line)
    say(session, "two")
    wishes = heard(session)[1][1]
    assert (wishes["model"], wishes["system"], wishes["constraints"], wishes["history"]) == ("", "", {}, [])


def test_a_model_that_nobody_serves_is_said_at_once_and_not_taken(session: Session) -> None:
    with pytest.raises(UsageError, match="Nobody serves qwem now") as refused:
        slash.run(session, "/model qwem")
    assert refused.value.hint == "Did you mean qwen?"
    say(session, "one")
    assert heard(session)[0][1]["model"] == ""


def test_a_conversation_is_saved_for_its_owner_and_never_over_another_file(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing was said"):
        slash.run(session, f"/save {tmp_path}/talk.md")
    say(session, "one")
    slash.run(session, f"/save {tmp_path}/talk.md")
    slash.run(session, f"/save {tmp_path}/talk.json")
    assert (tmp_path / "talk.md").read_text() == "> one\n\nTo one: yes.\n\n*desk, atmo:chat:x*\n"
    assert stat.S_IMODE((tmp_path / "talk.md").stat().st_mode) == 0o600
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    with pytest.raises(UsageError, match="is there already"):
        slash.run(session, f"/save {tmp_path}/talk.md")
    with pytest.raises(UsageError, match="cannot be written"):
        slash.run(session, f"/save {tmp_path}/no/talk.md")


def test_a_question_is_asked_again(session: Session) -> None:
    with pytest.raises(UsageError):
        slash.run(session, "/retry")
    say(session, "one")
    assert slash.run(session, "/retry").ask == Prompt("one")
    assert session.turns == []


@pytest.mark.parametrize(
    ("line", "hint"), [("/hlep", "Did you mean /help?"), ("/", "/help shows them"), ("/zzz", "type two")]
)
def test_an_unknown_command_is_answered_with_the_nearest(session: Session, line: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        slash.run(session, line)
    assert hint in caught.value.hint


def test_two_slashes_are_a_slash() -> None:
    assert slash.is_command("/help")
    assert not slash.is_command("//etc/hosts")


# Markdown while it comes


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A paragraph.", ""),
        ("A paragraph.\n\n", ""),  # the empty line may be within a list that goes on: only what follows tells
        ("A paragraph.\n\nAnother", "A paragraph.\n\n"),
        ("```\ncode\n\nmore\n", ""),
        ("```\ncode\n\nmore\n```\n\nText", "```\ncode\n\nmore\n```\n\n"),
        ("````\n```\n\nstill code\n", ""),
        ("- one\n\n- two\n\n  more\n\n", ""),
        ("1. one\n\n2. two\n\nText", "1. one\n\n2. two\n\n"),
        ("1. one\n\n   ```\n   code\n   ```\n\n2. two\n\nText", "1. one\n\n   ```\n   code\n   ```\n\n2. two\n\n"),
        ("# Head\n\n- one\n", "# Head\n\n"),
    ],
)
def test_only_whole_blocks_are_printed_for_good(text: str, whole: str) -> None:
    printed, rest = blocks(text)
    assert "".join(printed) == whole
    assert whole + rest == text


def test_the_screen_shows_the_same_however_the_text_was_cut(tmp_path: Path) -> None:
    text = "# Head\n\nA *word*.\n\n```python\nprint(1)\n\nprint(2)\n```\n\n1. one\n2. two\n\nEnd [here](http://example.com)."
    shown = {cut: page(text, cut) for cut in (1, 3, 1000)}
    assert shown[1] == shown[3] == shown[1000]
    assert "print(2)" in shown[1]
    assert "http://example.com" in shown[1], "a link says where it goes"


def page(text: str, cut: int) -> str:
    """What is left on a screen that takes nothing back: without a terminal nothing is drawn twice."""
    out = io.StringIO()
    with MarkdownStream(Console(file=out, width=60)) as stream:
        for at in range(0, len(text), cut):
            stream.feed(text[at : at + cut])
    return out.getvalue()


# In a real terminal


@pytest.fixture
def talker(environ: dict[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """A node with the embedded model, and one that never ends by itself."""
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    parrot = write_parrot(tmp_path / "parrot.gguf", context=32_768)
    cluster.start("default", "", "--serve", "atmo-nano", "--serve", str(parrot))
    yield cluster
    cluster.stop_all()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_a_chat_in_a_terminal(talker: Cluster, environ: dict[str, str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="atmo-tmux-"))
    try:
        with terminal(folder) as screen:
            _talk(screen, environ, talker)
    finally:
        shutil.rmtree(folder)


def _talk(screen: Terminal, environ: dict[str, str], talker: Cluster) -> None:
    history = Path(environ["ATMO_HOME"]) / "chat-history"
    screen.run(f"{sys.executable} -m atmo chat --model atmo-nano")
    screen.shows("2 capabilities in the mesh", "/help", "›")
    screen.press("What is 2+2?", "Enter")
    screen.shows("= 4", "— default · chat:atmo-nano", "first after")

    screen.press("/model parrot", "Enter")
    screen.shows("From now on: parrot")
    screen.press("sing", "Enter")
    client = talker.client("default")
    eventually(lambda: any(each["in_flight"] for each in client.status()["capabilities"]), "it sings")
    screen.press("C-c")
    screen.shows("— stopped")
    eventually(lambda: not any(each["in_flight"] for each in client.status()["capabilities"]), "it has stopped")

    screen.press("/why", "Enter")
    screen.shows("default serves this with atmo:chat:atmo-nano")
    screen.press("first line", "M-Enter", "second line", "C-c")
    screen.press("/hel", "Tab")
    screen.shows("› /help")
    screen.press("C-d", "C-c", "C-d")
    screen.shows("ended with 0")
    assert "+What is 2+2?" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600

    screen.press("clear", "Enter")
    screen.run(f"{sys.executable} -m atmo ask 'What is 2+2?' --model atmo-nano")
    screen.shows("= 4", "— default · chat:atmo-nano", "ended with 0")


def test_a_conversation_from_a_pipe_knows_what_was_said_and_ends_with_the_first_failure(talker: Cluster) -> None:
    talk = atmo("chat", "--model", "atmo-nano", given="What is 2+2?\n\nHello\n")
    assert (talk.code, talk.err) == (0, "")
    first, second = talk.out.strip().split("\n\n")
    assert "4" in first
    assert second.startswith("Hello")
    assert not (Path(talker.folder) / "home" / "chat-history").exists(), "only what is typed is kept"
    failed = inside("chat", "--model", "nobody", given="Hello\nHello\n")
    assert failed.code == 5
    assert failed.err.count("atmo:") == 1
    commanded = inside("chat", given="/new\n")
    assert commanded.code == 2
