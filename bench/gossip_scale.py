"""How gossip grows with the mesh: simulated nodes with the real core, links of 10 to 50 ms."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from atmo.mesh import events
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.sim import Conditions, Sim, SimNode
from bench.harness import Context, Outcome, Series

SETTLE_S = 20.0
ARRIVAL_LIMIT_S = 10.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """speakers: how many nodes of each mesh have rows in the tables; rest_s: how long it is watched at rest."""

    nodes: tuple[int, ...]
    speakers: int
    publications: int
    rest_s: float


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    return [outcome for n in sizes.nodes for outcome in _of_size(context, sizes, n)]


def _of_size(context: Context, sizes: Sizes, n: int) -> Iterator[Outcome]:
    small = n <= ViewSizes().everyone
    views = ViewSizes() if small else ViewSizes(everyone=0)
    sim = Sim(0, seed=context.seed, conditions=Conditions(min_ms=10.0, max_ms=50.0), sizes=views)
    sim.grow(n, rows=sizes.speakers, over_s=max(1.0, n / 100))
    sim.run(SETTLE_S)
    cpu_s, sent = time.process_time(), sim.network.bytes
    sim.run(sizes.rest_s)
    rest_bytes = (sim.network.bytes - sent) / n / sizes.rest_s
    rest_us = (time.process_time() - cpu_s) * 1e6 / n / sizes.rest_s
    context.say(f"{n:,} nodes, {2 * len(sim.network.links) / n:.1f} links each")
    each_ms, all_ms, copies = _publish(context, sizes, sim, n)
    each = f"{n} nodes, 10 to 50 ms a link"
    where = "in the largest mesh" if n == max(sizes.nodes) else f"{n} nodes"
    yield Series(f"everywhere, {where}", "ms", each_ms, f"each receiver, {each}")
    yield Series(f"last node, {n} nodes", "ms", all_ms, f"each row, {each}")
    yield Series(f"copies, {n} nodes", "frames", copies, "frames for each node and row, announcements included")
    speakers = min(n, sizes.speakers)
    yield Series(f"at rest, {n} nodes", "bytes/s", [rest_bytes], f"sent by each node, with {speakers} rows to renew")
    yield Series(f"CPU at rest, {n} nodes", "us/s", [rest_us], "of each node, the simulation's own work included")


def _publish(context: Context, sizes: Sizes, sim: Sim, n: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds to each node and to the last, and frames for each node, of rows one after the other."""
    each_ms: list[float] = []
    all_ms: list[float] = []
    copies: list[float] = []
    for number in range(sizes.publications):
        origin = context.chance.choice(sim.nodes)
        began_s, frames, key = sim.time_s, sim.network.frames, f"atmo:chat:row-{number}"
        seen = _watch(sim, key)
        sim.offer(origin, key)
        sim.wait_until(lambda seen=seen: len(seen) == n, ARRIVAL_LIMIT_S, "a row everywhere")  # type: ignore[misc]
        taken_ms = [(at_s - began_s) * 1e3 for at_s in seen]
        each_ms += taken_ms
        all_ms.append(max(taken_ms))
        copies.append((sim.network.frames - frames) / n)
        sim.run(1.0)
    return each_ms, all_ms, copies


def _watch(sim: Sim, key: str) -> list[float]:
    """When each node learns of a new row of this name."""
    seen: list[float] = []

    def note(changed: events.RowsChanged) -> None:
        seen.extend(sim.time_s for change in changed.changes if change.id.key == key and change.old is None)

    def watch(node: SimNode) -> None:
        node.watch = note

    for node in sim.living:
        watch(node)
    return seen
