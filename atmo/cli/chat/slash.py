"""What is typed with a slash in `atmo chat`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from atmo.cli import output, views
from atmo.cli.chat.session import Session
from atmo.cli.prompts import Prompt, read_prompt
from atmo.config import parse_labels
from atmo.errors import UsageError


@dataclass
class Outcome:
    """show: what to print; ask: what to send to the model; leave: the chat is over."""

    show: RenderableType | None = None
    ask: Prompt | None = None
    leave: bool = False


@dataclass(frozen=True)
class Slash:
    """run gets the session and what stood behind the command."""

    takes: str
    what: str
    run: Callable[[Session, str], Outcome]


def is_command(line: str) -> bool:
    """Two slashes at the beginning of a line stand for one that is meant."""
    return line.startswith("/") and not line.startswith("//")


def run(session: Session, line: str) -> Outcome:
    """Raises AtmoError: a wrong command, or what the node says of it."""
    name, _, rest = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = (
            f"Did you mean /{near[0]}?" if near else "/help shows them. For a text that begins with a slash, type two."
        )
        raise UsageError(f"There is no command /{name}.", hint=hint)
    return COMMANDS[name].run(session, rest.strip())


def _help(session: Session, rest: str) -> Outcome:
    view = output.table("", "")
    view.show_header = False
    for name, command in COMMANDS.items():
        view.add_row(Text(f"/{name} {command.takes}".rstrip()), Text(command.what, style="dim"))
    for keys, what in (
        ("Alt-Enter, or \\ at the end", "a new line"),
        ("Ctrl-C", "stops the answer, or empties the line"),
        ("Ctrl-D", "ends the chat"),
        ("Up, Ctrl-R", "what you typed before; search in it"),
    ):
        view.add_row(Text(keys), Text(what, style="dim"))
    return Outcome(show=view)


def _model(session: Session, rest: str) -> Outcome:
    if rest:
        if rest != "auto":
            _served(session, rest)
        session.wishes["model"] = "" if rest == "auto" else rest
        return Outcome(show=Text(f"From now on: {rest if rest != 'auto' else 'whichever fits best'}.", "dim"))
    view = output.table("SERVED AS", "MODEL", "BY")
    for entry in output.harmless(session.client.models()["served"]):
        view.add_row(Text(entry["id"]), Text(entry["model"]), Text(", ".join(entry["nodes"])))
    return Outcome(show=view)


def _served(session: Session, model: str) -> None:
    """Raises UsageError for a model that nobody serves now: every question would fail."""
    served = session.client.models()["served"]
    known = {entry["model"] for entry in served} | {entry["id"] for entry in served}
    if model not in known and not any(name.endswith(f":{model}") for name in known):
        near = difflib.get_close_matches(model, known, n=1)
        raise UsageError(
            f"Nobody serves {model} now.", hint=f"Did you mean {near[0]}?" if near else "/model shows which there are."
        )


def _where(session: Session, rest: str) -> Outcome:
    if rest:
        session.wishes["constraints"] = {} if rest == "none" else dict(parse_labels(rest.split(), "/where"))
    held = ", ".join(f"{key}={value}" for key, value in session.wishes.get("constraints", {}).items())
    return Outcome(show=Text(f"Constraints: {held or 'none'}.", "dim"))


def _system(session: Session, rest: str) -> Outcome:
    if rest:
        session.wishes["system"] = "" if rest == "none" else rest
    return Outcome(show=Text(f"System prompt: {session.wishes.get('system') or 'none'}", "dim"))


def _file(session: Session, rest: str) -> Outcome:
    """/file NAME [what to do with it]"""
    name, _, words = rest.partition(" ")
    if not name:
        raise UsageError("Which file?", hint="/file report.md What does it say?")
    return Outcome(ask=read_prompt([words] if words else [], [name], stdin=False))


def _retry(session: Session, rest: str) -> Outcome:
    if not session.turns:
        raise UsageError("Nothing was asked yet.", hint="Type a question.")
    return Outcome(ask=session.turns.pop().prompt)


def _new(session: Session, rest: str) -> Outcome:
    session.turns.clear()
    return Outcome(show=Text("A new conversation.", "dim"))


def _save(session: Session, rest: str) -> Outcome:
    if not rest:
        raise UsageError("Where to?", hint="/save talk.md, or talk.json for programs")
    if not session.turns:
        raise UsageError("Nothing was said yet.", hint="Type a question.")
    path = Path(rest).expanduser()
    text = session.as_json() if path.suffix == ".json" else session.as_markdown()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already.", hint="Take another name.") from None
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}.", hint="Take another place.") from exc
    return Outcome(show=Text(f"Saved to {path}.", "dim"))


def _why(session: Session, rest: str) -> Outcome:
    if not session.last_request:
        raise UsageError("Nothing was answered yet.", hint="Type a question.")
    return Outcome(show=views.decision(output.harmless(session.client.explain(session.last_request))))


def _quit(session: Session, rest: str) -> Outcome:
    return Outcome(leave=True)


COMMANDS = {
    "help": Slash("", "this", _help),
    "model": Slash("[NAME]", "which there are, or take this one; auto: whichever fits best", _model),
    "where": Slash("[KEY=VALUE ...]", "constraints such as residency=eu; none: without", _where),
    "system": Slash("[TEXT]", "the system prompt; none: without", _system),
    "file": Slash("NAME [TEXT]", "ask about a text file, PNG or JPEG", _file),
    "retry": Slash("", "ask the last question again", _retry),
    "why": Slash("", "why the last answer came from where it came", _why),
    "save": Slash("FILE", "write the conversation down, as .md or .json", _save),
    "new": Slash("", "forget what was said", _new),
    "quit": Slash("", "end", _quit),
}
