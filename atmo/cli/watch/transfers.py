"""The pane of models that travel: which, how far, how fast, from and to whom."""

from __future__ import annotations

from atmo.cli.watch import cells
from atmo.cli.watch.cells import BOLD, CYAN, DIM, GREEN, RED, Cell
from atmo.cli.watch.pane import STANDS, Column, Entry, Pane
from atmo.cli.watch.story import Story


def size(count: float) -> str:
    """Bytes for people, as makers of disks count."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.1f} {unit}" if count < 100 * least else f"{count / least:.0f} {unit}"
    return f"{count:.0f} B"


def done_share(transfer: Entry) -> float:
    return min(1.0, float(transfer["bytes_done"] / transfer["bytes_total"])) if transfer["bytes_total"] else 0.0


def remaining(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _way(transfer: Entry, story: Story, width: int) -> Cell:
    return Cell("↓", CYAN) if transfer["direction"] == "in" else Cell("↑", GREEN)


def _progress(transfer: Entry, story: Story, width: int) -> Cell:
    state, share_ = transfer["state"], done_share(transfer)
    if state == "failed":
        return Cell("failed", RED)
    style = GREEN if state == "done" else CYAN
    return Cell(f"{cells.bar(share_, width - 5)} {share_:>4.0%}", style)


def _rate(transfer: Entry, story: Story, width: int) -> Cell:
    running = transfer["state"] == "running" and transfer["bytes_per_s"]
    return Cell(f"{size(transfer['bytes_per_s'])}/s") if running else Cell("-", DIM)


def _left(transfer: Entry, story: Story, width: int) -> Cell:
    if transfer["state"] != "running":
        return Cell(transfer["state"], STANDS["good" if transfer["state"] == "done" else "bad"])
    return Cell("-", DIM) if transfer.get("eta_s") is None else Cell(remaining(transfer["eta_s"]))


def _sources(transfer: Entry, story: Story, width: int) -> Cell:
    names = ", ".join(source.get("name") or story.name(source["peer"]) for source in transfer.get("sources", ()))
    return Cell(transfer["error"], RED) if transfer.get("error") else Cell(names or "-", DIM)


def _moving(transfer: Entry) -> float:
    return float(transfer["bytes_per_s"]) if transfer["state"] == "running" else -1.0


TRANSFERS = Pane(
    "TRANSFERS",
    (
        Column("", 1, 1, _way, lambda t, s: t["direction"]),
        Column("MODEL", 16, 34, lambda t, s, w: Cell(t["model"], BOLD), lambda t, s: t["model"]),
        Column("PROGRESS", 12, 28, _progress, lambda t, s: -done_share(t)),
        Column("SIZE", 8, 8, lambda t, s, w: Cell(size(t["bytes_total"])), lambda t, s: -t["bytes_total"], right=True),
        Column("SPEED", 10, 10, _rate, lambda t, s: -_moving(t), right=True),
        Column("LEFT", 7, 7, _left, lambda t, s: 1e18 if t.get("eta_s") is None else t["eta_s"], right=True),
        Column("FROM / TO", 10, 99, _sources),
    ),
    lambda story: sorted(story.transfers.values(), key=lambda t: (t["state"] != "running", -_moving(t), t["model"])),
    lambda transfer: f"{transfer['direction']}/{transfer['root']}",
    lambda transfer, story: " ".join((transfer["model"], transfer["state"], _sources(transfer, story, 0).text)),
)
