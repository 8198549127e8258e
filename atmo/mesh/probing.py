"""Fresh load, asked for: a small question to a few nodes whose reports are old, and what is done with the answers.

A decision names the places it would like to hear from (choice.py). The question goes to those that are linked; the
answer is one number of bytes and a lookup at the other end, so it comes within a round trip. A request waits for it
where that is cheap, WAIT_SHARE of the time its work takes, and is then decided anew; where it is not, the answers serve
the requests that follow. Nobody is asked again while an answer is due, or within REST_S of the last question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from atmo.clock import Clock
from atmo.ids import PeerId
from atmo.mesh.decision import Decision, Route
from atmo.mesh.messages import Probe

WAIT_SHARE = 0.05  # of the expected service time; a guess: nobody notices it
MOST_WAIT_S = 0.05  # a guess: the slowest reply on a healthy LAN
ROUND_TRIPS = 3.0  # a reply is expected within so many measured round trips
REST_S = 0.02  # a guess; bounds the questions of a burst of decisions


class Probing:
    """send must not raise; linked: who can be asked without dialling; rtt_s: path latency of a linked peer, or None."""

    def __init__(
        self,
        clock: Clock,
        send: Callable[[PeerId, Probe], None],
        linked: Callable[[], frozenset[PeerId]],
        rtt_s: Callable[[PeerId], float | None],
    ) -> None:
        self._clock = clock
        self._send = send
        self._linked = linked
        self._rtt_s = rtt_s
        self._asked_s: dict[Route, float] = {}
        self._waiting: dict[Route, asyncio.Event] = {}

    def __repr__(self) -> str:
        return f"<Probing {len(self._waiting)} answers due>"

    async def refresh(self, decision: Decision) -> bool:
        """Ask whom the decision names, and wait where that is cheap. Is there news to decide by?"""
        wait_s = min(decision.chosen.service_s * WAIT_SHARE, MOST_WAIT_S)
        quick = [route for route in self._ask(decision.probes) if self._reply_s(route.peer) <= wait_s]
        if not quick:
            return False
        events = [self._waiting[route] for route in quick]
        try:
            async with asyncio.timeout(wait_s):
                for event in events:
                    await event.wait()
        except TimeoutError:
            pass
        return any(event.is_set() for event in events)

    def told(self, peer: PeerId, capability: str) -> None:
        """Its load came and is in the table already."""
        event = self._waiting.pop(Route(peer, capability), None)
        if event is not None:
            event.set()

    def _ask(self, routes: tuple[Route, ...]) -> list[Route]:
        """Those of whom an answer is due now."""
        now, linked, due = self._clock.now(), self._linked(), []
        for route in routes:
            if route.peer not in linked:
                continue
            if now - self._asked_s.get(route, float("-inf")) >= REST_S:
                self._asked_s[route] = now
                self._waiting[route] = asyncio.Event()
                self._send(route.peer, Probe(route.capability))
            if route in self._waiting:
                due.append(route)
        self._forget(now)
        return due

    def _reply_s(self, peer: PeerId) -> float:
        rtt_s = self._rtt_s(peer)
        return float("inf") if rtt_s is None else rtt_s * ROUND_TRIPS

    def _forget(self, now: float) -> None:
        """Questions so old that an answer will not come, or would not be news."""
        if len(self._asked_s) > 256:
            self._asked_s = {route: at for route, at in self._asked_s.items() if now - at < MOST_WAIT_S}
            self._waiting = {route: event for route, event in self._waiting.items() if route in self._asked_s}
