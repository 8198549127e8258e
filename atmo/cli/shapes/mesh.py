"""Who is in the mesh, and how they are."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Offer(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability of a node. service_s: of a usual request; decode_tps: tokens a second of one answer; ejected_s: how
    long it is not asked, after failures."""

    id: str
    type: str
    model: str
    description: str
    ready: bool
    in_flight: int
    slots: int
    queued: int
    service_s: float
    decode_tps: float
    ejected_s: float


class MeshNode(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """state: `self`, `linked`, `known`, `lost` or `suspect`, as in docs/watch.md; tps: tokens a second at present."""

    peer: str
    name: str
    self: bool
    linked: bool
    neighbour: bool
    state: str
    addresses: list[str]
    mode: str
    software: str
    labels: dict[str, str]
    cpu: str
    cores: int
    memory_bytes: int
    rtt_ms: float | None
    in_flight: int
    slots: int
    queued: int
    tps: float
    capabilities: list[Offer]


class DeadNode(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who died lately."""

    peer: str
    name: str
    state: str
    labels: dict[str, str]


class Accusation(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peer ids: who says of whom that it is dead."""

    by: str
    of: str


class Mesh(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """full_mesh: all link to all; seq: the last event that is in here; alone: why there is no peer, else empty."""

    mesh: str
    nodes: list[MeshNode]
    dead: list[DeadNode]
    full_mesh: bool
    accusations: list[Accusation]
    seq: int
    alone: str
    problems: list[str]
