"""`atmo keys`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, Home, before_command

app = typer.Typer(help="Keys for the HTTP API on this machine's nodes. Without a command: a table of them.")


@app.callback(invoke_without_command=True)
def keys(context: typer.Context, home: Home = None, as_json: AsJson = False) -> None:
    """Keys for the HTTP API on this machine's nodes. Without a command: a table of them."""
    if before_command(context, home=home, json=as_json):
        from atmo.cli import keys_commands

        keys_commands.show(home, as_json=as_json)


@app.command("create")
def create(
    name: Annotated[
        str, typer.Option(help="What it is for; shown in lists and in the audit trail.", metavar="NAME")
    ] = "",
    per_minute: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Requests a minute; 0 for no limit.", metavar="N")
    ] = 0,
    at_once: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Requests at once; 0 for no limit.", metavar="N")
    ] = 0,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Only this model. Repeatable.",
            metavar="NAME",
            autocompletion=completion.served_models,
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. From then on the API asks for a key on its port."""
    from atmo.cli import keys_commands

    keys_commands.create(home, name, per_minute=per_minute, at_once=at_once, models=model or [], as_json=as_json)


@app.command("list")
def list_(home: Home = None, as_json: AsJson = False) -> None:
    """The keys that were made, without their secrets."""
    from atmo.cli import keys_commands

    keys_commands.show(home, as_json=as_json)


@app.command("revoke")
def revoke(
    which: Annotated[
        str, typer.Argument(help="A key's name or id.", metavar="KEY", autocompletion=completion.key_names)
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a key back. Running nodes refuse it within a second."""
    from atmo.cli import keys_commands

    keys_commands.revoke(which, home, as_json=as_json)
