"""`atmo receipt ...`: what each command takes."""

from __future__ import annotations

from typing import Annotated

import typer

from atmo.cli.grammar import completion
from atmo.cli.grammar.options import AsJson, Home

app = typer.Typer(help="What a node stated, signed, of requests whose data had to stay.", no_args_is_help=True)

_Which = Annotated[
    str,
    typer.Argument(
        metavar="RECEIPT", help="A receipt's id, its beginning, or a file.", autocompletion=completion.receipts
    ),
]


@app.command("list")
def receipt_list(home: Home = None, as_json: AsJson = False) -> None:
    """The receipts of this user's nodes, the newest first."""
    from atmo.cli import receipt_commands

    receipt_commands.show_all(home, as_json=as_json)


@app.command("show")
def receipt_show(which: _Which, home: Home = None, as_json: AsJson = False) -> None:
    """What a receipt says."""
    from atmo.cli import receipt_commands

    receipt_commands.show(which, home, as_json=as_json)


@app.command("verify")
def receipt_verify(
    which: _Which,
    signer: Annotated[str, typer.Option(help="The peer id that must have signed it.", metavar="PEER")] = "",
    mesh: Annotated[
        str, typer.Option(help="The id of the mesh whose member must have signed it.", metavar="MESH")
    ] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check that a receipt was signed by whom it names. By a member of the mesh, as it stands; and that it holds
    together."""
    from atmo.cli import receipt_commands

    receipt_commands.check(which, signer, mesh, home, as_json=as_json)
