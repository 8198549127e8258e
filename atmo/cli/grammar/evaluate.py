"""`atmo eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar.options import AsJson

app = typer.Typer(help="Measure with your own texts, without a node.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Measure with your own texts, without a node."""


@app.command("routing")
def routing(
    capabilities: Annotated[
        str, typer.Option(help='JSON list of {"id", "type", "description", "examples": [...]}.', metavar="FILE")
    ],
    intents: Annotated[
        str,
        typer.Option(
            help='Lines of {"text", "expect": [ids], "hard": true or false}; expect [] where nothing fits.',
            metavar="FILE",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say how often a text finds what serves it. Each miss is shown."""
    from atmo.cli import eval_command

    eval_command.routing(capabilities, intents, as_json=as_json)
