"""How gossip grows with the mesh: simulated nodes with the real core, links of 10 to 50 ms."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec

from atmo.mesh import events
from atmo.mesh.events import Health
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.sim import Conditions, Sim, SimNode, mishaps
from atmo.mesh.sim.network import HEADER_BYTES, wire_bytes
from atmo.mesh.sim.warm import acquaint
from atmo.transport.link import LinkTiming
from bench.harness import Context, Outcome, Series

SETTLE_S = 30.0
ARRIVAL_LIMIT_S = 10.0
DEATH_LIMIT_S = 60.0
PAUSE_S = 20.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """speakers: how many nodes have rows in the tables while rows are timed; full_nodes: meshes up to that size are
    then watched with three rows of every node in every table, the larger ones with the speakers' only; in the mesh of
    exactly this size all publish at once; rest_s: how long it is watched at rest."""

    nodes: tuple[int, ...]
    speakers: int
    publications: int
    kills: int
    full_nodes: int
    rest_s: float


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    return [outcome for n in sizes.nodes for outcome in _of_size(context, sizes, n)]


def _of_size(context: Context, sizes: Sizes, n: int) -> Iterator[Outcome]:
    mesh = {sizes.full_nodes: "large mesh", max(sizes.nodes): "largest mesh"}.get(n, f"{n} nodes")  # targets name them
    began_s = time.process_time()
    sim = grown(context, n, sizes.speakers)
    yield from _spreading(context, sizes, sim, mesh)
    if n <= sizes.full_nodes:
        acquaint(sim)
        sim.run(2 * SETTLE_S)
    yield from at_rest(sizes.rest_s, sim, mesh)
    if n <= sizes.full_nodes:  # who says nothing of itself accuses nobody
        yield from _deaths(context, sizes, sim, mesh)
        yield _paused(context, sim, mesh)
    if n == sizes.full_nodes:
        yield _burst(sim, mesh)
    context.say(f"{n:,} nodes: {time.process_time() - began_s:.0f} s of CPU, {sim.handled:,} events")


def grown(context: Context, n: int, speakers: int) -> Sim:
    """A mesh of n nodes that joined one after the other; so many of them have rows, the others pass on only."""
    views = ViewSizes() if n <= ViewSizes().everyone else ViewSizes(everyone=0)
    sim = Sim(0, seed=context.seed, conditions=Conditions(min_ms=10.0, max_ms=50.0), sizes=views)
    sim.grow(n, rows=speakers, over_s=max(1.0, n / 100))
    sim.run(SETTLE_S)
    return sim


def _spreading(context: Context, sizes: Sizes, sim: Sim, mesh: str) -> Iterator[Outcome]:
    """Milliseconds to each node and to the last, and frames for each node, of rows one after the other."""
    n = len(sim.nodes)
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
    links = f"{n} nodes of {2 * len(sim.network.links) / n:.1f} links, 10 to 50 ms each"
    yield Series(f"everywhere, {mesh}", "ms", each_ms, f"each receiver, {links}")
    yield Series(f"last node, {mesh}", "ms", all_ms, f"each row, {links}")
    yield Series(f"copies, {mesh}", "frames", copies, "frames for each node and row, announcements included")


def at_rest(rest_s: float, sim: Sim, mesh: str) -> Iterator[Outcome]:
    """What a node pays while nothing happens, for so many seconds."""
    n = len(sim.nodes)
    checked, news = sum(node.checked for node in sim.nodes), _count_news(sim)
    cpu_s, sent, wire = time.process_time(), sim.network.bytes, sim.network.wire_bytes
    sim.run(rest_s)
    cpu_s = time.process_time() - cpu_s
    rows = f"{len(sim.nodes[0].core.store)} rows in the tables"
    links = 2 * len(sim.network.links) / n
    beats = links / LinkTiming().ping_s * (wire_bytes(8) - 1.5 * HEADER_BYTES)
    with_headers = f"ZMTP, CURVE and TCP included (estimate); the links' heartbeats, {beats:.0f} bytes/s, are not"
    rest = rest_s * n
    yield Series(f"at rest, {mesh}", "bytes/s", [(sim.network.bytes - sent) / rest], f"sent by each, {rows}")
    yield Series(f"at rest with headers, {mesh}", "bytes/s", [(sim.network.wire_bytes - wire) / rest], with_headers)
    yield Series(f"CPU at rest, {mesh}", "us/s", [cpu_s * 1e6 / rest], "of each node, simulation included")
    if news():
        checks = (sum(node.checked for node in sim.nodes) - checked) / news()
        yield Series(f"signature checks, {mesh}", "checks", [checks], f"for each of {news():,} rows taken")


def _deaths(context: Context, sizes: Sizes, sim: Sim, mesh: str) -> Iterator[Outcome]:
    """Seconds from kill -9 until a neighbour knows, and until each node has buried the dead."""
    n = len(sim.nodes)
    lost_s: list[float] = []
    buried_s: list[float] = []
    for _ in range(min(sizes.kills, n // 4)):
        victim = context.chance.choice([node for node in sim.living if node.number and node.speaks])
        _forget(sim)
        killed_s = sim.time_s
        sim.kill(victim)
        sim.wait_until(lambda victim=victim: _buried(sim, victim), DEATH_LIMIT_S, "burial")  # type: ignore[misc]
        lost_s += _told(sim, lambda effect, peer=victim.peer: effect == events.PeerLost(peer), killed_s)  # type: ignore[misc]
        buried_s += _told(
            sim,
            lambda effect, peer=victim.peer: effect == events.HealthChanged(peer, Health.DEAD),  # type: ignore[misc]
            killed_s,
        )
        sim.run(1.0)
    yield Series(f"neighbour knows of a kill, {mesh}", "ms", [1e3 * each for each in lost_s], "each neighbour")
    yield Series(f"everybody knows of a kill, {mesh}", "s", buried_s, "each node, until it is dead in its table")


def _paused(context: Context, sim: Sim, mesh: str) -> Outcome:
    """Healthy nodes that somebody took for dead while a tenth stood still for longer than any suspicion."""
    n = len(sim.nodes)
    _forget(sim)
    paused = context.chance.sample(sim.living, max(1, n // 10))
    for node in paused:
        mishaps.pause(sim, node)
    sim.run(PAUSE_S)
    for node in paused:
        mishaps.resume(sim, node)
    sim.run(PAUSE_S)
    asleep = {node.peer for node in paused}
    dead = {
        effect.peer
        for node in sim.living
        for _, effect in node.effects
        if isinstance(effect, events.HealthChanged) and effect.health is Health.DEAD
    }
    note = f"{len(paused)} nodes stopped for {PAUSE_S:.0f} s, {len(dead & asleep)} of them taken for dead"
    return Series(f"false deaths, {mesh}", "nodes", [float(len(dead - asleep))], note)


def _burst(sim: Sim, mesh: str) -> Outcome:
    """Milliseconds until each node knows each row, when all publish one at the same moment."""
    key, taken_ms = "atmo:chat:burst", list[float]()
    seen = _watch(sim, key)
    began_s = sim.time_s
    living = sim.living
    for node in living:
        sim.offer(node, key)
    until_s = began_s + 6 * ARRIVAL_LIMIT_S
    while len(seen) < len(living) ** 2 and sim.time_s < until_s:
        sim.run(0.5)
    taken_ms = [(at_s - began_s) * 1e3 for at_s in seen]
    missing = len(living) ** 2 - len(seen)
    return Series(f"all publish, {mesh}", "ms", taken_ms, f"each node and row; {missing} of them not within 60 s")


def _watch(sim: Sim, key: str) -> list[float]:
    """When each node learns of a new row of this name."""
    seen: list[float] = []

    def note(changed: events.RowsChanged) -> None:
        seen.extend(sim.time_s for change in changed.changes if change.id.key == key and change.old is None)

    for node in sim.living:
        node.watch = note
    return seen


def _count_news(sim: Sim) -> Callable[[], int]:
    """How many rows all nodes together have taken from others since."""
    count = 0

    def watch(node: SimNode) -> None:
        def note(changed: events.RowsChanged) -> None:
            nonlocal count
            count += sum(change.row is not None and change.id.origin != node.peer for change in changed.changes)

        node.watch = note

    for node in sim.living:
        watch(node)
    return lambda: count


def _forget(sim: Sim) -> None:
    for node in sim.nodes:
        node.watch = None
        node.effects.clear()


def _buried(sim: Sim, dead: SimNode) -> bool:
    return all(node.core.store.is_dead(dead.peer) for node in sim.living)


def _told(sim: Sim, what: Callable[[events.Effect], bool], since_s: float) -> list[float]:
    """After how many seconds each node told so."""
    return [at_s - since_s for node in sim.living for at_s, effect in node.effects if what(effect)]
