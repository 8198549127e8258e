"""What happens at a node, as a stream for those who watch: members that come and go, requests and where they went.

Theory of operation. A `Journal` is a ring of numbered events. Whoever follows it pulls at its own pace; what it is too
slow for falls out of the ring, and a `gap` says so, so a slow reader costs the node nothing. Numbers begin at the
milliseconds since 1970 at which the node started and grow by one for each event: those of a later life of the node are
higher, and a follower that comes back after a restart goes on where it was. Prompts and answers are in no event.

An event is a JSON object:

    seq, at_s      its number; when, in seconds since 1970
    event          what happened
    peer, name     to which node, where it is about one; name is empty as long as nobody told it
    detail         why, for people

    joined lost            a link came up, went down          appeared   a node was heard of to which there is no link
    suspect refuted        accused of being dead; it spoke    left       it said goodbye
    healed dead            the accusation was taken back; it did not speak in time
    revoked ejected        out of the mesh; not asked for a while, because it failed too often
    readmitted             it was out, was tried, and answers again
    unreachable misbehaved equivocated     an address that does not answer; a peer that broke the protocol
    asked retried answered failed cancelled        a request of this node:    request_id, capability, peer, name
    serving served refused                         a request of another node: the same; peer is who asks
    gap                    events after `since` are gone; pulse: nothing happened
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from atmo.clock import Clock
from atmo.errors import AtmoError
from atmo.generation import Finish
from atmo.ids import PeerId, format_peer
from atmo.mesh.asking import Routed
from atmo.mesh.messages import Ask
from atmo.mesh.service import Answer

Json = dict[str, Any]

# Events kept. A guess: some minutes of a busy node, and about 300 kB.
EVENTS_KEPT = 1000
# Names of nodes kept, so that one that is gone can still be named.
NAMES_KEPT = 20_000
# A follower hears so often that nothing happened, and by that knows that the node is alive.
PULSE_S = 1.0


class Journal:
    """Used on the event loop's thread."""

    def __init__(self, clock: Clock, keep: int = EVENTS_KEPT) -> None:
        self._clock = clock
        self._events: deque[Json] = deque(maxlen=keep)
        self._next = int(clock.wall() * 1000)
        self._names: OrderedDict[PeerId, str] = OrderedDict()
        self._news = asyncio.Event()
        self._closed = False

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._next - 1

    def record(self, event: str, **facts: Any) -> None:
        self._events.append({"seq": self._next, "at_s": round(self._clock.wall(), 3), "event": event, **facts})
        self._next += 1
        self._wake()

    def about(self, event: str, peer: PeerId | None, name: str = "", detail: str = "", **facts: Any) -> None:
        """An event about a node. A name that is not known any more is remembered."""
        if peer is None:
            self.record(event, detail=detail, **facts)
            return
        self._names[peer] = name or self._names.get(peer, "")
        if len(self._names) > NAMES_KEPT:
            self._names.popitem(last=False)
        self.record(event, peer=format_peer(peer), name=self._names[peer], detail=detail, **facts)

    def since(self, seq: int = 0) -> list[Json]:
        """What is kept of the events after number `seq`, led by a `gap` if some of them are gone."""
        kept = len(self._events)
        first = self._next - kept
        found = list(itertools.islice(self._events, max(0, min(seq + 1 - first, kept)), None))
        if 0 < seq < first - 1:
            found.insert(0, {"seq": first - 1, "at_s": round(self._clock.wall(), 3), "event": "gap"})
        return found

    async def follow(self, seq: int = 0, pulse_s: float = PULSE_S) -> AsyncGenerator[Json, None]:
        """The same, and then every event as it happens, until the journal is closed."""
        while True:
            seq = min(seq, self.seq)  # a number from the future is no reason to be deaf
            news = self.since(seq)
            for event in news:
                yield event
                seq = event["seq"]
            if not news and self._closed:
                return
            if not news and not await self._happens(pulse_s):
                yield {"seq": self.seq, "at_s": round(self._clock.wall(), 3), "event": "pulse"}

    def close(self) -> None:
        """The node stops: followers get what there is, and their streams end."""
        self._closed = True
        self._wake()

    def __repr__(self) -> str:
        return f"<Journal {len(self._events)} events, the last is {self.seq}>"

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _happens(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    # Requests

    async def following(self, replies: AsyncGenerator[Routed | Answer, None]) -> AsyncGenerator[Routed | Answer, None]:
        """Pass a request's replies on, and record where it goes and how it ends."""
        at: Json | None = None
        began_s, first_s = self._clock.now(), 0.0
        try:
            async with aclosing(replies):
                async for reply in replies:
                    if isinstance(reply, Routed):
                        at = self._asked(reply)
                    elif at is not None:
                        first_s = first_s or self._clock.now() - began_s
                        if isinstance(reply, Finish):
                            timing = {"first_s": round(first_s, 6), "total_s": round(self._clock.now() - began_s, 6)}
                            self.record("answered", **at, **timing, **_amounts(reply))
                            at = None
                    yield reply
        except AtmoError as error:
            if at is not None:
                self.record("failed", **at, detail=error.message)
                at = None
            raise
        finally:
            if at is not None:
                self.record("cancelled", **at)

    def _asked(self, routed: Routed) -> Json:
        chosen = routed.decision.chosen
        at = {
            "request_id": routed.request_id.hex(),
            "capability": chosen.capability,
            "peer": format_peer(chosen.peer),
            "name": chosen.node,
        }
        more = {"resumed": routed.resumed} if routed.because else {}
        self.record("retried" if routed.because else "asked", **at, detail=routed.because, **more)
        return at

    def served(self, peer: PeerId, name: str, ask: Ask, end: Finish | AtmoError | None) -> None:
        """A request of another node was begun here, or it ended."""
        what = {"request_id": ask.id.hex(), "capability": ask.capability}
        if end is None:
            self.about("serving", peer, name, **what)
        elif isinstance(end, Finish):
            self.about("served", peer, name, **what, **_amounts(end))
        else:
            self.about("refused", peer, name, end.message, **what)


def _amounts(end: Finish) -> Json:
    return {
        "finish": end.reason,
        "prompt_tokens": end.prompt_tokens,
        "output_tokens": end.output_tokens,
        "decode_s": round(end.decode_s, 6),
    }
