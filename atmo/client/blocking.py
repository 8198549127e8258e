"""`SyncClient`: for scripts, threads and the command line. It waits on a socket and needs no event loop."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from atmo.client import calls
from atmo.client.address import Address, address_of, find_socket, translated
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
from atmo.config import Config, load

if TYPE_CHECKING:
    import ssl
    from typing import Self, Unpack

T = TypeVar("T")
READ_BYTES = 1 << 16
# Requests of a batch that are on their way at the same time.
AT_ONCE = 8


class Door:
    """What both clients begin with: where the node is."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        url: str = "",
        key: str = "",
        node: str = "",
        socket_path: Path | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Without arguments: a node of this user on this machine, the configured one first. node: the one of this name;
        url: of a node anywhere, with the API key that it asks for; trust: whose certificates count behind https."""
        if url:
            self.address = address_of(url, key, trust)
        else:
            self.address = Address(socket=socket_path or find_socket(config or load(), node))

    @classmethod
    def at(cls, address: Address) -> Self:
        """Of a node whose address is known."""
        made = cls.__new__(cls)
        made.address = address
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address.shown}>"


class SyncClient(Door):
    """Talk to a node; nothing is held open between calls. Every method raises an AtmoError: the node's own, or
    NodeNotRunning. Which options and filters there are say `Options` and `Filters`.

    >>> client = SyncClient()                                      # doctest: +SKIP
    >>> print(client.ask("What is Atmosphere?", min_tps=20))       # doctest: +SKIP
    """

    def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Answer:
        """Ask, and wait for the whole answer. prompt: a text, or a conversation that ends with the user's turn."""
        return self.stream(prompt, **options).answer()

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> SyncStream:
        """Ask, and get the answer as it is written. Closing the stream cancels the request."""
        return SyncStream(self.address, calls.ask(prompt, options))

    def chat(self, messages: Sequence[Message], **options: Unpack[Options]) -> Answer:
        """Go on with a conversation; `Answer.message` is its next turn."""
        options.setdefault("type", "chat")
        return self.ask(messages, **options)

    def embed(self, texts: str | Sequence[str], **options: Unpack[Wishes]) -> Embeddings:
        """Texts as vectors, all of one model."""
        return _run(self.address, calls.embed([texts] if isinstance(texts, str) else texts, options))

    def execute(self, intent: str, input: str = "", **options: Unpack[Options]) -> Answer:
        """Have something done by whatever capability fits the intent: a chat, a classifier, an embedding.

        input: what it is to be done with. The intent alone decides where it goes; a chat reads it as its instruction.
        """
        return SyncStream(self.address, calls.execute(intent, input, options)).answer()

    def execute_batch(
        self, jobs: Iterable[Intent], *, at_once: int = AT_ONCE, **options: Unpack[Options]
    ) -> list[Outcome]:
        """Execute many, so many of them at once: outcomes in the order of the jobs, each an answer or an error.

        jobs: intents, or dicts with `intent`, `input` and options of their own. Whoever is refused because all are busy
        comes again when it was told to, until its time is over.
        """
        from atmo.client.batch import execute_batch_now

        return execute_batch_now(self.address, jobs, at_once, options)

    def route(self, text: str, **options: Unpack[Options]) -> Decision:
        """Where `text` would go and why; nothing is sent."""
        return _run(self.address, calls.route(text, options))

    def explain(self, request_id: str) -> Decision:
        """The decision that was made for a request some time ago."""
        return _run(self.address, calls.explain(request_id))

    def models(self) -> Models:
        """Models that the mesh serves."""
        return _run(self.address, calls.models())

    def events(self, since: int = 0, *, follow: bool = True) -> Iterator[Event]:
        """What happened at the node after event number `since`, as far as it is kept, and then what happens.

        Ends when the node stops, or at once without `follow`. A `pulse` each second says that nothing happened; a node
        that says nothing for longer than CONNECT_TIMEOUT_S raises NodeNotRunning.
        """
        return (Event(told) for told in _lines(self.address, calls.events(since, follow=follow)))

    def mesh(self) -> Mesh:
        """All nodes this node knows, with their capabilities and load."""
        return _run(self.address, calls.mesh())

    def status(self) -> Status:
        """The node itself: name, address, capabilities and their state, problems."""
        return _run(self.address, calls.status())

    def members(self) -> Report:
        """Who belongs to the mesh, by which invite, until when; on the node's machine only."""
        return _run(self.address, calls.members())

    def revoke(self, whom: str) -> Report:
        """Take back a member or an invite; only on a machine of the mesh's owner."""
        return _run(self.address, calls.revoke(whom))

    def stop(self) -> Report:
        """Ask the node to stop; it withdraws what it offers and leaves the mesh. On the node's machine only."""
        return _run(self.address, calls.stop())


class SyncStream:
    """An answer as it is written: iterate over its text, or over its `steps`. It is asked when the first is wanted, and
    cancelled when the stream is closed, left by `with`, or forgotten."""

    def __init__(self, address: Address, call: Call[None]) -> None:
        self._gathering = Gathering()
        self._steps = _steps(address, call, self._gathering)

    def steps(self) -> Generator[Step, None, None]:
        """Everything that happens: `route`, `text`, `vector`, `labels`, `retry` and at last `done`."""
        return self._steps

    def __iter__(self) -> Iterator[str]:
        return (step.text for step in self._steps if step.text)

    def answer(self) -> Answer:
        """The whole answer: waits for its end."""
        with self:
            for _ in self._steps:
                pass
        return self._gathering.answer()

    @property
    def so_far(self) -> Answer:
        """What is known of the answer by now: all of it at the end."""
        return self._gathering.answer()

    def close(self) -> None:
        """The node stops working on it, unless it was done."""
        self._steps.close()

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _steps(address: Address, call: Call[None], gathering: Gathering) -> Generator[Step, None, None]:
    """Knows the stream by its gathering alone: a stream that is forgotten must end at once, not in a cycle."""
    for told in _lines(address, call):
        step = Step(calls.step_of(told))
        gathering.add(step)
        yield step


def _run(address: Address, call: Call[T]) -> T:
    with _open(address, call) as (wire, exchange):
        while not exchange.complete:
            exchange.feed(wire.recv(READ_BYTES))
    return exchange.result()


def _lines(address: Address, call: Call[Any]) -> Iterator[Any]:
    with _open(address, call) as (wire, exchange):
        while True:
            yield from exchange.lines()
            if exchange.complete:
                return
            exchange.feed(wire.recv(READ_BYTES))


@contextmanager
def _open(address: Address, call: Call[T]) -> Iterator[tuple[socket.socket, Exchange[T]]]:
    """The request, sent; errors of the system in our words."""
    exchange = Exchange(call, address)
    try:
        with closing(_connect(address)) as wire:
            wire.settimeout(call.silence_s)
            wire.sendall(exchange.request)
            yield wire, exchange
    except OSError as exc:
        raise translated(exc, address) from exc


def _connect(address: Address) -> socket.socket:
    if address.socket is not None:
        wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wire.settimeout(CONNECT_TIMEOUT_S)
        try:
            wire.connect(str(address.socket))
        except OSError:
            wire.close()
            raise
        return wire
    wire = socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not address.secure:
        return wire
    import ssl

    trust = address.trust or ssl.create_default_context()
    return trust.wrap_socket(wire, server_hostname=address.host)
