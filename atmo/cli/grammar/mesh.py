"""`atmo mesh`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, Home, NodeName, before_command

app = typer.Typer(help="The nodes of the mesh and what they offer. Without a command: a table of them.")


@app.callback(invoke_without_command=True)
def mesh(context: typer.Context, node: NodeName = "", as_json: AsJson = False) -> None:
    """The nodes of the mesh and what they offer. Without a command: a table of them."""
    if before_command(context, node=node, json=as_json):
        from atmo.cli import mesh_commands

        mesh_commands.show(node, as_json=as_json)


@app.command("watch")
def watch(
    node: NodeName = "",
    interval: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds between two looks at the mesh; events come at once.", metavar="SECONDS"),
    ] = 1.0,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Stop after so many seconds; 0 for never.", metavar="SECONDS")
    ] = 0.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, or with --json the last events.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events as they happen, one JSON object a line.")
    ] = False,
) -> None:
    """Watch the mesh live: nodes, requests, events, links. `?` shows the keys, `q` quits."""
    from atmo.cli.watch import app as watcher

    watcher.watch(node, interval_s=interval, for_s=seconds, once=once, as_json=as_json)


@app.command("create")
def create(home: Home = None, as_json: AsJson = False) -> None:
    """Begin a new mesh of your own. The old one's key is kept beside it."""
    from atmo.cli import trust_commands

    trust_commands.create(home, as_json=as_json)


@app.command("invite")
def invite(
    uses: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many nodes may join with it.", metavar="N")] = 1,
    hours: Annotated[
        float, typer.Option(min=0.02, max=876_000, help="How long it can be used, in hours.", metavar="HOURS")
    ] = 24.0,
    days: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=36_500,
            help="How long who joins is a member. Default: a year, renewed by your nodes.",
            metavar="DAYS",
        ),
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show it as a QR code, too.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a token that lets other machines join this mesh. It is a password: hand it over like one."""
    from atmo.cli import trust_commands

    trust_commands.invite(home, uses=uses, hours=hours, days=days, qr=qr, as_json=as_json)


@app.command("join")
def join(
    token: Annotated[str, typer.Argument(help="What `atmo mesh invite` printed.", metavar="TOKEN")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Join the mesh that a token is for. Takes effect when nodes start."""
    from atmo.cli import trust_commands

    trust_commands.join(token, home, as_json=as_json)


@app.command("leave")
def leave(home: Home = None, as_json: AsJson = False) -> None:
    """Leave the mesh that was joined and go back to one's own."""
    from atmo.cli import trust_commands

    trust_commands.leave(home, as_json=as_json)


@app.command("members")
def members(node: NodeName = "", as_json: AsJson = False) -> None:
    """Who belongs to the mesh, by which invite, until when."""
    from atmo.cli import trust_commands

    trust_commands.members(node, as_json=as_json)


@app.command("revoke")
def revoke(
    whom: Annotated[
        str,
        typer.Argument(
            help="A node's name, a peer id, an invite's id, or the end of one.",
            metavar="WHOM",
            autocompletion=completion.members,
        ),
    ],
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Take back a member, or an invite with everyone it let in. Only the mesh's owner can."""
    from atmo.cli import trust_commands

    trust_commands.revoke(whom, node, as_json=as_json)
