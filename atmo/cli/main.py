"""The `atmo` command, as Typer knows it. Each command is thin: it reads flags, calls the node or the client, prints.
Imports are late: `--help` must answer at once. Groups of commands are declared in `atmo/cli/grammar`."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import config, evaluate, keys, mesh, models, node, receipt
from atmo.cli.grammar.options import (
    AsJson,
    ConfigFile,
    Home,
    InOrder,
    Kind,
    MaxTokens,
    Model,
    NodeName,
    Seed,
    System,
    Temperature,
    Timeout,
    Where,
)
from atmo.cli.wishes import pairs, wishes

app = typer.Typer(
    name="atmo",
    cls=InOrder,
    help="Atmosphere: your machines answer as one, and the model comes to the data.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(node.app, name="node")
app.add_typer(mesh.app, name="mesh")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(config.app, name="config")
app.add_typer(receipt.app, name="receipt")
app.add_typer(evaluate.app, name="eval")

Files = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="A text file, PNG or JPEG to add to the prompt. Repeatable.", metavar="FILE"),
]
Plain = Annotated[bool, typer.Option("--plain", help="Show the answer as the model wrote it, without Markdown.")]


@app.callback(invoke_without_command=True)
def atmo(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Atmosphere: your machines answer as one, and the model comes to the data."""
    if version:
        _print_version(as_json=False)
        raise typer.Exit
    if context.invoked_subcommand is None:
        from atmo.cli import welcome

        welcome.welcome()


@app.command()
def ask(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="What you want; files after it (report.md, ./LICENSE, photo.png) and standard input are added.",
            metavar="[TEXT] [FILE]...",
        ),
    ] = None,
    file: Files = None,
    model: Model = "",
    kind: Kind = "",
    where: Where = None,
    system: System = "",
    max_tokens: MaxTokens = 0,
    temperature: Temperature = 0.0,
    seed: Seed = -1,
    timeout: Timeout = 120.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show why this node was chosen.")] = False,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="The text stays inside this node's residency, or here; if need be, a model comes."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --private: fetch the model without asking.")] = False,
    plain: Plain = False,
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Ask the mesh; the answer streams."""
    from atmo.cli import ask_commands

    ask_commands.asked(
        text=text,
        file=file,
        model=model,
        kind=kind,
        where=where,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        timeout=timeout,
        explain=explain,
        private=private,
        yes=yes,
        plain=plain,
        node=node,
        as_json=as_json,
    )


@app.command()
def chat(
    text: Annotated[
        list[str] | None, typer.Argument(help="What you want to say first, if you like.", metavar="[TEXT] [FILE]...")
    ] = None,
    file: Files = None,
    model: Model = "",
    where: Where = None,
    system: System = "",
    max_tokens: MaxTokens = 0,
    temperature: Temperature = 0.0,
    seed: Seed = -1,
    timeout: Timeout = 120.0,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep what you type for the next time (arrow up).")
    ] = True,
    plain: Plain = False,
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Talk with the mesh. /help shows what you can type; lines from a pipe are one question each."""
    from atmo.cli.chat import command

    wished = wishes(model, "chat", where, system, max_tokens, temperature, seed, timeout)
    command.chat(text or [], file or [], wished, node, history=history, plain=plain, as_json=as_json)


@app.command()
def route(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="The prompt to route. Nothing is sent.", metavar="[TEXT] [FILE]..."),
    ] = None,
    file: Files = None,
    model: Model = "",
    kind: Kind = "",
    where: Where = None,
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Show where a prompt would go, and every term of the decision."""
    from atmo.cli import ask_commands

    wished = {"model": model, "type": kind, "constraints": pairs(where, "--where")}
    ask_commands.route(text or [], file or [], wished, node, as_json=as_json)


@app.command()
def explain(
    request: Annotated[
        str, typer.Argument(help="The id that `atmo ask --json` or --explain shows.", metavar="REQUEST")
    ],
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Show the decision that was made for a request."""
    from atmo.cli import ask_commands

    ask_commands.explain(request, node, as_json=as_json)


@app.command()
def bench(
    requests: Annotated[
        int, typer.Option(min=1, max=1000, help="How many requests, one after the other.", metavar="N")
    ] = 10,
    max_tokens: Annotated[int, typer.Option(min=2, max=100_000, help="Tokens of each answer.", metavar="N")] = 32,
    model: Model = "",
    node: NodeName = "",
    as_json: AsJson = False,
) -> None:
    """Measure the running node as you see it. First token, tokens a second, and what the way to another node costs."""
    from atmo.cli import bench_command

    bench_command.bench(node, model, requests=requests, max_tokens=max_tokens, as_json=as_json)


@app.command()
def doctor(home: Home = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check all that a node needs, and say how to mend what is wrong."""
    from atmo.cli import doctor_command

    doctor_command.doctor(home, config, as_json=as_json)


@app.command("version")
def version_(as_json: AsJson = False) -> None:
    """Print the version."""
    _print_version(as_json=as_json)


def _print_version(*, as_json: bool) -> None:
    import atmo as package

    if as_json:
        from atmo.cli import output

        output.print_json({"version": package.__version__})
    else:
        typer.echo(f"atmo {package.__version__}")
