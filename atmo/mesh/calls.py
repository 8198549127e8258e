"""The requester's half of a request, sans-IO.

A call is asked of one node at a time: attempt 0, then 1, and so on. Theory of operation:

    choosing --assign--> waiting --first part--> streaming --Done--> over
        ^                   |  '--hedge-> two      |
        '------ retry ------'--- link lost, Failed-'

A failure that is the node's own (unreachable, overloaded, engine gone, capability withdrawn, garbage) is answered by
asking another node; a failure that is the request's own (the prompt does not fit, bad input) is final. What has been
shown stays: the next node is given the tokens so far and goes on behind them, so nothing is lost and nothing comes
twice. A piece without anything to show (half a character) is held back until its other half is there, and is made anew
by the next node if that never comes. Vectors and labels are made anew as well, and those already shown passed over.

While nothing has come at all a second node may be asked beside the first (`hedge`); the first part decides, and the
other is told to stop. Parts carry a sequence number: one out of order is the peer's error, parts of an earlier attempt
are ignored. The requester grants credit as its reader consumes: a slow reader stops the writer and not the mesh.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import msgspec

from atmo.errors import (
    AtmoError,
    ContextOverflow,
    PeerUnreachable,
    RemoteProtocolError,
    RequestTimeout,
    UsageError,
    by_code,
)
from atmo.generation import Finish, Piece, Prefix, Task, joined
from atmo.ids import PeerId, short
from atmo.mesh.capability import Load
from atmo.mesh.messages import AnyMessage, Ask, Cancel, Done, Failed, Grant, Part, Scores, Vectors
from atmo.mesh.service import Answer, Labels, Vector

# Parts in flight before the reader has consumed any. A guess: at 200 tokens/s a third of a second of silence.
WINDOW_PARTS = 64
# Nodes tried in a row without a single part. A guess; the budget for retries across requests comes on top of it.
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
    """Find another node (`assign`) or give up (`abandon`); `because` is why the last one did not answer, or not to the
    end: then `root` is the model that began."""

    because: AtmoError
    begun: bool = False
    root: str = ""


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
class _Attempt:
    """One node that is asked."""

    number: int
    peer: PeerId
    capability: str
    root: str
    began_s: float
    begun_tokens: int  # that were there when it was asked
    next_seq: int = 0
    used_parts: int = 0


@dataclass(slots=True)
class _Shown:
    """What of the answer the reader has."""

    items: int = 0
    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    root: str = ""

    def add(self, item: Answer) -> None:
        self.items += 1
        if isinstance(item, Piece):
            self.token_ids += item.token_ids
            self.text.append(item.raw or item.text)

    @property
    def prefix(self) -> Prefix:
        return Prefix(self.root, tuple(self.token_ids), "".join(self.text)) if self.text else Prefix()


@dataclass(slots=True)
class Call:
    """One request. `deadline_s` is a point on the monotonic clock; all other times are handed in as `now_s`."""

    id: bytes
    task: Task
    deadline_s: float
    homes: tuple[str, ...] = ()  # where its data may be
    state: State = State.CHOOSING
    tried: list[PeerId] = field(default_factory=list)
    _asked: list[_Attempt] = field(default_factory=list)  # one, two while hedged, none while choosing
    _attempts: int = 0
    _fruitless: int = 0  # attempts since the last part
    _shown: _Shown = field(default_factory=_Shown)
    _held: Piece | None = None  # tokens with nothing to show yet
    _pass_over: int = 0  # vectors or labels of this attempt that were shown before

    def assign(self, peer: PeerId, capability: str, root: str, now_s: float) -> list[Effect]:
        """Ask this node, whose model has this root. Only while choosing."""
        assert self.state is State.CHOOSING, self.state
        if now_s >= self.deadline_s:
            return self._end(self._late())
        self.state = State.WAITING
        self._held = None
        self._pass_over = 0 if self._shown.text else self._shown.items
        return self._ask(peer, capability, root, now_s)

    def hedge(self, peer: PeerId, capability: str, root: str, now_s: float) -> list[Effect]:
        """Ask this node as well, if still nothing has come."""
        if self.state is not State.WAITING or len(self._asked) != 1 or now_s >= self.deadline_s:
            return []
        return self._ask(peer, capability, root, now_s)

    def _ask(self, peer: PeerId, capability: str, root: str, now_s: float) -> list[Effect]:
        attempt = _Attempt(self._attempts, peer, capability, root, now_s, len(self._shown.token_ids))
        self._attempts += 1
        self._fruitless += 1
        self._asked.append(attempt)
        self.tried.append(peer)
        task = msgspec.structs.replace(self.task, prefix=self._shown.prefix)
        ask = Ask(self.id, attempt.number, capability, task, self.deadline_s - now_s, WINDOW_PARTS, self.homes)
        return [Observe(peer, capability, "started"), Transmit(peer, ask)]

    def abandon(self, error: AtmoError) -> list[Effect]:
        """There is no other node."""
        return self._end(error) if self.state is not State.OVER else []

    def receive(self, peer: PeerId, reply: Reply, now_s: float) -> list[Effect]:
        attempt = next((each for each in self._asked if (each.peer, each.number) == (peer, reply.attempt)), None)
        if attempt is None:
            return []  # late words of an attempt that was given up
        if isinstance(reply, Failed):
            error = by_code(reply.code, reply.message, hint=reply.hint, retry_after_s=reply.retry_after_s)
            return self._failed(attempt, error, reply.load)
        if reply.seq != attempt.next_seq:
            fault = RemoteProtocolError(f"{short(peer)} sent part {reply.seq} where {attempt.next_seq} was due.")
            return [Transmit(peer, Cancel(self.id, attempt.number)), *self._failed(attempt, fault)]
        effects = self._won(attempt, now_s) if self.state is State.WAITING else []
        if isinstance(reply, Done):
            return [*effects, *self._done(attempt, reply, now_s)]
        attempt.next_seq += 1
        return [*effects, *self._show(_item(reply))]

    def _won(self, attempt: _Attempt, now_s: float) -> list[Effect]:
        """The first to say something is the one whose answer counts."""
        self.state = State.STREAMING
        effects: list[Effect] = []
        for other in self._asked:
            if other is not attempt:
                effects += self._withdraw(other, "cancelled")
        self._asked = [attempt]
        if not self._shown.text:
            self._shown.root = attempt.root
        elif attempt.root != self._shown.root:
            self._shown.root = ""  # from here on the ids are those of two vocabularies
        return [*effects, Observe(attempt.peer, attempt.capability, "first_part", now_s - attempt.began_s)]

    def _show(self, item: Answer) -> list[Effect]:
        self._fruitless = 0
        if self._pass_over and not isinstance(item, Piece):
            self._pass_over -= 1
            return []
        if isinstance(item, Piece):
            item = joined((self._held, item)) if self._held is not None else item
            if not (item.text or item.calls or item.raw):
                self._held = item
                return []
            self._held = None
        self._shown.add(item)
        return [Emit(item)]

    def consumed(self, parts: int) -> list[Effect]:
        """The reader took so many items. Credit goes back in halves of the window."""
        if self.state is not State.STREAMING:
            return []
        (attempt,) = self._asked
        attempt.used_parts += parts
        if attempt.used_parts < WINDOW_PARTS // 2:
            return []
        granted, attempt.used_parts = attempt.used_parts, 0
        return [Transmit(attempt.peer, Grant(self.id, attempt.number, granted))]

    def peer_lost(self, peer: PeerId, reason: str, name: str = "") -> list[Effect]:
        """name: as people know the peer."""
        attempt = next((each for each in self._asked if each.peer == peer), None)
        if attempt is None:
            return []
        return self._failed(attempt, PeerUnreachable(f"Lost the node {name or short(peer)}: {reason}."))

    def expire(self, now_s: float) -> list[Effect]:
        """Call at or after the deadline."""
        if self.state is State.OVER or now_s < self.deadline_s:
            return []
        late = self._late()
        return [*self._withdraw_all("failed"), *self._end(late)]

    def cancel(self) -> list[Effect]:
        """The reader went away."""
        return [] if self.state is State.OVER else [*self._withdraw_all("cancelled"), *self._end(None)]

    def _withdraw_all(self, what: str) -> list[Effect]:
        return [effect for attempt in self._asked for effect in self._withdraw(attempt, what)]

    def _withdraw(self, attempt: _Attempt, what: str) -> list[Effect]:
        return [
            Transmit(attempt.peer, Cancel(self.id, attempt.number)),
            Observe(attempt.peer, attempt.capability, what),
        ]

    def _done(self, attempt: _Attempt, done: Done, now_s: float) -> list[Effect]:
        finish = done.finish
        learnt = Observe(
            attempt.peer,
            attempt.capability,
            "finished",
            max(0.0, now_s - attempt.began_s - finish.queue_s),
            finish.prompt_tokens,
            finish.output_tokens,
            done.load,
        )
        tail: list[Effect] = []
        if self._held is not None:  # the model ended inside a character
            self._shown.add(self._held)
            tail.append(Emit(self._held))
        return [learnt, *tail, Emit(_whole(finish, attempt)), *self._end(None)]

    def _failed(self, attempt: _Attempt, error: AtmoError, load: Load | None = None) -> list[Effect]:
        """The attempt is over."""
        self._asked.remove(attempt)
        if isinstance(error, _FINAL):
            observed = Observe(attempt.peer, attempt.capability, "cancelled", load=load)
            return [observed, *self._withdraw_all("cancelled"), *self._end(error)]
        effects: list[Effect] = [Observe(attempt.peer, attempt.capability, "failed", load=load)]
        if self._asked:
            return effects  # the other one may still answer
        if self._fruitless >= MAX_ATTEMPTS:
            return [*effects, *self._end(error)]
        self.state = State.CHOOSING
        return [*effects, Choose(error, bool(self._shown.items), self._shown.root)]

    def _end(self, error: AtmoError | None) -> list[Effect]:
        self.state = State.OVER
        self._asked = []
        return [End(error)]

    def _late(self) -> RequestTimeout:
        where = f" {short(self._asked[0].peer)} was answering." if self._asked else ""
        return RequestTimeout(f"The deadline passed before the answer was complete.{where}", hint="Allow more time.")


def _whole(finish: Finish, attempt: _Attempt) -> Finish:
    """The end of the whole answer, whoever wrote how much of it."""
    return msgspec.structs.replace(finish, output_tokens=attempt.begun_tokens + finish.output_tokens)


def _item(reply: Part | Vectors | Scores) -> Answer:
    if isinstance(reply, Part):
        return reply.piece
    if isinstance(reply, Vectors):
        return Vector(reply.vector)
    return Labels(reply.labels)
