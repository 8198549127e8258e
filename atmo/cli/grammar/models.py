"""`atmo models ...`: what each command takes. Imports are late, as in `main`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, Home, NodeName, before_command

app = typer.Typer(help="Models on this machine and in the mesh. Without a command: tables of them.")

_Which = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model's name, its root or the beginning of it.", autocompletion=completion.models_here
    ),
]
_Name = Annotated[str, typer.Option("--name", help="What to call it here; its own name when left out.", metavar="NAME")]
_Pin = Annotated[bool, typer.Option("--pin", help="Never remove it to make room.")]


@app.callback(invoke_without_command=True)
def models(context: typer.Context, node: NodeName = "", home: Home = None, as_json: AsJson = False) -> None:
    """Models on this machine and in the mesh. Without a command: tables of them."""
    if before_command(context, node=node, home=home, json=as_json):
        models_list(node, home, as_json)


@app.command("list")
def models_list(node: NodeName = "", home: Home = None, as_json: AsJson = False) -> None:
    """What is on this machine, and what the mesh serves. The latter if a node is running here."""
    from atmo.cli import models_commands

    models_commands.show(node, home, as_json=as_json)


@app.command("import")
def models_import(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file, or a folder with all files of one model.")],
    name: _Name = "",
    copy: Annotated[bool, typer.Option("--copy", help="Copy it even where the disk could share it.")] = False,
    pin: _Pin = False,
    share: Annotated[bool, typer.Option("--share", help="Let peers fetch it.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a model from this machine into the store. Nothing is copied where the file system can share."""
    from atmo.cli import models_commands

    models_commands.take(path, name, home, copy=copy, pin=pin, share=share, as_json=as_json)


@app.command("pull")
def models_pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="hf://org/repo[@revision][/file or :Q4_K_M], https://..., a path, a name or a root."
        ),
    ],
    name: _Name = "",
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Only from there: peers, hub, url or file.",
            metavar="SOURCE",
            autocompletion=completion.sources,
        ),
    ] = "",
    pin: _Pin = False,
    share: Annotated[bool, typer.Option("--share/--no-share", help="Let peers fetch it, too.")] = True,
    node: NodeName = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model from peers, the hub, a server or a file. Peers are asked first; Ctrl-C keeps what is there."""
    from atmo.cli import pull_command

    pull_command.pull(model, name, source, node, home, pin=pin, share=share, as_json=as_json)


@app.command("inspect")
def models_inspect(model: _Which, home: Home = None, as_json: AsJson = False) -> None:
    """Say what a model is. Its files, what it says of itself, where it came from."""
    from atmo.cli import models_commands

    models_commands.inspect(model, home, as_json=as_json)


@app.command("rm")
def models_rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Names, roots or their beginnings.", autocompletion=completion.models_here
        ),
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove models from the store, whole ones and beginnings. Files that they were imported from stay."""
    from atmo.cli import models_commands

    models_commands.remove(models, home, as_json=as_json)


@app.command("gc")
def models_gc(
    quota_gb: Annotated[
        float | None,
        typer.Option(
            "--quota-gb", min=0, help="What the store may take [quota_gb of the configuration].", metavar="GB"
        ),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove models until the quota is met. Those not used for longest go first, never what is pinned or in use."""
    from atmo.cli import models_commands

    models_commands.collect(quota_gb, home, dry=dry, as_json=as_json)


@app.command("verify")
def models_verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="All of them when left out.", autocompletion=completion.models_here),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte again and compare it with the model's root."""
    from atmo.cli import models_commands

    models_commands.verify(models or [], home, as_json=as_json)


@app.command("share")
def models_share(
    model: _Which,
    off: Annotated[bool, typer.Option("--off", help="Give it away no more.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="Only to nodes with this label, such as residency=eu. Repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let peers fetch a model from this machine's nodes. A GGUF file that is no part of the store is taken into it."""
    from atmo.cli import models_commands

    models_commands.share(model, only or [], home, off=off, as_json=as_json)


@app.command("pin")
def models_pin(
    model: _Which,
    off: Annotated[bool, typer.Option("--off", help="It may be removed again to make room.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Keep a model whatever the quota says."""
    from atmo.cli import models_commands

    models_commands.pin(model, home, off=off, as_json=as_json)


@app.command("where")
def models_where(model: _Which, node: NodeName = "", home: Home = None, as_json: AsJson = False) -> None:
    """Say where a model is. On this machine, and which nodes give it away if one is running here."""
    from atmo.cli import models_commands

    models_commands.where(model, node, home, as_json=as_json)
