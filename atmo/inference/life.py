"""One life of a worker, from its start to its death: its process, its channel and the requests it is working on.

Every request gets its frames through a queue of its own. When the worker dies, each open request is told at once.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from atmo.errors import EngineUnavailable, ProtocolError
from atmo.generation import Finish, Piece, Task
from atmo.inference.channel import Channel
from atmo.inference.engine import ModelFacts, ModelSpec
from atmo.inference.process import Exit, WorkerProcess
from atmo.inference.protocol import (
    Bye,
    Cancel,
    Chat,
    Classify,
    Count,
    Counted,
    Done,
    Embed,
    Failed,
    FromWorker,
    Labels,
    Load,
    Look,
    Ping,
    Pong,
    Ready,
    Said,
    ToWorker,
    Vectors,
    decode_from_worker,
    raised,
)

_LOAD_ID = 0
_EXIT_WITHIN_S = 2.0  # from the end of the connection to that of the process; a guess
_Expected = TypeVar("_Expected", Done, Vectors, Labels, Counted)


@dataclass
class _Death:
    """Put into every open request's queue when the worker is gone."""

    error: EngineUnavailable


@dataclass
class Life:
    """name: of the model, for messages. `dead` is done when the process is gone and every request has been told."""

    name: str
    worker: WorkerProcess
    ready: asyncio.Future[ModelFacts] = field(init=False)
    dead: asyncio.Task[str] = field(init=False)
    pong: Pong | None = None
    exit: Exit | None = None
    _channel: Channel | None = None
    _folder: tempfile.TemporaryDirectory[str] = field(init=False)
    _requests: dict[int, asyncio.Queue[FromWorker | _Death]] = field(default_factory=dict)
    _last_id: int = _LOAD_ID
    _verdict: str = ""  # why we killed it, when we did

    @classmethod
    async def begin(cls, spec: ModelSpec, nice: int) -> Life:
        """Start a worker and tell it to load; `ready` tells how that went."""
        folder = tempfile.TemporaryDirectory(prefix="atmo-engine-")
        try:
            worker, sock = await WorkerProcess.start(nice)
        except BaseException:
            folder.cleanup()
            raise
        life = cls(spec.name, worker)
        life.ready = asyncio.get_running_loop().create_future()
        life._folder = folder
        life.dead = asyncio.ensure_future(life._watch())
        try:
            life._channel = await Channel.open(sock, life._on_frame, life._on_end)
        except BaseException:
            sock.close()
            life.kill("was stopped")
            await life.dead
            raise
        life._channel.send(Load(spec, folder.name))
        return life

    @property
    def open_requests(self) -> int:
        return len(self._requests)

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        """Closing the generator early cancels the request in the worker."""
        request_id, queue = self._open()
        self._send(Chat(request_id, task))
        over = False
        try:
            while not over:
                frame = await queue.get()
                if isinstance(frame, Said):
                    yield frame.piece
                    continue
                over = True
                yield _expect(frame, Done).finish
        finally:
            self._requests.pop(request_id, None)
            if not over:
                self._send(Cancel(request_id))

    async def embed(self, texts: tuple[str, ...]) -> list[list[float]]:
        return (await self._ask(lambda number: Embed(number, texts), Vectors)).vectors

    async def classify(self, text: str) -> list[tuple[str, float]]:
        return (await self._ask(lambda number: Classify(number, text), Labels)).labels

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        return (await self._ask(lambda number: Look(number, image), Labels)).labels

    async def count_tokens(self, text: str) -> int:
        return (await self._ask(lambda number: Count(number, text), Counted)).tokens

    async def ping(self) -> None:
        """Returns when the worker answered."""
        request_id, queue = self._open()
        try:
            self._send(Ping(request_id))
            frame = await queue.get()
            if isinstance(frame, Pong):
                self.pong = frame
        finally:
            self._requests.pop(request_id, None)

    def kill(self, verdict: str) -> None:
        """End it now. verdict: what to say it did, such as "did not answer for 20 s"."""
        self._verdict = self._verdict or verdict
        self.worker.kill()

    async def stop(self, within_s: float) -> None:
        """End it in good order, or after `within_s` the hard way."""
        self._verdict = self._verdict or "was stopped"
        self._send(Bye())
        done, _ = await asyncio.wait([self.dead], timeout=within_s)
        if not done:
            self.worker.kill()
            await self.dead

    async def _ask(self, frame: Callable[[int], Embed | Classify | Look | Count], kind: type[_Expected]) -> _Expected:
        request_id, queue = self._open()
        answered = False
        try:
            self._send(frame(request_id))
            answer = _expect(await queue.get(), kind)
            answered = True
            return answer
        finally:
            self._requests.pop(request_id, None)
            if not answered:
                self._send(Cancel(request_id))

    def _open(self) -> tuple[int, asyncio.Queue[FromWorker | _Death]]:
        self._last_id += 1
        queue: asyncio.Queue[FromWorker | _Death] = asyncio.Queue()
        if self.dead.done():
            queue.put_nowait(self._death(self.dead.result()))
        self._requests[self._last_id] = queue
        return self._last_id, queue

    def _send(self, frame: ToWorker) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def _on_frame(self, body: bytes) -> None:
        frame = decode_from_worker(body)
        if isinstance(frame, Ready):
            if not self.ready.done():
                self.ready.set_result(frame.facts)
        elif isinstance(frame, Failed) and frame.id == _LOAD_ID:
            if not self.ready.done():
                self.ready.set_exception(raised(frame))
        elif frame.id in self._requests:  # else it was cancelled, and this was on its way
            self._requests[frame.id].put_nowait(frame)

    def _on_end(self, broken: str) -> None:
        """The socket is closed: the worker is dead or dying, or it sent what makes no sense and must not go on."""
        if broken:
            self.kill(f"was stopped ({broken})")
        else:
            asyncio.get_running_loop().call_later(_EXIT_WITHIN_S, self._kill_silent)

    def _kill_silent(self) -> None:
        if not self.dead.done():
            self.kill("closed its connection and was stopped")

    async def _watch(self) -> str:
        """Wait for the end of the process, then tell everybody. Returns how it ended."""
        self.exit = await self.worker.wait()
        how = self._verdict or str(self.exit)
        if self._channel is not None:
            self._channel.close()
        self._folder.cleanup()
        death = self._death(how)
        if not self.ready.done():
            self.ready.set_exception(death.error)
            self.ready.exception()  # seen, should nobody wait for it
        for queue in self._requests.values():
            queue.put_nowait(death)
        return how

    def _death(self, how: str) -> _Death:
        return _Death(
            EngineUnavailable(f"The engine of {self.name} {how}.", hint="This answer is lost; ask again in a moment.")
        )


def _expect(frame: FromWorker | _Death, kind: type[_Expected]) -> _Expected:
    """The frame, when it is of the kind that was waited for. Raises what it reports otherwise."""
    if isinstance(frame, kind):
        return frame
    if isinstance(frame, _Death):
        raise frame.error
    if isinstance(frame, Failed):
        raise raised(frame)
    raise ProtocolError(f"The engine's worker answered with {type(frame).__name__} instead of {kind.__name__}.")
