"""The node as JSON: what the API, the command line and the live view show. Times end in `_s` or `_ms`, sizes in
`_bytes`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from atmo.generation import Finish, Piece
from atmo.ids import PeerId, format_peer
from atmo.keys import Passport, Standing, check_invite
from atmo.mesh import explain
from atmo.mesh.asking import Routed
from atmo.mesh.capability import Capability, Descriptor, Load
from atmo.mesh.decision import Decision
from atmo.mesh.node import MeshNode
from atmo.mesh.query import Query
from atmo.mesh.rows import Gradient, Kind, NodeInfo, RowId, Suspicion
from atmo.node.machine import memory_bytes
from atmo.transport.base import Lane

if TYPE_CHECKING:
    from atmo.node.node import Node

Json = dict[str, Any]

# Of each capability. Enough to show what it is for.
EXAMPLES_TOLD = 4


def status(node: Node) -> Json:
    rss, total = memory_bytes()
    mesh_node = node.mesh
    served = [service.report() for service in node.services.values()]
    return {
        "node": {
            "name": node.config.node.name,
            "peer": format_peer(mesh_node.peer),
            "pid": os.getpid(),
            "mode": node.config.node.mode,
            "address": str(mesh_node.transport.address or "none: standalone"),
            "mesh": format_peer(mesh_node.mesh),
            "labels": node.config.node.labels,
            "api": node.gateway.url if node.gateway is not None else "",
            "api_note": node.gateway.note if node.gateway is not None else "",
            "home": str(node.config.home),
            "log": str(node.config.log_file),
            "uptime_s": round(node.uptime_s, 1),
        },
        "capabilities": served,
        "runtimes": node.runtimes_view(),
        "peers": len(mesh_node.transport.linked()),
        "problems": [str(problem) for problem in node.problems()],
        "diagnosis": [
            {"what": problem.what, "remedy": problem.remedy, "serious": problem.serious} for problem in node.problems()
        ],
        "rss_bytes": rss,
        "total_rss_bytes": total,
    }


def counters(node: Node) -> Json:
    """What is counted, for metrics. lanes: frames and payload bytes over the links that are up now."""
    mesh_node = node.mesh
    lanes = {lane.name.lower(): dict.fromkeys(("frames_in", "bytes_in", "frames_out", "bytes_out"), 0) for lane in Lane}
    for link in mesh_node.transport.stats().values():
        for lane, seen in link.lanes.items():
            for name in lanes[lane.name.lower()]:
                lanes[lane.name.lower()][name] += getattr(seen, name)
    engines = [{**service.report(), "ready": service.state == "ready"} for service in node.services.values()]
    return {
        "uptime_s": round(node.uptime_s, 1),
        "peers": len(mesh_node.transport.linked()),
        "rows": {kind.name.lower(): len(list(mesh_node.core.store.rows(kind))) for kind in Kind},
        "engines": engines,
        "lanes": lanes,
    }


def mesh(node: Node) -> Json:
    """Every node whose NODE row is known, with its capabilities and load; who died lately; who accuses whom of being
    dead. full_mesh: all link to all; seq: the last event that is in here."""
    mesh_node = node.mesh
    seen = _look(mesh_node, node.clock.now())
    nodes = [
        _node(mesh_node, row.id.origin, row.body, seen)
        for row in mesh_node.core.store.rows(Kind.NODE)
        if isinstance(row.body, NodeInfo)
    ]
    return {
        "mesh": format_peer(mesh_node.mesh),
        "nodes": nodes,
        "dead": [
            {"peer": format_peer(peer), "name": info.name, "state": "dead", "labels": dict(info.labels)}
            for peer, info in mesh_node.core.vigil.epitaphs()
        ],
        "full_mesh": mesh_node.core.fabric.everyone,
        "accusations": _accusations(mesh_node),
        "seq": node.journal.seq,
        "alone": node.alone(),
        "problems": [str(problem) for problem in node.problems()],
    }


def _accusations(mesh_node: MeshNode) -> list[Json]:
    """Who says that whom is dead, of all that is in the table."""
    return [
        {"by": format_peer(row.id.origin), "of": format_peer(PeerId(charge.peer))}
        for row in mesh_node.core.store.rows(Kind.SUSPECT)
        if isinstance(row.body, Suspicion)
        for charge in row.body.charges
    ]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the reports of all nodes need, read once: a large table is not walked through for each node."""

    now_s: float
    linked: frozenset[PeerId]
    suspects: frozenset[PeerId]
    capabilities: dict[PeerId, list[Capability]]


def _look(mesh_node: MeshNode, now_s: float) -> _Seen:
    capabilities: dict[PeerId, list[Capability]] = {}
    for row in mesh_node.core.store.rows(Kind.CAPABILITY):
        if isinstance(row.body, Capability):
            capabilities.setdefault(row.id.origin, []).append(row.body)
    suspects = mesh_node.core.vigil.detector.suspects()
    return _Seen(now_s, mesh_node.transport.linked(), suspects, capabilities)


def _node(mesh_node: MeshNode, peer: PeerId, info: NodeInfo, seen: _Seen) -> Json:
    """tps: output tokens a second at present, about: requests being answered times the usual speed of one."""
    row = mesh_node.core.store.get(RowId(peer, Kind.GRADIENT, ""))
    gradient = row.body if row is not None else None
    loads = {load.capability: load for load in gradient.loads} if isinstance(gradient, Gradient) else {}
    offers = [
        _offer(mesh_node, peer, capability.descriptor, loads.get(capability.descriptor.id), seen.now_s)
        for capability in seen.capabilities.get(peer, ())
    ]
    rtt_s = mesh_node.transport.rtt_s(peer)
    return {
        "peer": format_peer(peer),
        "name": info.name,
        "self": peer == mesh_node.peer,
        "linked": peer in seen.linked,
        "neighbour": peer in mesh_node.core.fabric.overlay.active,
        "state": _state(mesh_node, peer, seen),
        "addresses": info.addresses,
        "mode": info.mode,
        "software": info.software,
        "labels": dict(info.labels),
        "cpu": info.cpu,
        "cores": info.cores,
        "memory_bytes": info.memory_bytes,
        "rtt_ms": None if rtt_s is None else round(rtt_s * 1000, 3),
        "in_flight": sum(offer["in_flight"] for offer in offers),
        "slots": sum(offer["slots"] for offer in offers),
        "queued": sum(offer["queued"] for offer in offers),
        "tps": round(sum(min(offer["in_flight"], offer["slots"]) * offer["decode_tps"] for offer in offers), 1),
        "capabilities": offers,
    }


def members(node: Node) -> Json:
    """Who belongs to the mesh as far as this node met them, by which invite, until when; and the invites made here."""
    mesh_node = node.mesh
    revoked = mesh_node.core.revocations
    infos = {row.id.origin: row.body for row in mesh_node.core.store.rows(Kind.NODE)}
    met: dict[PeerId, Standing | Passport] = dict(mesh_node.passports)
    roll = mesh_node.core.store.roll
    met |= {peer: standing for peer in roll if (standing := roll.standing(peer)) is not None}
    rows = [
        {
            "id": format_peer(peer),
            "name": getattr(infos.get(peer), "name", ""),
            "invite": format_peer(PeerId(proof.invite)) if proof.invite else "",
            "until_s": proof.not_after_s,
            "linked": peer in mesh_node.transport.linked(),
            "revoked": peer in revoked or proof.invite in revoked,
        }
        for peer, proof in met.items()
    ]
    terms = [check_invite(sealed, mesh_node.mesh) for sealed in node.mesh_home.invites()]
    invites = [
        {
            "id": format_peer(PeerId(invite.key)),
            "until_s": invite.not_after_s,
            "uses": invite.uses,
            "used": len(mesh_node.trust.guests.get(invite.key, ())),
            "renewable": invite.renewable,
            "revoked": invite.key in revoked,
        }
        for invite in terms
    ]
    owner = node.mesh_home.root is not None
    return {"mesh": format_peer(mesh_node.mesh), "owner": owner, "members": rows, "invites": invites}


def _offer(mesh_node: MeshNode, peer: PeerId, descriptor: Descriptor, told: Load | None, now_s: float) -> Json:
    load = told or Load(descriptor.id, 0, 0, 0, 0.0, 0.0, 0.0, ready=False)
    return {
        "id": descriptor.id,
        "type": descriptor.type,
        "model": descriptor.model,
        "description": descriptor.description,
        "ready": load.ready,
        "in_flight": load.in_flight,
        "slots": load.slots,
        "queued": load.queued,
        "service_s": load.service_s,
        "decode_tps": load.decode_tps,
        "ejected_s": round(mesh_node.field.ejected_s(peer, descriptor.id, now_s), 1),
    }


def _state(mesh_node: MeshNode, peer: PeerId, seen: _Seen) -> str:
    if peer == mesh_node.peer:
        return "self"
    if peer in seen.linked:
        return "linked"
    if peer in seen.suspects:
        return "suspect"
    return "lost" if mesh_node.core.fabric.everyone else "known"  # in a large mesh most nodes need no link


def models(node: Node) -> Json:
    """What the mesh serves, by capability. examples: requests that suit it, in the words of whoever offers it."""
    offered = {
        row.body.descriptor.id: row.body.descriptor
        for row in node.mesh.core.store.rows(Kind.CAPABILITY)
        if isinstance(row.body, Capability)
    }
    served: dict[str, Json] = {}
    for view in mesh(node)["nodes"]:
        for offer in view["capabilities"]:
            if offer["id"] not in served:
                told = {name: offer[name] for name in ("id", "type", "model", "description")}
                served[offer["id"]] = {**told, "examples": offered[offer["id"]].examples[:EXAMPLES_TOLD], "nodes": []}
            served[offer["id"]]["nodes"].append(view["name"])
    return {"served": [served[name] for name in sorted(served)], "seeds": seeds(node)}


def seeds(node: Node) -> list[Json]:
    """Who gives which model away."""
    return [
        {
            "root": root,
            "model": seed.descriptor.model,
            "size_bytes": seed.size_bytes,
            "complete": seed.complete,
            "only": dict(seed.only),
            "source": seed.source,
            "peer": format_peer(peer),
            "node": node.mesh.name_of(peer),
        }
        for peer, root, seed in node.mesh.seeds()
    ]


def decision(node: Node, made: Decision, request_id: str, query: Query | None = None) -> Json:
    """A decision with every term and in words; with `query` also why each offer that is known was not chosen."""
    report: Json = {
        "request_id": request_id,
        "asked_at": node.config.node.name,
        **explain.as_dict(made),
        "lines": explain.lines(made),
    }
    if query is not None:
        seen = explain.survey(node.mesh.table, node.mesh.field, query, node.clock.now())
        report["survey"] = msgspec.to_builtins(seen)
    return report


def retry(routed: Routed) -> Json:
    return {
        "event": "retry",
        "because": routed.because,
        "resumed": routed.resumed,
        "other_model": routed.other_model,
    }


def brief(node: Node, made: Decision, request_id: str) -> Json:
    """The part of `decision` that every request needs; telling all of it takes longer than deciding."""
    chosen = made.chosen
    return {
        "request_id": request_id,
        "asked_at": node.config.node.name,
        "chosen": {"node": chosen.node, "capability": chosen.capability, "why": chosen.why},
        "elapsed_s": made.elapsed_s,
    }


def piece(said: Piece) -> Json:
    """`scores` and `calls` only where there are any."""
    event: Json = {"event": "text", "text": said.text, "token_ids": said.token_ids}
    if said.scores:
        event["scores"] = [{"text": one.text, "logprob": one.logprob, "top": one.top} for one in said.scores]
    if said.calls:
        event["calls"] = [msgspec.structs.asdict(call) for call in said.calls]
    return event


def done(node: Node, routed: Routed, finish: Finish, first_s: float, total_s: float) -> Json:
    chosen = routed.decision.chosen
    return {
        "event": "done",
        "request_id": routed.request_id.hex(),
        "node": chosen.node,
        "peer": format_peer(chosen.peer),
        "local": chosen.peer == node.mesh.peer,
        "capability": chosen.capability,
        "finish": finish.reason,
        "prompt_tokens": finish.prompt_tokens,
        "output_tokens": finish.output_tokens,
        "cached_tokens": finish.cached_tokens,
        "queue_s": round(finish.queue_s, 6),
        "prefill_s": round(finish.prefill_s, 6),
        "decode_s": round(finish.decode_s, 6),
        "first_s": round(first_s, 6),
        "total_s": round(total_s, 6),
        "decision_s": round(routed.decision.elapsed_s, 6),
    }


def vector(raw: bytes) -> list[float]:
    """float32 little-endian bytes -> numbers with the seven digits they carry."""
    return [round(float(value), 7) for value in np.frombuffer(raw, dtype="<f4")]
