"""Which model should come to the data: the plan of a migration, made of what the mesh tells.

Theory of operation. A model that could come is, for routing, a capability that is not there yet. So a table is made of
the places where the data may be and of all models that would fit there, each with the time that it takes to arrive, and
the decision is the one that every request gets: conditions, relevance to the text, strength, price, time. What did not
fit into memory is kept, to say what would have to change when nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
import numpy as np

from atmo.errors import NoRoute
from atmo.ids import PeerId, format_peer
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.memory import Free, Need, need
from atmo.inference.engines.sizing import size
from atmo.mesh.capability import Capability, Descriptor, Load
from atmo.mesh.decision import Decision
from atmo.mesh.field import GradientField
from atmo.mesh.query import Query
from atmo.mesh.routing import decide
from atmo.mesh.rows import Gradient, NodeInfo, Seed
from atmo.mesh.table import RoutingTable
from atmo.node.seeding import info_of

# What a peer's link is taken to carry until one was measured: a gigabit. And what loading takes besides.
USUAL_BPS = 100e6
LOAD_S = 2.0
# What of another machine's memory may be counted on, of which only the whole is known. A guess.
SHARE_OF_OTHERS = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """A node inside the boundary. free: what a model may take there."""

    peer: PeerId
    info: NodeInfo
    free: Free


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could come. seeders: who has it; here: those of the places that have it on disk already."""

    root: str
    seed: Seed
    seeders: tuple[PeerId, ...]
    here: frozenset[PeerId] = frozenset()


Move: TypeAlias = tuple[PeerId, str]
"""A place and a model's root."""


@dataclass(frozen=True, slots=True)
class Plan:
    """needs: memory at the place; moves_bytes: to be transferred, 0 where it is on disk."""

    candidate: Candidate
    place: Place
    decision: Decision
    moves_bytes: int
    needs: Need
    expected_s: float
    context: int

    @property
    def move(self) -> Move:
        return self.place.peer, self.candidate.root


def make_plan(
    query: Query,
    places: Sequence[Place],
    candidates: Iterable[Candidate],
    capability_of: Callable[[Descriptor], Capability],
    *,
    bps: float,
    spec: ModelSpec,
    now_s: float,
    rng: np.random.Generator,
    tried: Collection[Move] = (),
) -> Plan:
    """bps: what the line was seen to carry, bytes a second; spec: how this node would load a model; tried: what came
    to nothing and is not planned again. Raises NoRoute."""
    known = list(candidates)
    if not places:
        raise NoRoute(
            "No node is inside the boundary that the request sets.",
            hint="Start a node there, with the label: atmo node start --label residency=NAME",
        )
    table = RoutingTable()
    fits: dict[tuple[PeerId, str], tuple[Candidate, Need, float, int]] = {}
    barred: list[Candidate] = []
    too_large: list[tuple[int, Candidate, Place, Need]] = []
    for place in places:
        table.put_node(place.peer, place.info)
        loads: list[Load] = []
        for candidate in known:
            if not set(candidate.seed.only) <= set(place.info.labels):
                barred.append(candidate)
                continue
            if (place.peer, candidate.root) in tried:
                continue
            needs, context = memory_of(candidate.seed, spec, place.free)
            if lacking := missing(needs, place.free):
                too_large.append((lacking, candidate, place, needs))
                continue
            took_s = 0.0 if place.peer in candidate.here else candidate.seed.size_bytes / (bps or USUAL_BPS)
            told = candidate.seed.descriptor
            twin = f"{told.id}@{candidate.root[:8]}" if (place.peer, told.id) in fits else told.id
            offered = msgspec.structs.replace(told, id=twin, context=context or told.context)
            table.put_capability(place.peer, capability_of(offered))
            loads.append(Load(offered.id, 0, 1, 0, took_s + LOAD_S, 0.0, 0.0, True))
            fits[place.peer, offered.id] = candidate, needs, took_s + LOAD_S, context
        table.put_gradient(place.peer, Gradient(tuple(loads[:256])), now_s)
    if not fits:
        raise _nothing_fits(barred, too_large)
    try:
        decision = decide(table, GradientField(table), _freed(query), now_s, rng)
    except NoRoute as error:
        raise NoRoute(f"No model could come that would do. {error.message}", hint=error.hint) from error
    candidate, needs, expected_s, context = fits[decision.peer, decision.capability]
    place = next(place for place in places if place.peer == decision.peer)
    moves = 0 if place.peer in candidate.here else candidate.seed.size_bytes
    return Plan(candidate, place, decision, moves, needs, expected_s, context)


def as_event(plan: Plan, own: PeerId, name_of: Callable[[PeerId], str]) -> dict[str, Any]:
    """As docs/api.md lists it. own: the node that tells it."""
    seed, place = plan.candidate.seed, plan.place
    return {
        "event": "plan",
        "model": seed.descriptor.model,
        "root": plan.candidate.root,
        "description": seed.descriptor.description,
        "quantisation": seed.descriptor.quantisation,
        "size_bytes": seed.size_bytes,
        "moves_bytes": plan.moves_bytes,
        "needs_bytes": plan.needs.ram,
        "free_bytes": place.free.ram,
        "needs_gpu_bytes": plan.needs.vram,
        "free_gpu_bytes": place.free.vram,
        "context": plan.context,
        "relevance": round(plan.decision.chosen.relevance, 3),
        "expected_s": round(plan.expected_s, 1),
        "to": {"peer": format_peer(place.peer), "name": place.info.name, "self": place.peer == own},
        "sources": [{"peer": format_peer(peer), "name": name_of(peer)} for peer in plan.candidate.seeders],
    }


def memory_of(seed: Seed, spec: ModelSpec, free: Free) -> tuple[Need, int]:
    """What the model would take with as much context as fits, and that context in tokens for one request. Where there
    is a GPU it takes as many layers as the configuration says."""
    info = info_of(seed)
    sizing = size(spec, info)
    layers = spec.gpu_layers if free.vram and seed.kind == "gguf" else 0
    wanted = need(info, sizing, layers)
    while missing(wanted, free) and not spec.context and sizing.context > 2048 and info.kv_bytes_per_token:
        sizing = replace(sizing, context=sizing.context // 2)
        wanted = need(info, sizing, layers)
    return wanted, sizing.context if info.context else 0


def missing(needs: Need, free: Free) -> int:
    """Bytes of either memory that are not there."""
    return max(0, needs.ram - free.ram) + max(0, needs.vram - free.vram)


def _freed(query: Query) -> Query:
    """Nodes that were tried and failed are tried again with another model; a model that began is gone on with."""
    return replace(query, exclude=frozenset())


def _nothing_fits(barred: Sequence[Candidate], too_large: list[tuple[int, Candidate, Place, Need]]) -> NoRoute:
    if not too_large and barred:
        seed = barred[0].seed
        labels = ", ".join(f"{key}={value}" for key, value in seed.only)
        return NoRoute(
            f"Nothing inside the boundary can serve this, and {seed.descriptor.model} is for nodes with {labels} only.",
            hint="Whoever shares it can allow more: atmo models share.",
        )
    if not too_large:
        return NoRoute(
            "Nothing inside the boundary can serve this, and no peer gives away a model that could come.",
            hint="Share one where it is: atmo models share NAME; or pull one here: atmo models pull NAME",
        )
    lacking, candidate, place, needs = min(too_large, key=lambda each: each[0])
    told = shortage(candidate.seed.descriptor.model, needs, place.info.name, place.free)
    return NoRoute(
        f"No model that peers give away fits into the memory inside the boundary. The nearest is {told}",
        hint=f"Free {lacking / 1e9:.2f} GB there, share a smaller quantisation of it, or allow another data_residency.",
    )


def shortage(model: str, needs: Need, where: str, free: Free) -> str:
    """The end of a sentence: of which memory most is missing, and how much there is."""
    on_gpu = needs.vram - free.vram > max(0, needs.ram - free.ram)
    takes, there = (needs.vram, free.vram) if on_gpu else (needs.ram, free.ram)
    of_gpu = " of GPU memory" if on_gpu else ""
    return f"{model}, which needs {takes / 1e9:.2f} GB{of_gpu} at {where}, where {there / 1e9:.2f} GB are free."
