"""The requester's half of a request, sans-IO.

A call is asked of one node at a time: attempt 0, then 1, and so on. Theory of operation:

    choosing --assign--> waiting --first part--> streaming --Done--> over
        ^                   |                        |
        '---- retry --------'                        '--- link lost, Failed --> over, with an error

Until the first part has arrived nothing has been shown to anyone, so a failure that is the node's own (unreachable,
overloaded, engine gone, capability withdrawn) is answered by asking another node; a failure that is the request's own
(the prompt does not fit, bad input) is final. Parts carry a sequence number: one out of order is the peer's error,
parts of an earlier attempt are ignored. The requester grants credit as its reader consumes, so that a slow reader
stops the writer and not the mesh.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from atmo.errors import (
    AtmoError,
    ContextOverflow,
    PeerUnreachable,
    RemoteProtocolError,
    RequestError,
    RequestTimeout,
    UsageError,
    by_code,
)
from atmo.generation import Task
from atmo.ids import PeerId, short
from atmo.mesh.capability import Load
from atmo.mesh.messages import AnyMessage, Ask, Cancel, Done, Failed, Grant, Part, Scores, Vectors
from atmo.mesh.service import Answer, Labels, Vector

# Parts in flight before the reader has consumed any. A guess: at 200 tokens/s a third of a second of silence.
WINDOW_PARTS = 64
# Nodes tried for one request. A guess; the budget for retries across requests comes on top of it.
MAX_ATTEMPTS = 4

Reply = Part | Vectors | Scores | Done | Failed
_FINAL = (ContextOverflow, UsageError)


class State(enum.Enum):
    CHOOSING = enum.auto()
    WAITING = enum.auto()
    STREAMING = enum.auto()
    OVER = enum.auto()


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send this message to that peer."""

    peer: PeerId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Emit:
    """Hand this to the reader."""

    item: Answer


@dataclass(frozen=True, slots=True)
class Choose:
    """Find another node (`assign`) or give up (`abandon`); `because` is why the last one did not answer."""

    because: AtmoError


@dataclass(frozen=True, slots=True)
class Observe:
    """What the routing table should learn. Exactly one Started and one ending (finish or failure) for each attempt.

    elapsed_s: since the attempt began; of a finished one without the queueing that the node admits to.
    """

    peer: PeerId
    capability: str
    what: str  # started, first_part, finished, failed or cancelled
    elapsed_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows. `error` is None after a complete answer."""

    error: AtmoError | None


Effect = Transmit | Emit | Choose | Observe | End


@dataclass(slots=True)
class Call:
    """One request. `deadline_s` is a point on the monotonic clock; all other times are handed in as `now_s`."""

    id: bytes
    task: Task
    deadline_s: float
    state: State = State.CHOOSING
    attempt: int = -1
    peer: PeerId | None = None
    capability: str = ""
    tried: list[PeerId] = field(default_factory=list)
    next_seq: int = 0
    used_parts: int = 0
    began_s: float = 0.0

    def assign(self, peer: PeerId, capability: str, now_s: float) -> list[Effect]:
        """Ask this node. Only while choosing."""
        assert self.state is State.CHOOSING, self.state
        if now_s >= self.deadline_s:
            return self._end(self._late())
        self.state, self.attempt, self.peer, self.capability = State.WAITING, self.attempt + 1, peer, capability
        self.next_seq = self.used_parts = 0
        self.began_s = now_s
        self.tried.append(peer)
        ask = Ask(self.id, self.attempt, capability, self.task, self.deadline_s - now_s, WINDOW_PARTS)
        return [Observe(peer, capability, "started"), Transmit(peer, ask)]

    def abandon(self, error: AtmoError) -> list[Effect]:
        """There is no other node."""
        return self._end(error) if self.state is not State.OVER else []

    def receive(self, peer: PeerId, reply: Reply, now_s: float) -> list[Effect]:
        if self.state not in (State.WAITING, State.STREAMING) or peer != self.peer or reply.attempt != self.attempt:
            return []  # late words of an attempt that was given up
        if isinstance(reply, Failed):
            return self._failed(by_code(reply.code, reply.message, hint=reply.hint, retry_after_s=reply.retry_after_s))
        if reply.seq != self.next_seq:
            fault = RemoteProtocolError(f"{short(peer)} sent part {reply.seq} where {self.next_seq} was due.")
            return [Transmit(peer, Cancel(self.id, self.attempt)), *self._failed(fault)]
        if isinstance(reply, Done):
            return self._done(reply, now_s)
        effects: list[Effect] = []
        if self.state is State.WAITING:
            self.state = State.STREAMING
            effects.append(Observe(peer, self.capability, "first_part", now_s - self.began_s))
        self.next_seq += 1
        return [*effects, Emit(_item(reply))]

    def consumed(self, parts: int) -> list[Effect]:
        """The reader took so many items. Credit goes back in halves of the window."""
        self.used_parts += parts
        if self.state is not State.STREAMING or self.peer is None or self.used_parts < WINDOW_PARTS // 2:
            return []
        granted, self.used_parts = self.used_parts, 0
        return [Transmit(self.peer, Grant(self.id, self.attempt, granted))]

    def peer_lost(self, peer: PeerId, reason: str) -> list[Effect]:
        if peer != self.peer or self.state not in (State.WAITING, State.STREAMING):
            return []
        return self._failed(PeerUnreachable(f"Lost the node {short(peer)}: {reason}."))

    def expire(self, now_s: float) -> list[Effect]:
        """Call at or after the deadline."""
        if self.state is State.OVER or now_s < self.deadline_s:
            return []
        return [*self._withdraw("failed"), *self._end(self._late())]

    def cancel(self) -> list[Effect]:
        """The reader went away."""
        return [] if self.state is State.OVER else [*self._withdraw("cancelled"), *self._end(None)]

    def _withdraw(self, what: str) -> list[Effect]:
        if self.peer is None or self.state is State.CHOOSING:
            return []
        return [
            Transmit(self.peer, Cancel(self.id, self.attempt)),
            Observe(self.peer, self.capability, what),
        ]

    def _done(self, done: Done, now_s: float) -> list[Effect]:
        assert self.peer is not None
        finish = done.finish
        learnt = Observe(
            self.peer,
            self.capability,
            "finished",
            max(0.0, now_s - self.began_s - finish.queue_s),
            finish.prompt_tokens,
            finish.output_tokens,
            done.load,
        )
        return [learnt, Emit(finish), *self._end(None)]

    def _failed(self, error: AtmoError) -> list[Effect]:
        """The attempt is over. Another node is tried only while nothing has been shown."""
        assert self.peer is not None
        if isinstance(error, _FINAL):
            return [Observe(self.peer, self.capability, "cancelled"), *self._end(error)]
        effects: list[Effect] = [Observe(self.peer, self.capability, "failed")]
        if self.state is State.STREAMING:
            broken = RequestError(
                f"The answer broke off after {self.next_seq} parts. {error.message}", hint="Ask again."
            )
            return [*effects, *self._end(broken)]
        if len(self.tried) >= MAX_ATTEMPTS:
            return [*effects, *self._end(error)]
        self.state = State.CHOOSING
        return [*effects, Choose(error)]

    def _end(self, error: AtmoError | None) -> list[Effect]:
        self.state = State.OVER
        return [End(error)]

    def _late(self) -> RequestTimeout:
        where = f" {short(self.peer)} was answering." if self.peer is not None else ""
        return RequestTimeout(f"The deadline passed before the answer was complete.{where}", hint="Allow more time.")


def _item(reply: Part | Vectors | Scores) -> Answer:
    if isinstance(reply, Part):
        return reply.piece
    if isinstance(reply, Vectors):
        return Vector(reply.vector)
    return Labels(reply.labels)
