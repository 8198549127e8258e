"""An invented mesh of any size for demonstrations, tests and measurements. Equal sizes and seeds give equal stories."""

from __future__ import annotations

import random
from typing import Any

from atmo.cli.watch.story import Story

Json = dict[str, Any]

AT_S = 1_760_000_000.0
KINDS = (
    ("atmo:chat:qwen2.5-7b", "qwen2.5-7b-instruct-q4", "General chat, explanations, everyday questions."),
    ("atmo:chat:coder", "qwen2.5-coder-7b-q4", "Writes, explains and debugs source code."),
    ("atmo:embedding:minilm", "all-MiniLM-L6-v2", "Turns texts into vectors."),
    ("atmo:classification:tone", "atmo-tone", "Says whether a review is positive or negative."),
)
PLACES = ("eu", "us", "ch")


def peer(number: int) -> str:
    return f"12D3KooW{number:036d}{number * 7919 % 10**8:08d}"


def report(count: int, chance: random.Random) -> Json:
    """What `/api/mesh` says in a mesh of so many nodes, of which in each hundred a few are unwell."""
    nodes = [_node(number, count, chance) for number in range(count)]
    dead = [{"peer": peer(count), "name": "gone", "state": "dead", "labels": {}}] if count > 10 else []
    suspects = [node["peer"] for node in nodes if node["state"] == "suspect"]
    return {
        "mesh": peer(10**6),
        "nodes": nodes,
        "dead": dead,
        "full_mesh": count <= 24,
        "accusations": [{"by": peer(1), "of": one} for one in suspects],
        "seq": 1,
        "alone": "",
        "problems": [],
    }


def _node(number: int, count: int, chance: random.Random) -> Json:
    linked = number > 0 and (count <= 24 or number <= 6)
    state = "self" if number == 0 else "linked" if linked else "suspect" if number % 67 == 66 else "known"
    offers = [_offer(number + shift, chance) for shift in range(1 + number % 2)]
    return {
        "peer": peer(number),
        "name": ("laptop", "desk", "attic")[number] if number < 3 else f"node-{number:03d}",
        "self": number == 0,
        "linked": linked,
        "neighbour": linked,
        "state": state,
        "addresses": [f"/ip4/10.0.{number // 250}.{number % 250}/tcp/4600/p2p/{peer(number)}"],
        "mode": "provider" if number % 5 == 4 else "participant",
        "software": "atmo/0.1.0",
        "labels": {"residency": PLACES[number % 3]} if number % 2 else {},
        "cpu": "AMD EPYC",
        "cores": 2 + number % 3 * 6,
        "memory_bytes": (8 + number % 4 * 8) << 30,
        "rtt_ms": round(0.2 + chance.random() * 3, 3) if linked else None,
        "capabilities": offers,
        **{name: sum(offer[name] for offer in offers) for name in ("in_flight", "slots", "queued")},
        "tps": round(sum(offer["in_flight"] * offer["decode_tps"] for offer in offers), 1),
    }


def _offer(number: int, chance: random.Random) -> Json:
    name, model, description = KINDS[number % len(KINDS)]
    busy = max(0, chance.randrange(7) - 2)
    return {
        "id": name,
        "type": name.split(":")[1],
        "model": model,
        "description": description,
        "ready": True,
        "in_flight": busy,
        "slots": 4,
        "queued": 1 if busy == 4 else 0,
        "service_s": 0.8,
        "decode_tps": 42.0 if "chat" in name else 0.0,
        "ejected_s": 0.0,
    }


def events(count: int) -> list[Json]:
    """A node that came, was lost and came back; requests that were answered, tried elsewhere, running and refused."""
    first, second = peer(1), peer(min(2, count - 1))

    def request(number: int, to: str, kind: str = "chat:coder") -> Json:
        return {"request_id": f"{number:032x}", "capability": f"atmo:{kind}", "peer": to, "name": ""}

    names = ("root", "model", "direction", "bytes_done", "bytes_total", "bytes_per_s")
    moved = {name: value for name, value in transfers()[0].items() if name in names}
    told: list[Json] = [
        {"event": "joined", "peer": first, "name": "desk", "detail": ""},
        {"event": "joined", "peer": second, "name": "attic", "detail": ""},
        {"event": "asked", **request(1, first), "detail": ""},
        {"event": "answered", **request(1, first), "first_s": 0.031, "total_s": 0.82, "output_tokens": 34,
         "decode_s": 0.79},
        {"event": "lost", "peer": second, "name": "attic", "detail": "not heard for 1.5 s"},
        {"event": "suspect", "peer": second, "name": "attic", "detail": ""},
        {"event": "serving", **request(2, first, "chat:qwen2.5-7b")},
        {"event": "dead", "peer": second, "name": "attic", "detail": ""},
        {"event": "asked", **request(3, second), "detail": ""},
        {"event": "retried", **request(3, first), "detail": "Lost the node attic."},
        {"event": "joined", "peer": second, "name": "attic", "detail": ""},
        {"event": "refuted", "peer": second, "name": "attic", "detail": ""},
        {"event": "ejected", "peer": second, "name": "attic", "detail": "atmo:chat:coder failed too often"},
        {"event": "readmitted", "peer": second, "name": "attic", "detail": "atmo:chat:coder answers again"},
        {"event": "transfer_began", **moved},
        {"event": "transfer_progress", **moved},
        {"event": "asked", **request(4, peer(0), "embedding:minilm"), "detail": ""},
        {"event": "failed", **request(4, peer(0), "embedding:minilm"), "detail": "The deadline passed."},
    ]  # fmt: skip
    return [{"seq": number, "at_s": AT_S + number, **event} for number, event in enumerate(told, 1)]


def transfers() -> list[Json]:
    """One that comes from two nodes, one that goes to another, one that came, one that did not."""

    def transfer(number: int, model: str, way: str, done: float, of: float, **facts: Any) -> Json:
        moved = {"bytes_done": int(done * 1e9), "bytes_total": int(of * 1e9), "bytes_per_s": 0, "eta_s": None}
        return {"root": f"{number * 7919:064x}", "model": model, "direction": way, **moved, "error": "", **facts}

    def source(number: int, share: float) -> Json:
        return {"peer": peer(number), "name": "", "bytes": int(share * 1e9)}

    return [
        transfer(1, "qwen2.5-7b-instruct-q4", "in", 1.97, 4.68, bytes_per_s=112_400_000, eta_s=24.1, state="running",
                 sources=[source(1, 1.3), source(2, 0.67)]),
        transfer(2, "all-MiniLM-L6-v2", "out", 0.012, 0.091, bytes_per_s=38_000_000, state="running",
                 sources=[source(2, 0.012)]),
        transfer(3, "atmo-tone", "in", 0.0013, 0.0013, state="done", sources=[source(1, 0.0013)]),
        transfer(4, "qwen2.5-coder-7b-q4", "in", 0.4, 4.7, state="failed", sources=[],
                 error="No node has it any more."),
    ]  # fmt: skip


def story(count: int, seed: int = 7, looks: int = 30) -> Story:
    """As a person sees it who has watched for `looks` seconds."""
    chance, made = random.Random(seed), Story()  # noqa: S311 - an invented mesh guards nothing
    for _ in range(looks):
        made.seen(report(count, chance))
    made.moved(transfers() if count > 1 else [])
    for event in events(count):
        made.happened(event)
    return made
