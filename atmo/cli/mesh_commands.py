"""`atmo mesh`."""

from __future__ import annotations

from atmo.cli import output, views
from atmo.client import SyncClient


def show(node: str, *, as_json: bool) -> None:
    report = SyncClient(node=node).mesh()
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.mesh(output.harmless(report)))
