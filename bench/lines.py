"""Models that travel between hosts: network namespaces whose lines `tc` bounds, and a long line that loses packets.

Where that cannot be had (no root, no `ip netns`, no tun device) it is left out, and the notes say why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from bench import movers
from bench.harness import Outcome, Pair, Series
from tests.node.network import Network, NoNetwork

MIB = 1 << 20
# Across a continent and through a wireless access point: there and back in 40 ms, one packet in a thousand lost.
DELAY_MS, JITTER_MS, LOSS = 20.0, 2.0, 0.001


@dataclass
class Held:
    """Samples of all rounds. why: what could not be had."""

    egress: list[float] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    long_mesh: list[float] = field(default_factory=list)
    long_tcp: list[float] = field(default_factory=list)
    why: set[str] = field(default_factory=set)


async def hold(held: Held, folder: Path, model: Path, downloaders: int, limit_mb_per_s: float, line_mib: int) -> None:
    """One round of both."""
    folder.mkdir()  # noqa: ASYNC240 - in memory
    try:
        await _limited(held, folder, model, downloaders, limit_mb_per_s)
        await _long(held, folder, model, line_mib)
    except NoNetwork as error:
        held.why.add(str(error))


async def _limited(held: Held, folder: Path, model: Path, downloaders: int, limit_mb_per_s: float) -> None:
    """As `movers.many`, each node on a host of its own, and the line is the limit instead of a node's own bucket."""
    hosts = ["origin", *(f"downloader-{number}" for number in range(downloaders))]
    network = Network(f"atmo-{os.getpid()}", hosts)
    try:
        network.create()
        network.bridge()
        network.limit(limit_mb_per_s)
        left, took_s = await movers.many(folder / "many", model, downloaders, network.where)
    finally:
        network.destroy()
    size_bytes = model.stat().st_size  # noqa: ASYNC240 - of a file in memory
    held.egress.append(left / size_bytes)
    held.walls.append(took_s / (size_bytes / 1e6 / limit_mb_per_s))


async def _long(held: Held, folder: Path, model: Path, line_mib: int) -> None:
    """One source beside one TCP connection, over the same line."""
    network = Network(f"atmo-{os.getpid()}", ["source-0", "downloader"])
    part = folder / "part.bin"
    part.write_bytes(_beginning(model, line_mib * MIB))
    try:
        network.create()
        with network.long_line(DELAY_MS, JITTER_MS, LOSS):
            places = network.where("downloader"), network.where("source-0")
            held.long_tcp.append((await movers.wire("tcp", part, folder, *places))[0])
            done = await movers.one_downloader(folder / "one", part, 1, network.where)
            held.long_mesh.append(done["bytes"] / MIB / done["s"])
    finally:
        network.destroy()


def _beginning(file: Path, size_bytes: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(size_bytes)


def outcomes(held: Held) -> list[Outcome]:
    found: list[Outcome] = []
    why = f"left out: {'; '.join(sorted(held.why))}" if held.why else ""
    if held.egress:
        found += [
            Series(
                "origin egress, tc", "models", held.egress, f"each on a host of its own, `tc` its limit {why}".strip()
            ),
            Series("wall time of all, tc", "ideals", held.walls, "likewise"),
        ]
    if held.long_mesh:
        weather = f"{2 * DELAY_MS:.0f} ms there and back, {LOSS:.1%} of packets lost"
        mesh = Series("mesh, long line", "MiB/s", held.long_mesh, weather)
        found.append(
            Pair("long line, against TCP", mesh, Series("wire: tcp, long line", "MiB/s", held.long_tcp, weather))
        )
    return found
