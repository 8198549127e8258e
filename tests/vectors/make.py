"""Writes the golden vectors: `python -m tests.vectors.make`. Done once; done again only with a new protocol version.

A vector holds a name, the bytes in hex, and what the bytes say, as JSON (`{"hex": ...}` stands for a byte string, a
map is a list of pairs under `"map"` so that its order is kept). tests/mesh/test_golden.py checks both directions with
two implementations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack

from atmo.generation import CallDelta, Finish, Form, Piece, Prefix, Sampling, Task, TokenScore, ToolCall, Turn
from atmo.ids import MeshId, PeerId, format_peer
from atmo.keys import Certificate, Identity, issue_invite, issue_membership, issue_revocation
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.codec import encode
from atmo.mesh.messages import (
    AnyMessage,
    Ask,
    Bitmap,
    Bring,
    Brought,
    Cancel,
    Chunk,
    Contact,
    Digest,
    Disconnect,
    Done,
    DropChunks,
    Elsewhere,
    Failed,
    ForwardJoin,
    GetChunks,
    GetManifest,
    Graft,
    Grant,
    Have,
    IHave,
    Join,
    ManifestPart,
    Neighbour,
    NotServed,
    Parcel,
    Part,
    Probe,
    Prune,
    Push,
    Revoked,
    Rows,
    Scores,
    Shuffle,
    ShuffleReply,
    Told,
    Vectors,
    Versions,
)
from atmo.mesh.rows import (
    Body,
    Charge,
    Gradient,
    Kind,
    NodeInfo,
    Renewal,
    Row,
    RowId,
    Seed,
    Shape,
    Suspicion,
    seal,
)
from atmo.receipts import Receipt, sign

FILE = Path(__file__).with_name("protocol-1.json")
RECEIPT = Path(__file__).with_name("receipt-2.json")
ORIGIN = Identity(bytes(range(32)))
ROOT = Identity(bytes(range(32, 64)))
MESH = MeshId(ROOT.public)
INVITE_KEY = Identity(bytes(range(96, 128)))
INVITE = issue_invite(ROOT, INVITE_KEY, wall_s=1_750_000_000.0, valid_s=86_400, uses=2, renewable=False)
MEMBERSHIP = issue_membership(ROOT, ORIGIN.public, wall_s=1_750_000_000.0, serial=3)
GUEST = issue_membership(INVITE_KEY, ORIGIN.public, wall_s=1_750_000_000.0, serial=3, invite=INVITE)
RENEWED = issue_membership(ROOT, ORIGIN.public, wall_s=1_770_000_000.0, serial=4, came_by=INVITE_KEY.public)
CALL = bytes(range(16))
MODEL = bytes(range(32, 64))
CONTACT = Contact(PeerId(ORIGIN.public), ("/ip4/192.168.1.4/tcp/4600",))
LOAD = Load("atmo:chat:nano", 2, 4, 1, 0.75, 900.5, 61.25, True)

BODIES: dict[str, tuple[Kind, str, Body | None]] = {
    "row node": (
        Kind.NODE,
        "",
        NodeInfo(
            name="büro",
            addresses=("/ip4/192.168.1.4/tcp/4600",),
            mode="participant",
            software="atmo 0.1.0",
            labels=(("residency", "eu"),),
            cores=8,
            memory_bytes=34_359_738_368,
            certificate=Certificate(MEMBERSHIP),
        ),
    ),
    "row node of a guest": (
        Kind.NODE,
        "",
        NodeInfo(name="g", addresses=(), mode="participant", software="-", certificate=Certificate(GUEST, INVITE)),
    ),
    "row capability": (
        Kind.CAPABILITY,
        "atmo:chat:nano",
        Capability(
            Descriptor(
                id="atmo:chat:nano",
                type="chat",
                description="Answers short questions.",
                examples=("What is 2+2?",),
                context=2048,
                strength=0.125,
            ),
            "minilm-1",
            (bytes(range(128)) * 3, bytes([127]) + bytes(EMBEDDING_DIM - 1)),
        ),
    ),
    "row gradient": (Kind.GRADIENT, "", Gradient((LOAD,))),
    "row seed": (
        Kind.SEED,
        MODEL.hex(),
        Seed(
            3_145_729,
            "gguf",
            Descriptor(id="atmo:chat:nano", type="chat", description="Answers short questions.", root=MODEL.hex()),
            Shape(2, 64, 259, 2048, 1024),
            (("ward", "3"),),
            True,
            "hf://org/nano@0123456789abcdef0123456789abcdef01234567/nano.gguf",
        ),
    ),
    "row cert": (Kind.CERT, format_peer(ORIGIN.public), Renewal(RENEWED)),
    "row suspect": (Kind.SUSPECT, "", Suspicion((Charge(bytes(range(64, 96)), 5, 2),))),
    "row node, accused once": (
        Kind.NODE,
        "",
        NodeInfo(name="büro", addresses=(), mode="provider", software="-", incarnation=1),
    ),
    "row withdrawn": (Kind.CAPABILITY, "atmo:chat:nano", None),
}


def row(name: str) -> Row:
    kind, key, body = BODIES[name]
    row_id = RowId(PeerId(ORIGIN.public), kind, key)
    return seal(row_id, body, mesh=MESH, order=(3, 7), issued_s=1_750_000_000.5, ttl_s=60.0, sign=ORIGIN.sign)


TASK = Task(
    (
        Turn("system", "Be brief."),
        Turn("user", "Grüße, 世界", images=(b"PNG",)),
        Turn("assistant", "", calls=(ToolCall("c1", "weather", '{"in":"Oslo"}'),)),
        Turn("tool", "rain", call_id="c1", name="weather"),
    ),
    Sampling(64, 0.5, 0.9, 42, ("\n\n",), 40, 0.05, 0.1, -0.1, ((7, -100.0),)),
    Form("[]", "required", "{}", 'root ::= "x"', 2, False),
    Prefix("ab" * 32, (1, 2), "It"),
)
FINISH = Finish(reason="stop", prompt_tokens=12, output_tokens=34, prefill_s=0.125, decode_s=1.5)
SCORES = (TokenScore("Hal", -0.5, (("Hal", -0.5), ("Hel", -1.25))), TokenScore("lo", -0.25))


def messages() -> dict[str, AnyMessage]:
    return {
        "rows": Rows((row("row node").signed, row("row withdrawn").signed)),
        "revoked": Revoked((issue_revocation(ROOT, ORIGIN.public, 1_780_000_000.0),)),
        "versions": Versions(CALL, 64, b"\x00\x3f", ((ORIGIN.public, 3, 123_456_789_012, (1, 7, 300)),), True),
        "digest": Digest(CALL, bytes(range(16))),
        "join": Join(CONTACT.addresses),
        "forward join": ForwardJoin(CONTACT, 6),
        "neighbour": Neighbour(CONTACT.addresses, True),
        "disconnect": Disconnect(),
        "shuffle": Shuffle((CONTACT.peer,), 5, (CONTACT,)),
        "shuffle reply": ShuffleReply((CONTACT.peer,), (CONTACT,)),
        "push": Push((row("row node").signed,)),
        "ihave": IHave(bytes(range(16))),
        "graft": Graft(bytes(range(8))),
        "prune": Prune(),
        "ask": Ask(CALL, 1, "atmo:chat:nano", TASK, 29.5, 64, ("hospital",)),
        "part": Part(CALL, 1, 0, Piece("Hallo", (15, 70_000), SCORES, (CallDelta(0, "c1", "weather", "{"),), "Hal")),
        "vectors": Vectors(CALL, 0, 0, b"\x00\x00\x80\x3f" * 2),
        "scores": Scores(CALL, 0, 0, (("positive", 0.75), ("negative", 0.25))),
        "done": Done(CALL, 1, 2, FINISH, LOAD),
        "failed": Failed(CALL, 1, "overloaded", "All slots are taken.", "Try again.", 0.5, None),
        "cancel": Cancel(CALL, 1),
        "grant": Grant(CALL, 1, 32),
        "parcel": Parcel(CALL, 1, 2, 3, b"a piece"),
        "probe": Probe("atmo:chat:nano"),
        "told": Told(LOAD),
        "get manifest": GetManifest(MODEL, 524_288),
        "manifest part": ManifestPart(MODEL, 524_288, 524_292, b"hash"),
        "bitmap": Bitmap(MODEL, b"\xf0\x80", True),
        "have": Have(MODEL, (3, 4_194_303)),
        "get chunks": GetChunks(MODEL, (0, 7)),
        "drop chunks": DropChunks(MODEL, (7,)),
        "elsewhere": Elsewhere(MODEL, (7,), CONTACT.peer, 3.0),
        "not served": NotServed(MODEL, "private", "It is for nodes with ward=3 only."),
        "chunk": Chunk(MODEL, 7, memoryview(b"a chunk")),
        "bring": Bring(CALL, MODEL),
        "brought": Brought(CALL, "running", 1_048_576, 3_145_729, "", "", "", ((CONTACT.peer, 1_048_576),)),
    }


def receipt(**changes: Any) -> Receipt:
    """A guest of the mesh states that a model came from another node and that nothing left it."""
    who = {"peer": format_peer(ORIGIN.public), "name": "ward", "labels": {"residency": "hospital"}}
    source = {"peer": format_peer(INVITE_KEY.public), "name": "office", "labels": {}, "bytes": 3_145_729}
    says = {
        "id": CALL.hex(),
        "node": who,
        "asked_at_s": 1_750_000_010.0,
        "done_at_s": 1_750_000_015.5,
        "rule": {"data_residency": ["hospital"], "local_only": False},
        "model": {"capability": "atmo:chat:nano", "name": "nano", "root": MODEL.hex()},
        "answered_by": who,
        "request_bytes_out": [],
        "transfer": {
            "root": MODEL.hex(),
            "bytes_in": 3_145_729,
            "to": who,
            "sources": [source],
            "began_at_s": 1_750_000_010.5,
            "ended_at_s": 1_750_000_012.0,
        },
        "decision": ["ward answers: büro has no such model."],
    }
    return sign(ORIGIN, MESH, Certificate(GUEST, INVITE), {**says, **changes})


def to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {"map": [[key, to_json(item)] for key, item in value.items()]}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else {key: from_json(item) for key, item in value["map"]}
    return [from_json(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    frames = {name: encode(message) for name, message in messages().items()}
    payloads = {name: row(name).signed.payload for name in BODIES}
    vectors = [
        {"name": name, "hex": data.hex(), "says": to_json(msgpack.unpackb(data[1:] if name in frames else data))}
        for name, data in (frames | payloads).items()
    ]
    FILE.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")
    made = receipt()
    kept = {"statement": made.statement, "signature": made.signature.hex()}
    RECEIPT.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
