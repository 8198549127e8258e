"""`atmo node`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, ConfigFile, Home, NodeHome, NodeName, before_command
from atmo.cli.wishes import pairs

app = typer.Typer(help="Start, stop and look at the nodes on this machine. Without a command: how the node is.")


@app.callback(invoke_without_command=True)
def node(context: typer.Context, node: NodeName = "", as_json: AsJson = False) -> None:
    """Start, stop and look at the nodes on this machine. Without a command: how the node is."""
    if before_command(context, node=node, json=as_json):
        from atmo.cli import node_commands

        node_commands.status(node, as_json=as_json)


@app.command("start")
def start(
    name: Annotated[
        str | None, typer.Option(help="The node's name; several nodes of one user differ by it.", metavar="NAME")
    ] = None,
    serve: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to serve: a name or a .gguf file. Repeatable.",
            metavar="MODEL",
            autocompletion=completion.models_here,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [127.0.0.1].", metavar="ADDRESS")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to bind [4600, or any if that is taken].", metavar="PORT")
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(help="Address of a peer to dial, /ip4/.../tcp/.../p2p/... Repeatable.", metavar="ADDRESS"),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label of this node, such as residency=eu. Repeatable.", metavar="KEY=VALUE"),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="standalone, provider, participant or headless.", metavar="MODE", autocompletion=completion.modes
        ),
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the terminal; logs go to stderr.")] = False,
    home: Home = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a node in the background and say when it is ready."""
    from atmo.cli import node_commands

    flags = {
        "home": home,
        "node.name": name,
        "node.mode": mode,
        "node.labels": pairs(label, "--label") or None,
        "transport.host": host,
        "transport.port": port,
        "discovery.seeds": seed,
        "serve": serve,
    }
    node_commands.start(flags, config, foreground=foreground, as_json=as_json)


@app.command("stop")
def stop(
    node: NodeName = "",
    every: Annotated[bool, typer.Option("--all", help="Stop all nodes of this user on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a node: it withdraws what it offers and leaves the mesh."""
    from atmo.cli import node_commands

    node_commands.stop(node, every=every, as_json=as_json)


@app.command("status")
def status(node: NodeName = "", as_json: AsJson = False) -> None:
    """Say how the node is, what it serves, and what is wrong."""
    from atmo.cli import node_commands

    node_commands.status(node, as_json=as_json)


@app.command("logs")
def logs(
    name: NodeHome = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.", metavar="N")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print the end of a node's log, whether it runs or not. There is never a prompt in it."""
    from atmo.cli import logs_command

    logs_command.logs(name, home, lines=lines, follow=follow, as_json=as_json)


@app.command("rotate")
def rotate(name: NodeHome = None, home: Home = None, as_json: AsJson = False) -> None:
    """Give a node that does not run new keys, and revoke the old ones. A guest needs a new token then."""
    from atmo.cli import trust_commands

    trust_commands.rotate(name, home, as_json=as_json)
