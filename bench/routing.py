"""How long a routing decision takes, over tables of several sizes, and with the prompt's embedding included."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.errors import NoRoute
from atmo.ids import PeerId
from atmo.mesh.capability import Capability, Descriptor, Load
from atmo.mesh.classes import GENERAL
from atmo.mesh.constraints import Constraints
from atmo.mesh.field import GradientField
from atmo.mesh.routing import Query, decide
from atmo.mesh.rows import Gradient, NodeInfo
from atmo.mesh.table import RoutingTable
from atmo.mesh.views import views_of
from bench import texts
from bench.harness import Context, Outcome, Series

if TYPE_CHECKING:
    from atmo.inference.encoder import Encoder

NOW_S = 1000.0  # the table's clock stands still: loads are of different age, and do not get older while measuring
RESIDENCIES = ("eu", "us", "ch", "in", "br")
RESIDENCY_SHARES = (0.50, 0.30, 0.10, 0.08, 0.02)
GENERALS = 20  # capabilities that take what fits nothing else
LOST_SHARE, BUSY_SHARE, LOADING_SHARE = 0.02, 0.30, 0.01  # of nodes, of offers, of offers


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rows: of each table, the largest last; usual_rows: one of them; decisions: for each table; warm_texts: that
    repeat in the series of warm decisions; more_classes, prompts: over the usual table, prompts with their encoding."""

    rows: tuple[int, ...]
    usual_rows: int
    warm_texts: int
    more_classes: tuple[int, ...]
    classes: int
    offers_per_node: int
    decisions: int
    warm_up: int
    prompts: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Mesh:
    """A table as a node would have it, and the node that asks."""

    table: RoutingTable
    field: GradientField
    local: PeerId


def run(context: Context) -> list[Outcome]:
    from atmo.inference.encoder import Encoder

    sizes, encoder = context.sizes(Sizes), Encoder.load()
    capabilities = make_capabilities(encoder, sizes.classes, context.chance)
    context.say(f"{len(capabilities)} capabilities embedded")
    meshes = [make_mesh(capabilities, rows, sizes.offers_per_node, context.rng) for rows in sizes.rows]
    context.say(f"tables of {', '.join(f'{rows:,}' for rows in sizes.rows)} rows filled")
    vectors = [encoder.encode(text) for text, _ in zip(texts.prompts(context.chance), range(1000), strict=False)]
    usual = meshes[sizes.rows.index(sizes.usual_rows)]
    outcomes: list[Outcome] = [*_decisions(context, sizes, meshes, vectors)]
    outcomes += _warm(context, sizes, usual, vectors[: sizes.warm_texts])
    for classes in sizes.more_classes:
        outcomes.append(_with_classes(context, sizes, make_capabilities(encoder, classes, context.chance), vectors))
    return [*outcomes, *_prompts(context, sizes, usual, encoder)]


def _decisions(
    context: Context, sizes: Sizes, meshes: Sequence[Mesh], vectors: Sequence[NDArray[np.float32]]
) -> Iterator[Series]:
    """The tables take turns, so that whatever else the machine does meets all of them."""
    taken_ms: list[list[float]] = [[] for _ in meshes]
    compared: list[list[int]] = [[] for _ in meshes]
    for number in range(sizes.warm_up + sizes.decisions):
        vector, wishes = vectors[number % len(vectors)], some_constraints(context.chance)
        for at, mesh in enumerate(meshes):
            query = Query(mesh.local, vector, 40, 128, wishes)
            begun_ns = time.perf_counter_ns()
            weighed = _decide(mesh, query, context)
            taken_ms[at].append((time.perf_counter_ns() - begun_ns) / 1e6)
            compared[at].append(weighed)
    for rows, taken, weighed_each in zip(sizes.rows, taken_ms, compared, strict=True):
        most, mean, refused = max(weighed_each), np.mean(weighed_each), weighed_each.count(0) / len(weighed_each)
        note = f"{rows} rows; of {sizes.classes} classes {mean:.1f} compared, {most} at most; {refused:.1%} refused"
        place = {sizes.rows[-1]: "largest table", sizes.usual_rows: "usual table"}.get(rows, f"{rows} rows")
        yield Series(f"decision, {place}", "ms", taken[sizes.warm_up :], note)


def _warm(context: Context, sizes: Sizes, mesh: Mesh, vectors: Sequence[NDArray[np.float32]]) -> Iterator[Series]:
    """Texts that were asked before, without conditions: processor time, which is what bounds decisions a second."""
    taken_us, queries = [], [Query(mesh.local, vector, 40, 128) for vector in vectors]
    for _ in range(1 + sizes.decisions // len(queries)):
        begun_ns = time.thread_time_ns()  # once for all: on some systems the question takes longer than a decision
        for query in queries:
            _decide(mesh, query, context)
        taken_us.append((time.thread_time_ns() - begun_ns) / 1e3 / len(queries))
    note = f"means over {len(queries)} texts in turn, {sizes.usual_rows} rows; 100 us are 10,000 decisions/s a core"
    yield Series("decision, warm text", "us", taken_us[1:], note)


def _with_classes(
    context: Context, sizes: Sizes, capabilities: Sequence[Capability], vectors: Sequence[NDArray[np.float32]]
) -> Series:
    """Texts that are new to the table, over more distinct capabilities."""
    mesh = make_mesh(capabilities, sizes.usual_rows, sizes.offers_per_node, context.rng)
    taken_ms = []
    for vector in vectors:
        begun_ns = time.perf_counter_ns()
        _decide(mesh, Query(mesh.local, vector, 40, 128), context)
        taken_ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
    return Series(f"decision, {len(capabilities)} classes", "ms", taken_ms[10:], f"{sizes.usual_rows} rows")


def _decide(mesh: Mesh, query: Query, context: Context) -> int:
    """How many classes were compared; 0 when no node is able, which is a decision as well."""
    try:
        return len(decide(mesh.table, mesh.field, query, NOW_S, context.rng).classes)
    except NoRoute:
        return 0


def _prompts(context: Context, sizes: Sizes, mesh: Mesh, encoder: Encoder) -> Iterator[Series]:
    """Every text is new: nothing comes out of the encoder's memory of recent texts."""
    whole_ms, embedding_ms = [], []
    for _ in range(sizes.warm_up + sizes.prompts):
        text = texts.of_length(sizes.prompt_tokens, encoder.count_tokens, context.chance)
        begun_ns = time.perf_counter_ns()
        vector = encoder.encode(text)
        encoded_ns = time.perf_counter_ns()
        query = Query(mesh.local, vector, sizes.prompt_tokens, 128)
        _decide(mesh, query, context)
        whole_ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
        embedding_ms.append((encoded_ns - begun_ns) / 1e6)
    note = f"{sizes.prompt_tokens} tokens, {sizes.usual_rows} rows"
    yield Series("prompt, embedding included", "ms", whole_ms[sizes.warm_up :], note)
    yield Series("prompt, its embedding alone", "ms", embedding_ms[sizes.warm_up :], "part of the former")


def make_capabilities(encoder: Encoder, count: int, chance: random.Random) -> list[Capability]:
    """Distinct capabilities with real vectors, as a node would publish them."""
    made = []
    for number, offer in enumerate(texts.offers(count, chance)):
        descriptor = Descriptor(
            id=f"atmo:chat:{offer.name}",
            type="chat",
            description=offer.description,
            examples=offer.examples,
            model=offer.name,
            context=chance.choice((2048, 8192, 32768, 131072)),
            strength=round(chance.random(), 2),
            price=chance.choice((0.0, 0.0, 0.5, 2.0)),
            labels=(GENERAL,) if number < GENERALS else (),
        )
        views = views_of(offer.description, offer.examples, encoder.encode)
        made.append(Capability(descriptor, encoder.encoder_id, views))
    return made


def make_mesh(capabilities: Sequence[Capability], rows: int, offers_per_node: int, rng: np.random.Generator) -> Mesh:
    """A table in which every capability stands at least once and popular ones often (Zipf), with loads of mixed age."""
    table, nodes = RoutingTable(), rows // offers_per_node
    order = rng.permutation(len(capabilities))
    popularity = 1.0 / np.arange(1, len(capabilities) + 1)
    popularity /= popularity.sum()
    peers = [PeerId(rng.bytes(32)) for _ in range(nodes)]
    for number, peer in enumerate(peers):
        residency = str(rng.choice(RESIDENCIES, p=RESIDENCY_SHARES))
        info = NodeInfo(
            name=f"node-{number}", addresses=(), mode="provider", software="-", labels=(("residency", residency),)
        )
        table.put_node(peer, info)
        first = order[number * offers_per_node : (number + 1) * offers_per_node]  # the first nodes offer each one once
        drawn = first if len(first) else rng.choice(order, offers_per_node, replace=False, p=popularity)
        offered = [capabilities[place] for place in drawn.tolist()]
        for capability in offered:
            table.put_capability(peer, capability)
        loads = tuple(_load(capability.descriptor.id, rng) for capability in offered)
        table.put_gradient(peer, Gradient(loads), NOW_S - float(rng.uniform(0, 10)))
        if rng.random() < LOST_SHARE:
            table.mark_lost(peer)
    field = GradientField(table)
    for peer in peers[:: max(1, nodes // 50)]:  # links to neighbours, with their round trips
        field.observe_rtt(peer, float(rng.exponential(0.02)), NOW_S)
    return Mesh(table, field, peers[0])


def _load(capability_id: str, rng: np.random.Generator) -> Load:
    busy = rng.random() < BUSY_SHARE
    return Load(
        capability=capability_id,
        in_flight=int(rng.integers(1, 9)) if busy else 0,
        slots=4,
        queued=int(rng.integers(0, 5)) if busy else 0,
        service_s=float(rng.lognormal(0.5, 0.8)),
        prompt_tps=float(rng.lognormal(6, 0.5)),
        decode_tps=float(rng.lognormal(3.5, 0.5)),
        ready=rng.random() >= LOADING_SHARE,
    )


def some_constraints(chance: random.Random) -> Constraints:
    """What callers insist on: mostly nothing. The mix is a guess; every tenth decision each has these."""
    kind = chance.randrange(10)
    if kind == 0:
        return Constraints(data_residency=(chance.choice(RESIDENCIES[:4]),))
    if kind == 1:
        return Constraints(min_tps=10.0, max_load=2.0, latency_critical=True)
    if kind == 2:
        return Constraints(max_cost=0.001, min_context=4096)
    return Constraints()
