"""`atmo` alone: what this is, whether a node runs, and what to type next."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from atmo import __version__
from atmo.cli import output
from atmo.client import running_nodes
from atmo.config import load

_FIRST = (
    ("atmo node start", "start a node here, with a small model"),
    ('atmo ask "What is Atmosphere?"', "ask; add files or pipe text in"),
    ("atmo chat", "talk"),
    ("atmo mesh", "who is there and what they offer"),
    ("atmo mesh invite", "let another machine in"),
    ("atmo doctor", "what is missing, and what to do"),
)


def welcome() -> None:
    config = load()
    output.console().print(shown([card.name for card in running_nodes(config)], new=not config.home.exists()))


def shown(running: list[str], *, new: bool) -> RenderableType:
    """running: the nodes of this user on this machine; new: nothing was ever started here."""
    head = Text.assemble(("Atmosphere", "bold"), f" {__version__}: your machines answer as one.")
    view = output.table("", "")
    view.show_header = False
    for command, what in _FIRST:
        view.add_row(Text(f"  {command}"), Text(what, style="dim"))
    if running:
        state = Text.assemble(("●", "green"), f" Running here: {', '.join(output.harmless(running))}.")
    elif new:
        state = Text("Nothing has to be set up: begin with the first line below.")
    else:
        state = Text("No node is running here.")
    return Group(head, state, Text(), view, Text(), Text("All commands: atmo --help", style="dim"))
