"""The `atmo` command. Each command is thin: it reads flags, calls the node or the client, prints. Imports are late:
`--help` must answer at once."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from atmo.cli.models_app import models_app
from atmo.cli.options import AsJson, ConfigFile, Home, NodeName
from atmo.errors import AtmoError

app = typer.Typer(
    name="atmo",
    help="Atmosphere: your machines answer as one, and the model comes to the data.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
node_app = typer.Typer(help="Start, stop and look at the node on this machine.", no_args_is_help=True)
mesh_app = typer.Typer(help="The nodes of the mesh and what they offer. Without a command: a table of them.")
keys_app = typer.Typer(help="Keys for the HTTP API on this machine's nodes.", no_args_is_help=True)
app.add_typer(node_app, name="node")
app.add_typer(mesh_app, name="mesh")
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
receipt_app = typer.Typer(help="What a node stated, signed, of requests whose data had to stay.", no_args_is_help=True)
app.add_typer(receipt_app, name="receipt")
eval_app = typer.Typer(help="Measure with your own texts, without a node.", no_args_is_help=True)
app.add_typer(eval_app, name="eval")

Model = Annotated[str, typer.Option("--model", "-m", help="Only this model or capability id.")]
Kind = Annotated[str, typer.Option("--type", help="Only capabilities of this type: chat, embedding, classification.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", help="A constraint such as residency=eu, min_tps=20, local_only=true."),
]


@node_app.command("start")
def node_start(
    name: Annotated[str | None, typer.Option(help="The node's name; several nodes of one user differ by it.")] = None,
    serve: Annotated[list[str] | None, typer.Option(help="Model to serve: a name or a .gguf file. Repeatable.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind [4600, or any if that is taken].")] = None,
    seed: Annotated[list[str] | None, typer.Option(help="Address of a peer to dial, /ip4/.../tcp/.../p2p/...")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A label of this node, such as residency=eu.")] = None,
    mode: Annotated[str | None, typer.Option(help="standalone, provider, participant or headless.")] = None,
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
        "node.labels": _labels(label),
        "transport.host": host,
        "transport.port": port,
        "discovery.seeds": seed,
        "serve": serve,
    }
    node_commands.start(flags, config, foreground=foreground, as_json=as_json)


@node_app.command("stop")
def node_stop(
    node: NodeName = "",
    every: Annotated[bool, typer.Option("--all", help="Stop all nodes of this user on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a node: it withdraws what it offers and leaves the mesh."""
    from atmo.cli import node_commands

    node_commands.stop(node, every=every, as_json=as_json)


@node_app.command("status")
def node_status(node: NodeName = "", as_json: AsJson = False) -> None:
    """Say how the node is, what it serves, and what is wrong."""
    from atmo.cli import node_commands

    node_commands.status(node, as_json=as_json)


@node_app.command("rotate")
def node_rotate(
    name: Annotated[str | None, typer.Option(help="Which node of this home.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Give a node that does not run new keys, and revoke the old ones. A guest needs a new token then."""
    from atmo.cli import trust_commands

    trust_commands.rotate(name, home, as_json=as_json)


@app.command()
def ask(
    text: Annotated[list[str] | None, typer.Argument(help="What you want. Standard input is added to it.")] = None,
    model: Model = "",
    kind: Kind = "",
    where: Where = None,
    system: Annotated[str, typer.Option(help="A system prompt.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens; 0 for no limit.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest answer, more for variety.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For repeatable variety; -1 for any.")] = -1,
    timeout: Annotated[float, typer.Option(help="Seconds until the request is given up.")] = 120.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show why this node was chosen.")] = False,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="The text stays inside this node's residency, or here; if need be, a model comes."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --private: fetch the model without asking.")] = False,
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Ask the mesh; the answer streams."""
    from atmo.cli import ask_commands

    wishes: dict[str, Any] = {
        "model": model,
        "type": kind,
        "constraints": _constraints(where),
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "timeout_s": timeout,
    }
    if private or yes:
        wishes |= {"private": private, "migrate": "yes" if yes else "ask"}
    ask_commands.ask(text or [], wishes, node, explain=explain, as_json=as_json)


@app.command()
def route(
    text: Annotated[list[str] | None, typer.Argument(help="The prompt to route. Nothing is sent.")] = None,
    model: Model = "",
    kind: Kind = "",
    where: Where = None,
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Show where a prompt would go, and every term of the decision."""
    from atmo.cli import ask_commands

    ask_commands.route(
        text or [], {"model": model, "type": kind, "constraints": _constraints(where)}, node, as_json=as_json
    )


@app.command()
def explain(
    request: Annotated[str, typer.Argument(help="The id that `atmo ask --json` or --explain shows.")],
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Show the decision that was made for a request."""
    from atmo.cli import ask_commands

    ask_commands.explain(request, node, as_json=as_json)


@mesh_app.callback(invoke_without_command=True)
def mesh(context: typer.Context, node: NodeName = "", as_json: AsJson = False) -> None:
    """The nodes of the mesh and what they offer."""
    if context.invoked_subcommand is None:
        from atmo.cli import mesh_commands

        mesh_commands.show(node, as_json=as_json)


@mesh_app.command("watch")
def mesh_watch(
    node: NodeName = "",
    interval: Annotated[float, typer.Option(help="Seconds between two looks at the mesh; events come at once.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Stop after so many seconds; 0 for never.")] = 0.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture, or with --json the last events.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print events as they happen, one JSON object a line.")
    ] = False,
) -> None:
    """Watch the mesh live: nodes, requests and where they go, events, links. `?` shows the keys, `q` quits."""
    from atmo.cli.watch import app as watcher

    watcher.watch(node, interval_s=interval, for_s=seconds, once=once, as_json=as_json)


@mesh_app.command("create")
def mesh_create(home: Home = None, as_json: AsJson = False) -> None:
    """Begin a new mesh of your own. The old one's key is kept beside it."""
    from atmo.cli import trust_commands

    trust_commands.create(home, as_json=as_json)


@mesh_app.command("invite")
def mesh_invite(
    uses: Annotated[int, typer.Option(min=1, help="How many nodes may join with it.")] = 1,
    hours: Annotated[float, typer.Option(min=0.02, help="How long it can be used, in hours.")] = 24.0,
    days: Annotated[
        float | None,
        typer.Option(min=0.01, help="How long who joins is a member. Default: a year, renewed by your nodes."),
    ] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show it as a QR code, too.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a token that lets other machines join this mesh. It is a password: hand it over like one."""
    from atmo.cli import trust_commands

    trust_commands.invite(home, uses=uses, hours=hours, days=days, qr=qr, as_json=as_json)


@mesh_app.command("join")
def mesh_join(
    token: Annotated[str, typer.Argument(help="What `atmo mesh invite` printed.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Join the mesh that a token is for. Takes effect when nodes start."""
    from atmo.cli import trust_commands

    trust_commands.join(token, home, as_json=as_json)


@mesh_app.command("leave")
def mesh_leave(home: Home = None, as_json: AsJson = False) -> None:
    """Leave the mesh that was joined and go back to one's own."""
    from atmo.cli import trust_commands

    trust_commands.leave(home, as_json=as_json)


@mesh_app.command("members")
def mesh_members(node: NodeName = "", as_json: AsJson = False) -> None:
    """Who belongs to the mesh, by which invite, until when."""
    from atmo.cli import trust_commands

    trust_commands.members(node, as_json=as_json)


@mesh_app.command("revoke")
def mesh_revoke(
    whom: Annotated[str, typer.Argument(help="A node's name, a peer id, an invite's id, or the end of one.")],
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Take back a member, or an invite with everyone it let in. Only the mesh's owner can."""
    from atmo.cli import trust_commands

    trust_commands.revoke(whom, node, as_json=as_json)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What it is for; shown in lists and in the audit trail.")] = "",
    per_minute: Annotated[int, typer.Option(min=0, max=1_000_000, help="Requests a minute; 0 for no limit.")] = 0,
    at_once: Annotated[int, typer.Option(min=0, max=1_000_000, help="Requests at once; 0 for no limit.")] = 0,
    model: Annotated[list[str] | None, typer.Option(help="Only this model. Repeatable.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. From then on the API asks for a key on its port."""
    from atmo.cli import keys_commands

    keys_commands.create(home, name, per_minute=per_minute, at_once=at_once, models=model or [], as_json=as_json)


@keys_app.command("list")
def keys_list(home: Home = None, as_json: AsJson = False) -> None:
    """The keys that were made, without their secrets."""
    from atmo.cli import keys_commands

    keys_commands.show(home, as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(
    which: Annotated[str, typer.Argument(help="A key's name or id.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a key back. Running nodes refuse it within a second."""
    from atmo.cli import keys_commands

    keys_commands.revoke(which, home, as_json=as_json)


@receipt_app.command("list")
def receipt_list(home: Home = None, as_json: AsJson = False) -> None:
    """The receipts of this user's nodes, the newest first."""
    from atmo.cli import receipt_commands

    receipt_commands.show_all(home, as_json=as_json)


@receipt_app.command("show")
def receipt_show(
    which: Annotated[str, typer.Argument(help="A receipt's id, its beginning, or a file.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a receipt says."""
    from atmo.cli import receipt_commands

    receipt_commands.show(which, home, as_json=as_json)


@receipt_app.command("verify")
def receipt_verify(
    which: Annotated[str, typer.Argument(help="A receipt's id, its beginning, or a file.")],
    signer: Annotated[str, typer.Option(help="The peer id that must have signed it.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check that it was signed by whom it names, as it stands, and that what it says holds together."""
    from atmo.cli import receipt_commands

    receipt_commands.check(which, signer, home, as_json=as_json)


@eval_app.callback()
def evaluate() -> None:
    """Measure with your own texts, without a node."""


@eval_app.command("routing")
def eval_routing(
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
    """Say how often a text finds the capability that serves it, and show each miss."""
    from atmo.cli import eval_command

    eval_command.routing(capabilities, intents, as_json=as_json)


@app.command()
def doctor(home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check everything a node needs, and say what to do where something is missing."""
    from atmo.cli import doctor_command

    doctor_command.doctor(home, config, as_json=as_json)


@app.command()
def version() -> None:
    """Print the version."""
    import atmo

    typer.echo(f"atmo {atmo.__version__}")


def _labels(pairs: list[str] | None) -> dict[str, str] | None:
    from atmo.config import parse_labels

    return parse_labels(pairs, "--label") if pairs else None


def _constraints(pairs: list[str] | None) -> dict[str, Any]:
    from atmo.config import parse_labels

    return dict(parse_labels(pairs, "--where")) if pairs else {}


def main() -> None:
    """Run a command; every error on purpose becomes one clear line and an exit code, Ctrl-C is clean."""
    try:
        app()
    except AtmoError as error:
        from atmo.cli import output

        sys.exit(output.fail_json(error) if "--json" in sys.argv else output.fail(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
