"""A mesh that has been together for long, without the hours that it takes: everybody knows everybody, renewals spread.

A thousand nodes with three rows each are three million entries; letting them travel costs minutes and shows nothing
that one row does not show. The entries share the rows they are made of, as the table never changes a row.
"""

from __future__ import annotations

from random import Random

from atmo.mesh import events
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.rows import Body, Gradient, Kind, Row
from atmo.mesh.sim.node import SimNode
from atmo.mesh.sim.scenario import Sim

CAPABILITY = "atmo:chat:nano"


def acquaint(sim: Sim) -> int:
    """Every living node says what it is, what it offers and how busy it is, and everybody has heard it. Returns how
    many rows each table holds then.

    The renewals of the nodes are spread evenly over their interval, drawn from the simulation's seed: as in a mesh
    whose nodes started at different times.
    """
    chance = Random(f"acquaint {sim.time_s} {sim._seed}")  # noqa: S311 - a simulation must be repeatable
    living = sim.living
    rows = [row for node in living for row in _said(sim, node, len(living))]
    for node in living:
        _hear(sim, node, rows)
    for node in living:
        _spread(sim, node, chance)
    return len(rows)


def _said(sim: Sim, node: SimNode, nodes: int) -> list[Row]:
    """The rows of a node, as they are written in a mesh of so many."""
    node.speaks = True
    author = node.core.author
    author.nodes = nodes
    bodies: list[tuple[Kind, str, Body]] = [
        (Kind.NODE, "", sim.describe(node)),
        (
            Kind.CAPABILITY,
            CAPABILITY,
            Capability(
                Descriptor(id=CAPABILITY, type="chat", description="Answers questions."),
                "test",
                (bytes([127]) + bytes(EMBEDDING_DIM - 1),),
            ),
        ),
        (Kind.GRADIENT, "", Gradient((Load(CAPABILITY, 1, 4, 0, 1.0, 100.0, 10.0, True),))),
    ]
    stamped = [(kind, key, node.core._stamp(body)) for kind, key, body in bodies]  # without a certificate none counts
    return [author._write(kind, key, body, node.moment(sim.time_s)) for kind, key, body in stamped]


def _hear(sim: Sim, node: SimNode, rows: list[Row]) -> None:
    now, store = node.moment(sim.time_s), node.core.store
    node.core._changed([change for row in rows for change in store.write(row, now)], now)


def _spread(sim: Sim, node: SimNode, chance: Random) -> None:
    """Renew the rows of a node at whichever moments of their intervals chance picks; rows that live equally long are
    renewed together, as they come to be (author.py), others are not in step."""
    author = node.core.author
    shares: dict[float, float] = {}
    for slot, said in author._said.items():
        share = shares.setdefault(said.row.ttl_s, chance.random())
        interval_s = said.row.ttl_s * sum(author._timing.renewal_shares(said.row.ttl_s, author.nodes)) / 2
        author._renewals.put(slot, sim.time_s + interval_s * share)
    sim.tell(node, events.Tick())
