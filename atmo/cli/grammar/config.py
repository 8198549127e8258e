"""`atmo config`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, ConfigFile, Home, before_command

app = typer.Typer(help="Settings and where each comes from. Without a command: a table of them.")

Setting = Annotated[
    str,
    typer.Argument(
        help="A setting, such as transport.port.", metavar="SECTION.KEY", autocompletion=completion.settings
    ),
]


@app.callback(invoke_without_command=True)
def config(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that have their default.")] = False,
    home: Home = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Settings and where each comes from. Without a command: a table of them."""
    if before_command(context, all=every, home=home, config=config, json=as_json):
        from atmo.cli import config_commands

        config_commands.show(home, config, every=every, as_json=as_json)


@app.command("show")
def show(
    every: Annotated[bool, typer.Option("--all", help="Also those that have their default.")] = False,
    home: Home = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Every setting that is not as it comes. With its source: file or environment; with --all, all of them."""
    from atmo.cli import config_commands

    config_commands.show(home, config, every=every, as_json=as_json)


@app.command("get")
def get(setting: Setting, home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print one setting's value."""
    from atmo.cli import config_commands

    config_commands.get(setting, home, config, as_json=as_json)


@app.command("set")
def set_(
    setting: Setting,
    value: Annotated[
        str, typer.Argument(help="Its value; lists with commas, labels as key=value with commas.", metavar="VALUE")
    ],
    home: Home = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a setting into the configuration file, whose comments stay. Nodes take it when they start."""
    from atmo.cli import config_commands

    config_commands.put(setting, value, home, config, as_json=as_json)


@app.command("unset")
def unset(setting: Setting, home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Take a setting out of the configuration file. Its default holds again."""
    from atmo.cli import config_commands

    config_commands.put(setting, None, home, config, as_json=as_json)


@app.command("path")
def path(home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print where the configuration file is, or would be."""
    from atmo.cli import config_commands

    config_commands.path(home, config, as_json=as_json)


@app.command("edit")
def edit(home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Open the configuration file in $VISUAL or $EDITOR, then check it."""
    from atmo.cli import config_commands

    config_commands.edit(home, config, as_json=as_json)


@app.command("check")
def check(home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say whether the configuration can be used. What is wrong, if not."""
    from atmo.cli import config_commands

    config_commands.check(home, config, as_json=as_json)
