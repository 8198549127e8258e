"""What is remembered of one HTTP request: for headers, metrics, the audit trail and the log. Never what was said."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

# Where an ASGI scope carries it.
SCOPE_KEY = "atmo.trace"
_GOOD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_UNFIT_FOR_HEADERS = re.compile(r"[^\x21-\x7e ]")


@dataclass(slots=True)
class Trace:
    """A request from its arrival to its end.

    id: what `x-request-id` says; given: it came from the client. mesh_id: of the request in the mesh, by which
    `atmo explain` finds the decision. asked: the model as the client named it, model: as the mesh calls what answered.
    retries: attempts that failed before a word; resumed: times the answer went on elsewhere after it had broken off;
    other_model: with another model. proof: what the client is told of receipts and of a model that came. Times in
    seconds since the arrival.
    """

    id: str
    door: str
    began_s: float
    given: bool = False
    endpoint: str = "other"
    key: str = ""
    key_models: frozenset[str] = frozenset()
    asked: str = ""
    mesh_id: str = ""
    node: str = ""
    capability: str = ""
    local: bool | None = None
    why: str = ""
    decision_s: float = 0.0
    retries: int = 0
    resumed: int = 0
    other_model: bool = False
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    status: int = 0
    code: str = ""
    first_s: float = 0.0
    total_s: float = 0.0
    proof: Json = field(default_factory=dict)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def hear(self, event: Json, *, lead: bool = True, prompt: bool = True) -> None:
        """Keep the account. lead: of the first of several choices; prompt: its prompt was not counted before."""
        what = event["event"]
        if what == "text":
            return
        if what == "route":
            if lead:
                self._routed(event)
        elif what == "done":
            if prompt:
                self.prompt_tokens += event["prompt_tokens"]
                self.cached_tokens += event["cached_tokens"]
            self.output_tokens += event["output_tokens"]
            self.local, self.node, self.capability = event["local"], event["node"], event["capability"]
        elif what == "retry":
            if event.get("resumed"):
                self.resumed += 1
                self.other_model = self.other_model or bool(event.get("other_model"))
            else:
                self.retries += 1
        elif what == "receipt":
            moved = event["receipt"]["transfer"]
            came = {"came_bytes": moved["bytes_in"]} if moved else {}
            self.proof = {**self.proof, **came, "receipts": [*self.proof.get("receipts", ()), event["id"]]}

    def _routed(self, event: Json) -> None:
        """Where it goes, and why; again after each failed attempt."""
        chosen = event["chosen"]
        self.node, self.capability, self.why = chosen["node"], chosen["capability"], chosen["why"]
        self.decision_s = event.get("elapsed_s", 0.0)
        if not self.mesh_id:
            self.mesh_id = event["request_id"]
            if not self.given and not self.status:  # what was told is not changed any more
                self.id = self.mesh_id

    @property
    def moved(self) -> Json:
        """What a client is told of an answer that did not come from one place; empty for all others."""
        return {"resumed": self.resumed, "other_model": self.other_model} if self.resumed else {}

    @property
    def model(self) -> str:
        """`atmo:chat:qwen` -> `qwen`: the name under which clients know it."""
        return self.capability.rpartition(":")[2] or self.asked

    def reply_headers(self) -> list[tuple[bytes, bytes]]:
        """What every reply tells of its way."""
        told = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
        if self.mesh_id:
            told += [
                (b"x-atmo-request-id", self.mesh_id.encode()),
                (b"x-atmo-node", header_safe(self.node)),
                (b"x-atmo-capability", header_safe(self.capability)),
            ]
        return told + self.headers


def header_safe(text: str) -> bytes:
    """Names come from other nodes: nothing of them may end a header."""
    return _UNFIT_FOR_HEADERS.sub("?", text)[:1000].strip().encode()


def new_id() -> str:
    return os.urandom(16).hex()


def acceptable_id(text: str) -> bool:
    """May a client's `x-request-id` be used, in headers, logs and the audit trail?"""
    return _GOOD_ID.fullmatch(text) is not None
