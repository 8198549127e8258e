"""Which models do the servers have that run on this machine or are configured? Looked at again and again.

Theory of operation. A place is an address and what may speak there. `look` asks it once: the first dialect that gives a
list of models is the one. `RuntimeWatch` looks at all places at an interval and tells what has come and what has gone.
A refused connection is a server that is not there, so its models go at once; silence or nonsense may pass, so they go
at the second look in a row that fails.

A port on this machine may belong to anyone: what answers there is asked for a list of models and told nothing, until a
request is routed to one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx

from atmo.clock import Clock
from atmo.errors import AtmoError
from atmo.inference.engines.http_model import FoundModel, open_dialect
from atmo.inference.engines.http_upstream import Access

# The ports that servers listen on by default, and what they speak there.
USUAL_PORTS: dict[int, tuple[str, ...]] = {
    11434: ("ollama",),  # Ollama
    1234: ("openai",),  # LM Studio
    8000: ("openai",),  # vLLM, llama-cpp-python's server, Lemonade before its version 10
    8080: ("openai",),  # LocalAI, llama.cpp's server
    13305: ("openai",),  # Lemonade
}
LOOK_WITHIN_S = 2.0  # a list of models takes milliseconds
_PATIENCE = 2  # looks in a row that fail before a server's models are given up


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server may be. kinds: the dialects to try, in this order; names: the only models that are wanted."""

    access: Access
    kinds: tuple[str, ...] = ("ollama", "openai")
    name: str = ""
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name or self.access.host


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found. kind: the dialect spoken there; latency_s: of the answer; trouble: why there is none,
    remedy: what to do then; gone: nobody listens there."""

    kind: str = ""
    models: tuple[FoundModel, ...] = ()
    latency_s: float = 0.0
    trouble: str = ""
    remedy: str = ""
    gone: bool = False


def usual_places() -> list[Place]:
    return [Place(Access(f"http://127.0.0.1:{port}", connect_s=0.5), kinds) for port, kinds in USUAL_PORTS.items()]


async def look(place: Place, clock: Clock) -> Seen:
    """Ask a place for its models."""
    if place.access.is_local and await place.access.is_refused():
        refused = place.access.refused()
        return Seen(trouble=refused.message, remedy=refused.hint, gone=True)
    failed, gone = Seen(), False
    for kind in place.kinds:
        dialect = open_dialect(kind, place.access)
        began_s = clock.now()
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                found = await dialect.models()
            wanted = tuple(each for each in found if not place.names or each.name in place.names)
            return Seen(kind, wanted, clock.now() - began_s)
        except TimeoutError:
            late = Seen(trouble=f"{place.access.host} does not answer in time.", remedy="Look into its log.")
            failed = failed if failed.trouble else late
        except AtmoError as error:
            failed = failed if failed.trouble else Seen(trouble=error.message, remedy=error.hint)
            gone = gone or isinstance(error.__cause__, httpx.ConnectError)
        finally:
            await dialect.close()
    return replace(failed, gone=gone)


@dataclass(slots=True)
class _State:
    seen: Seen = field(default_factory=Seen)
    failures: int = 0


class RuntimeWatch:
    """on_change is called on the loop with a place and what was seen there, whenever the models there have changed."""

    def __init__(
        self, places: list[Place], on_change: Callable[[Place, Seen], None], clock: Clock, every_s: float
    ) -> None:
        self._states = {place: _State() for place in places}
        self._on_change = on_change
        self._clock = clock
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        up = sum(bool(state.seen.kind) for state in self._states.values())
        return f"<RuntimeWatch {up} of {len(self._states)} places>"

    async def start(self) -> None:
        """Look once, then go on in the background."""
        await self.look()
        self._task = asyncio.create_task(self._run(), name="runtimes")

    def hurry(self) -> None:
        """Look now: a request has found a server gone."""
        self._hurry.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def seen(self) -> dict[Place, Seen]:
        """The last look at each place, for reports."""
        return {place: state.seen for place, state in self._states.items()}

    async def look(self) -> None:
        """At all places at once."""
        found = await asyncio.gather(*(look(place, self._clock) for place in self._states))
        for place, seen in zip(self._states, found, strict=True):
            self._note(place, self._states[place], seen)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            await self.look()

    def _note(self, place: Place, state: _State, seen: Seen) -> None:
        before = state.seen
        state.failures = 0 if seen.kind else state.failures + 1
        if not seen.kind and before.kind and state.failures < _PATIENCE and not seen.gone:
            return  # it may be busy: its models stay until it is silent once more
        state.seen = seen
        if (before.kind, before.models) != (seen.kind, seen.models):
            self._on_change(place, seen)
