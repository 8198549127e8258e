"""Nodes of this machine."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class NodeFacts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of this machine. api: URL of OpenAI's API, empty without one; api_note: what is unusual about it."""

    name: str
    peer: str
    pid: int
    mode: str
    address: str
    mesh: str
    labels: dict[str, str]
    api: str
    api_note: str
    home: str
    log: str
    uptime_s: float


class Served(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A capability of this node and the engine behind it. state: `loading`, `ready`, `down` (being restarted),
    `idle` or `failed`; detail, hint: why, and what to do; context: tokens."""

    id: str
    type: str
    model: str
    state: str
    detail: str
    hint: str
    engine: str
    context: int
    load_s: float
    worker_pid: int | None
    in_flight: int
    queued: int
    slots: int


class Runtime(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server such as Ollama that was found or configured. trouble: empty when all is well."""

    runtime: str
    kind: str
    models: list[str]
    latency_ms: float
    trouble: str


class Diagnosis(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something wrong around a node. serious: what should work does not."""

    what: str
    remedy: str
    serious: bool


class Started(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """peers: how many links are up; problems: `diagnosis` in words; total_rss_bytes: with the workers."""

    node: NodeFacts
    capabilities: list[Served]
    runtimes: list[Runtime]
    peers: int
    problems: list[str]
    diagnosis: list[Diagnosis]
    rss_bytes: int
    total_rss_bytes: int


class Status(Started, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `atmo node start`. Where no node runs: `{"running": false}` and exit code 3."""

    running: bool


class Stopped(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of the nodes that ended."""

    stopped: list[str]


class LogLine(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object a line: a line of the log."""

    line: str


class Rotated(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Peer ids. revoked: whether the mesh is told that the old one is out, which only its owner can."""

    old: str
    new: str
    revoked: bool
