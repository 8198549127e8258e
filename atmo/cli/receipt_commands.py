"""`atmo receipt list | show | verify`. No node is needed."""

from __future__ import annotations

from typing import Any

from atmo import receipts
from atmo.cli import output, views
from atmo.config import Config, load
from atmo.errors import UsageError
from atmo.ids import format_peer, parse_peer
from atmo.keys import check_revocation
from atmo.node.membership import open_mesh

Json = dict[str, Any]


def show_all(home: str | None, *, as_json: bool) -> None:
    found: list[Json] = []
    for file in receipts.kept(load({"home": home}).home):
        try:
            receipt = receipts.read(file)
        except UsageError as error:
            output.aside().print(f"[yellow]![/] {output.harmless(error.message)}")
            continue
        found.append({"id": receipt.id, "file": str(file), "genuine": receipt.genuine, **receipt.says})
    if as_json:
        output.print_json({"receipts": found})
    elif found:
        output.console().print(views.receipts(output.harmless(found)))
    else:
        output.console().print("There are no receipts yet. `atmo ask --private` makes one.")


def show(which: str, home: str | None, *, as_json: bool) -> None:
    receipt = receipts.read(receipts.find(which, load({"home": home}).home))
    if as_json:
        output.print_json(receipt.says)
    else:
        output.console().print(views.receipt(output.harmless(receipt.says)))


def check(which: str, signer: str, mesh: str, home: str | None, *, as_json: bool) -> None:
    """Raises UsageError, with what is wrong, for one that does not verify."""
    config = load({"home": home})
    if mesh:
        parse_peer(mesh)
    file = receipts.find(which, config.home)
    receipt = receipts.read(file)
    problems = receipts.problems(receipt, signer, mesh)
    known = _known(config, receipt)
    if as_json:
        output.print_json({"file": str(file), "genuine": not problems, "problems": problems, **known, **receipt.says})
        if problems:
            raise SystemExit(1)
    elif problems:
        raise UsageError(f"{file} does not verify: {'; '.join(problems)}.", hint="It was changed, or is another's.")
    else:
        output.console().print(views.verified(output.harmless({**receipt.says, **known, "named": bool(mesh)})))


def _known(config: Config, receipt: receipts.Receipt) -> Json:
    """What this home knows of the mesh and of the signer beyond what the receipt itself shows."""
    folder = config.root_key.parent
    if not config.root_key.exists() and not (folder / "joined").exists():
        return {"own_mesh": False, "revoked_at_s": None}
    own = open_mesh(config)
    if format_peer(own.mesh) != receipt.says["mesh"]:
        return {"own_mesh": False, "revoked_at_s": None}
    signer = parse_peer(receipt.says["signer"])
    taken_back = (check_revocation(statement, own.mesh) for statement in own.revoked())
    return {"own_mesh": True, "revoked_at_s": next((each.at_s for each in taken_back if each.key == signer), None)}
