"""`atmo chat`: read, ask, show, until there is no more to read."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from rich.text import Text

from atmo.cli import output, views
from atmo.cli.chat import slash
from atmo.cli.chat.session import Session
from atmo.cli.prompts import MAX_TEXT_BYTES, Prompt, read_prompt, text_of
from atmo.client import SyncClient
from atmo.config import load
from atmo.errors import AtmoError, UsageError

HISTORY = "chat-history"


def chat(
    words: list[str],
    files: list[str],
    wishes: dict[str, Any],
    node: str,
    *,
    history: bool,
    plain: bool,
    as_json: bool,
) -> None:
    """Exit code 0 at the end of what there is to read. At a terminal a failed answer does not end the chat; from a pipe
    it does."""
    config = load()
    first = read_prompt(words, files, stdin=False) if words or files else None
    session = Session(SyncClient(config, node=node), wishes)
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    if not at_terminal:
        _from_pipe(session, first, as_json)
        return
    from atmo.cli.chat.keyboard import Keyboard

    keyboard = Keyboard(config.home / HISTORY if history else None, slash.COMMANDS)
    _greet(session)
    if first is not None:
        _answer(session, first, plain)
    while (line := _read(keyboard)) is not None:
        if line.strip() and not _said(session, line, plain):
            return


def _greet(session: Session) -> None:
    status = session.client.status()
    who = output.harmless(status["node"]["name"])
    offers = len(session.client.models()["served"])
    output.console().print(
        Text.assemble(
            ("●", "green"),
            f" {who}, {offers} capabilit{'ies' if offers != 1 else 'y'} in the mesh.",
            ("  /help, Ctrl-D ends", "dim"),
        )
    )


def _read(keyboard: Any) -> str | None:
    """None at the end. Ctrl-C empties the line."""
    while True:
        try:
            line: str = keyboard.read()
            return line
        except KeyboardInterrupt:
            continue
        except EOFError:
            return None


def _said(session: Session, line: str, plain: bool) -> bool:
    """What a person typed. False when that ends the chat."""
    try:
        if slash.is_command(line.strip()):
            outcome = slash.run(session, line.strip())
        else:
            outcome = slash.Outcome(ask=Prompt(line.removeprefix("/") if line.startswith("//") else line))
    except AtmoError as error:
        output.fail(error)
        return True
    if outcome.show is not None:
        output.console().print(outcome.show)
        output.console().print()
    if outcome.ask is not None:
        _answer(session, outcome.ask, plain)
    return not outcome.leave


def _answer(session: Session, prompt: Prompt, plain: bool) -> None:
    """Ctrl-C stops it, which the node is told; an error is said, and the chat goes on."""
    try:
        with closing(_events(session, prompt)) as events:
            _show(events, plain)
    except KeyboardInterrupt:
        output.console().print(Text("— stopped", "dim"))
    except AtmoError as error:
        output.fail(error)
    output.console().print()


def _events(session: Session, prompt: Prompt) -> Generator[dict[str, Any], None, None]:
    """From the first word on: until then it is said that one waits."""
    with closing(session.ask(prompt)) as events, output.busy("Waiting for the first word") as busy:
        for event in events:
            if busy is not None and event["event"] != "route":
                busy.done()
            yield event


def _show(events: Iterator[dict[str, Any]], plain: bool) -> None:
    from atmo.cli.chat.stream import MarkdownStream

    console = output.console()
    done: dict[str, Any] = {}
    with _Plain() if plain or not console.is_terminal or console.is_dumb_terminal else MarkdownStream(console) as page:
        for event in events:
            if event["event"] == "text":
                page.feed(output.harmless(event["text"]))
            elif event["event"] == "retry":
                console.print(views.retried(output.harmless(event)))
            elif event["event"] == "done":
                done = event
    if done:
        console.print(views.answered_by(output.harmless(done)))


class _Plain:
    """Text as it comes."""

    def __enter__(self) -> _Plain:
        return self

    def feed(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def __exit__(self, *exc: object) -> None:
        sys.stdout.write("\n")
        sys.stdout.flush()


def _from_pipe(session: Session, first: Prompt | None, as_json: bool) -> None:
    """One question a line, one answer after the other; with --json one object a line."""
    prompts = [first] if first is not None else []
    for prompt in (*prompts, *_lines()):
        done: dict[str, Any] = {}
        for event in session.ask(prompt):
            if event["event"] == "text" and not as_json:
                sys.stdout.write(event["text"])
                sys.stdout.flush()
            elif event["event"] == "done":
                done = event
        if as_json:
            said = session.turns[-1].answer if done and session.turns else ""
            done.pop("event", None)
            output.print_json_line({"question": prompt.text, "answer": said, "done": done})
        else:
            sys.stdout.write("\n\n")
            sys.stdout.flush()


def _lines() -> Iterator[Prompt]:
    """As they come: whoever pipes may wait for an answer before the next question."""
    if sys.stdin.closed or sys.stdin.isatty():
        return
    while raw := sys.stdin.buffer.readline(MAX_TEXT_BYTES + 1):
        line = text_of(raw, "A line of standard input").strip()
        if slash.is_command(line):
            raise UsageError(
                "Commands with a slash are for people at a terminal.", hint="Pipe in questions, one a line."
            )
        if line:
            yield Prompt(line)
