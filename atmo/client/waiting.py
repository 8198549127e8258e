"""`Client`: the same as `SyncClient`, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from atmo.client import calls
from atmo.client.address import Address, translated
from atmo.client.blocking import AT_ONCE, READ_BYTES, Door
from atmo.client.calls import CONNECT_TIMEOUT_S, Call
from atmo.client.exchange import Exchange
from atmo.client.options import Intent, Message, Options, Prompt, Wishes
from atmo.client.results import (
    Answer,
    Decision,
    Embeddings,
    Event,
    Gathering,
    Mesh,
    Models,
    Outcome,
    Report,
    Status,
    Step,
)

if TYPE_CHECKING:
    from typing import Unpack

T = TypeVar("T")


class Client(Door):
    """Talk to a node; nothing is held open between calls, and a call that is cancelled is cancelled at the node, too.
    Every method raises an AtmoError: the node's own, or NodeNotRunning.

    >>> client = Client()                                                # doctest: +SKIP
    >>> print(await client.ask("What is Atmosphere?", min_tps=20))       # doctest: +SKIP
    """

    async def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Answer:
        """Ask, and wait for the whole answer. prompt: a text, or a conversation that ends with the user's turn."""
        return await self.stream(prompt, **options).answer()

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """Ask, and get the answer as it is written. Closing the stream cancels the request."""
        return Stream(self.address, calls.ask(prompt, options))

    async def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Answer:
        """Go on with a conversation; `Answer.message` is its next turn."""
        options.setdefault("type", "chat")
        return await self.ask(messages, **options)

    async def embed(self, texts: str | Sequence[str], **options: Unpack[Wishes]) -> Embeddings:
        """Texts as vectors, all of one model."""
        return await _run(self.address, calls.embed([texts] if isinstance(texts, str) else texts, options))

    async def execute(self, intent: str, input: str = "", **options: Unpack[Options]) -> Answer:
        """Have something done by whatever capability fits the intent: a chat, a classifier, an embedding.

        input: what it is to be done with. The intent alone decides where it goes; a chat reads it as its instruction.
        """
        return await Stream(self.address, calls.execute(intent, input, options)).answer()

    async def execute_batch(
        self, jobs: Iterable[Intent], *, at_once: int = AT_ONCE, **options: Unpack[Options]
    ) -> list[Outcome]:
        """Execute many, so many of them at once: outcomes in the order of the jobs, each an answer or an error.

        jobs: intents, or dicts with `intent`, `input` and options of their own. Whoever is refused because all are busy
        comes again when it was told to, until its time is over.
        """
        from atmo.client.batch import execute_batch

        return await execute_batch(self, jobs, at_once, options)

    async def route(self, text: str, **options: Unpack[Options]) -> Decision:
        """Where `text` would go and why; nothing is sent."""
        return await _run(self.address, calls.route(text, options))

    async def explain(self, request_id: str) -> Decision:
        """The decision that was made for a request some time ago."""
        return await _run(self.address, calls.explain(request_id))

    async def models(self) -> Models:
        """Models that the mesh serves."""
        return await _run(self.address, calls.models())

    async def events(self, since: int = 0, *, follow: bool = True) -> AsyncGenerator[Event, None]:
        """What happened at the node after event number `since`, as far as it is kept, and then what happens.

        Ends when the node stops, or at once without `follow`. A `pulse` each second says that nothing happened; a node
        that says nothing for longer than CONNECT_TIMEOUT_S raises NodeNotRunning.
        """
        async with aclosing(_lines(self.address, calls.events(since, follow=follow))) as lines:
            async for told in lines:
                yield Event(told)

    async def mesh(self) -> Mesh:
        """All nodes this node knows, with their capabilities and load."""
        return await _run(self.address, calls.mesh())

    async def status(self) -> Status:
        """The node itself: name, address, capabilities and their state, problems."""
        return await _run(self.address, calls.status())

    async def members(self) -> Report:
        """Who belongs to the mesh, by which invite, until when; on the node's machine only."""
        return await _run(self.address, calls.members())

    async def revoke(self, whom: str) -> Report:
        """Take back a member or an invite; only on a machine of the mesh's owner."""
        return await _run(self.address, calls.revoke(whom))

    async def stop(self) -> Report:
        """Ask the node to stop; it withdraws what it offers and leaves the mesh. On the node's machine only."""
        return await _run(self.address, calls.stop())


class Stream:
    """An answer as it is written: iterate over its text, or over its `steps`. It is asked when the first is wanted, and
    cancelled when the stream is closed, left by `async with`, or forgotten."""

    def __init__(self, address: Address, call: Call[None]) -> None:
        self._gathering = Gathering()
        self._steps = _steps(address, call, self._gathering)

    def steps(self) -> AsyncGenerator[Step, None]:
        """Everything that happens: `route`, `text`, `vector`, `labels`, `retry` and at last `done`."""
        return self._steps

    def __aiter__(self) -> AsyncIterator[str]:
        return (step.text async for step in self._steps if step.text)

    async def answer(self) -> Answer:
        """The whole answer: waits for its end."""
        async with self:
            async for _ in self._steps:
                pass
        return self._gathering.answer()

    @property
    def so_far(self) -> Answer:
        """What is known of the answer by now: all of it at the end."""
        return self._gathering.answer()

    async def aclose(self) -> None:
        """The node stops working on it, unless it was done."""
        await self._steps.aclose()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


async def _steps(address: Address, call: Call[None], gathering: Gathering) -> AsyncGenerator[Step, None]:
    async with aclosing(_lines(address, call)) as lines:
        async for told in lines:
            step = Step(calls.step_of(told))
            gathering.add(step)
            yield step


async def _run(address: Address, call: Call[T]) -> T:
    async with _open(address, call) as (reader, exchange):
        while not exchange.complete:
            exchange.feed(await _received(reader, call.silence_s))
    return exchange.result()


async def _lines(address: Address, call: Call[Any]) -> AsyncGenerator[Any, None]:
    async with _open(address, call) as (reader, exchange):
        while True:
            for line in exchange.lines():
                yield line
            if exchange.complete:
                return
            exchange.feed(await _received(reader, call.silence_s))


@asynccontextmanager
async def _open(address: Address, call: Call[T]) -> AsyncIterator[tuple[asyncio.StreamReader, Exchange[T]]]:
    """The request, sent; errors of the system in our words."""
    exchange = Exchange(call, address)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await _connect(address)
        try:
            writer.write(exchange.request)
            async with asyncio.timeout(call.silence_s):
                await writer.drain()
            yield reader, exchange
        finally:
            writer.close()
    except OSError as exc:  # asyncio's TimeoutError is one
        raise translated(exc, address) from exc


async def _received(reader: asyncio.StreamReader, within_s: float) -> bytes:
    """Not by wait_for, which in Python 3.11 loses a cancellation that comes together with bytes."""
    async with asyncio.timeout(within_s):
        return await reader.read(READ_BYTES)


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.socket is not None:
        return await asyncio.open_unix_connection(address.socket)
    trust = (address.trust or True) if address.secure else None
    return await asyncio.open_connection(address.host, address.port, ssl=trust)
