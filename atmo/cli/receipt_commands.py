"""`atmo receipt list | show | verify`. No node is needed."""

from __future__ import annotations

from typing import Any

from atmo import receipts
from atmo.cli import output, views
from atmo.config import load
from atmo.errors import UsageError

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


def check(which: str, signer: str, home: str | None, *, as_json: bool) -> None:
    """Raises UsageError, with what is wrong, for one that does not verify."""
    file = receipts.find(which, load({"home": home}).home)
    receipt = receipts.read(file)
    problems = receipts.problems(receipt, signer)
    if as_json:
        output.print_json({"file": str(file), "genuine": not problems, "problems": problems, **receipt.says})
        if problems:
            raise SystemExit(1)
    elif problems:
        raise UsageError(f"{file} does not verify: {'; '.join(problems)}.", hint="It was changed, or is another's.")
    else:
        output.console().print(views.verified(output.harmless(receipt.says)))
