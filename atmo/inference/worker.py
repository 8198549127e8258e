"""A process that holds one model: `python -m atmo.inference.worker FD NICE`, started by the supervisor and by nobody
else.

FD is one end of a socket pair, inherited. There is no port and no file, so no other user of the machine can speak to
a worker, and none can be left behind: when the node ends, however it ends, the socket reports its end and the kernel
sends the signal asked for below. Only what an engine needs is imported here; start time is measured in bench/.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from atmo.errors import AtmoError, InferenceError
from atmo.generation import Finish
from atmo.inference.channel import Channel
from atmo.inference.engine import Engine
from atmo.inference.engines import open_engine
from atmo.inference.protocol import (
    Bye,
    Cancel,
    Chat,
    Classify,
    Count,
    Counted,
    Done,
    Embed,
    Frame,
    Labels,
    Load,
    Look,
    Ping,
    Pong,
    Ready,
    Said,
    Vectors,
    decode_to_worker,
    failed,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OOM_SCORE = 500  # of 1000, a guess: when memory runs out the kernel should take a worker, not the node


class Worker:
    """Answers the parent's frames with one engine. Ends when the parent says so or is gone."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._engine: Engine | None = None
        self._channel: Channel | None = None
        self._ended = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        self._channel = await Channel.open(sock, self._on_frame, lambda _: self._ended.set())
        await self._ended.wait()

    def _on_frame(self, body: bytes) -> None:
        frame = decode_to_worker(body)
        if isinstance(frame, Bye):
            self._ended.set()
        elif isinstance(frame, Ping):
            self._send(_pong(frame.id))
        elif isinstance(frame, Cancel):
            task = self._tasks.get(frame.id)
            if task is not None:
                task.cancel()
        elif isinstance(frame, Load):
            self._start(0, self._load(frame))
        else:
            self._start(frame.id, self._serve(frame))

    def _start(self, request_id: int, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._guarded(request_id, work))
        self._tasks[request_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request_id, None))

    async def _guarded(self, request_id: int, work: Awaitable[None]) -> None:
        try:
            await work
        except AtmoError as error:
            self._send(failed(request_id, error))
        except Exception as error:  # a bug in an engine costs this request, not the others; what it was is on stderr
            print(f"{type(error).__name__} in the engine: {_first_line(error)}", file=sys.stderr, flush=True)
            at = "on this request" if request_id else "while it loaded the model"
            broken = InferenceError(f"The engine failed {at} ({type(error).__name__}).")
            self._send(failed(request_id, broken))

    async def _load(self, frame: Load) -> None:
        self._engine = open_engine(frame.spec, Path(frame.socket_folder))
        _leave_folder(frame.socket_folder)
        self._send(Ready(self._engine.facts))

    async def _serve(self, frame: Chat | Embed | Classify | Look | Count) -> None:
        if self._engine is None:
            raise InferenceError("No model is loaded yet.")
        if isinstance(frame, Chat):
            await self._chat(self._engine, frame)
        elif isinstance(frame, Embed):
            self._send(Vectors(frame.id, await self._engine.embed(frame.texts)))
        elif isinstance(frame, Classify):
            self._send(Labels(frame.id, await self._engine.classify(frame.text)))
        elif isinstance(frame, Look):
            self._send(Labels(frame.id, await self._engine.classify_image(frame.image)))
        else:
            self._send(Counted(frame.id, await self._engine.count_tokens(frame.text)))

    async def _chat(self, engine: Engine, frame: Chat) -> None:
        async with aclosing(engine.chat(frame.task)) as parts:
            async for part in parts:
                if isinstance(part, Finish):
                    self._send(Done(frame.id, part))
                else:
                    self._send(Said(frame.id, part))

    def _send(self, frame: Frame) -> None:
        if self._channel is not None:
            self._channel.send(frame)


def _leave_folder(folder: str) -> None:
    """Once the engine runs its folder is empty: take it away now, as nobody can after a `kill -9` of the node."""
    os.chdir("/")
    try:
        os.rmdir(folder)
    except OSError:
        pass  # in use, where sockets cannot lose their names: the node removes it


def _first_line(error: Exception) -> str:
    """Enough to find the bug. Errors of our own parsers may quote their input, so it is cut short."""
    return str(error).splitlines()[0][:200] if str(error) else ""


def _pong(request_id: int) -> Pong:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Pong(request_id, _rss_bytes(), used.ru_utime + used.ru_stime)


def _rss_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc: the peak is the best there is, in KiB but on macOS, where it is in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _bind_to_parent() -> None:
    """Die with the parent even while C code holds the interpreter, and be the first to go when memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the node's business
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    except OSError:
        pass  # not allowed in some containers; only the order of victims changes


def main(arguments: list[str], leave: Callable[[int], None] = os._exit) -> None:
    _bind_to_parent()
    os.nice(int(arguments[1]))
    sock = socket.socket(fileno=int(arguments[0]))
    asyncio.run(Worker().run(sock))
    sys.stderr.flush()
    leave(0)  # the engine's own teardown is slow and has nothing to save


if __name__ == "__main__":
    main(sys.argv[1:])
