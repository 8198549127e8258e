"""Options that several commands share, so that the same word means the same everywhere."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from atmo.cli.grammar import completion

# For a new user from the top; what is not named here comes last.
ORDER = (
    "node",
    "ask",
    "chat",
    "mesh",
    "models",
    "route",
    "explain",
    "bench",
    "eval",
    "keys",
    "config",
    "doctor",
    "receipt",
    "version",
)


class InOrder(TyperGroup):
    """Commands as in ORDER, not as they were declared."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
NodeName = Annotated[
    str,
    typer.Option(
        "--node", help="Talk to the local node of this name.", metavar="NAME", autocompletion=completion.running_names
    ),
]
NodeHome = Annotated[
    str | None,
    typer.Option(
        "--name", help="Which node of this home.", metavar="NAME", autocompletion=completion.names_of_this_home
    ),
]
Home = Annotated[
    str | None, typer.Option("--home", help="Folder for keys and models [ATMO_HOME, ~/.atmo].", metavar="FOLDER")
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", help="Configuration file [$ATMO_HOME/config.toml].", metavar="FILE")
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Only this model or capability id.",
        metavar="NAME",
        autocompletion=completion.served_models,
    ),
]
Kind = Annotated[
    str,
    typer.Option(
        "--type",
        help="Only capabilities of this type: chat, embedding, classification, vision.",
        metavar="TYPE",
        autocompletion=completion.types,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        help="A constraint such as residency=eu, min_tps=20, local_only=true. Repeatable.",
        metavar="KEY=VALUE",
        autocompletion=completion.constraints,
    ),
]
System = Annotated[str, typer.Option(help="A system prompt.", metavar="TEXT")]
MaxTokens = Annotated[int, typer.Option(min=0, help="Longest answer, in tokens; 0 for no limit.", metavar="N")]
Temperature = Annotated[
    float, typer.Option(min=0.0, max=5.0, help="0 for the likeliest answer, more for variety.", metavar="X")
]
Seed = Annotated[int, typer.Option(min=-1, help="For repeatable variety; -1 for any.", metavar="N")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds until the request is given up.", metavar="SECONDS")]


def before_command(context: typer.Context, **given: Any) -> bool:
    """Is the group itself meant, without a command? Raises UsageError for its options before a command: they would
    be without effect."""
    if context.invoked_subcommand is None:
        return True
    for name, value in given.items():
        if value:
            from atmo.errors import UsageError

            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} stands before the command.",
                hint=f"Write it behind: {context.command_path} {context.invoked_subcommand} {option}",
            )
    return False
