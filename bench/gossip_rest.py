"""What a node of a simulated mesh pays while nothing happens: gossip_scale's figure at one size, in some minutes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from atmo.mesh.sim.warm import acquaint
from bench.gossip_scale import SETTLE_S, at_rest, grown
from bench.harness import Context, Outcome


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """speakers: nodes with rows while the mesh grows; rest_s: how long it is watched."""

    nodes: int
    speakers: int
    rest_s: float


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    return [*_outcomes(context, sizes)]


def _outcomes(context: Context, sizes: Sizes) -> Iterator[Outcome]:
    sim = grown(context, sizes.nodes, sizes.speakers)
    acquaint(sim)
    context.say(f"{sizes.nodes:,} nodes know each other")
    sim.run(2 * SETTLE_S)
    yield from at_rest(sizes.rest_s, sim, "large mesh")
