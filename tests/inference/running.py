"""Engines in real worker processes, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil

from atmo.clock import SystemClock
from atmo.generation import Finish, Piece, Sampling, Task, Turn
from atmo.inference.engine import EngineEvent, ModelSpec
from atmo.inference.engines import installed_llama_engines
from atmo.inference.restarts import RestartPolicy
from atmo.inference.supervisor import Supervisor, SupervisorSettings

LLAMA_ENGINES = ("xllamacpp", "llama-cpp-python")
# Quick, so that a test of five restarts takes a second; what is tested does not depend on the length of the pauses.
QUICK = SupervisorSettings(
    ping_every_s=0.1, pong_within_s=5.0, restarts=RestartPolicy(first_s=0.05, most_s=0.2, quick_deaths=4)
)


def skip_reason(engine: str) -> str:
    return "" if engine in installed_llama_engines() else f"{engine} is not installed (it needs a compiler)"


def gguf_spec(path: Path, engine: str = "auto", *, context: int = 0, slots: int = 4, system: str = "") -> ModelSpec:
    return ModelSpec(
        name="parrot", kind="gguf", path=str(path), engine=engine, context=context, slots=slots, system_prompt=system
    )


def started(spec: ModelSpec, settings: SupervisorSettings = QUICK) -> tuple[Supervisor, list[EngineEvent]]:
    events: list[EngineEvent] = []
    return Supervisor(spec, events.append, SystemClock(), settings=settings), events


@asynccontextmanager
async def running(spec: ModelSpec, settings: SupervisorSettings = QUICK) -> AsyncIterator[Supervisor]:
    """A supervisor with its model loaded; afterwards neither it nor its worker is there any more."""
    supervisor, _ = started(spec, settings)
    await supervisor.start()
    pid = supervisor.pid
    try:
        await supervisor.wait_ready(30.0)
        pid = supervisor.pid
        yield supervisor
    finally:
        await supervisor.close()
        assert supervisor.load().slots_busy == 0
        assert pid is None or not psutil.pid_exists(pid)


def job(
    text: str = "sing",
    *,
    max_tokens: int = 20,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = -1,
    stop: tuple[str, ...] = (),
) -> Task:
    return Task(
        turns=(Turn("user", text),),
        sampling=Sampling(max_tokens, temperature, top_p, seed, stop),
    )


async def answer(engine: Supervisor, asked: Task) -> tuple[list[Piece], Finish]:
    """All pieces of an answer, and its end, which comes last and once."""
    pieces: list[Piece] = []
    async with aclosing(engine.chat(asked)) as parts:
        async for part in parts:
            if isinstance(part, Finish):
                assert [each async for each in parts] == []
                return pieces, part
            pieces.append(part)
    raise AssertionError("the answer has no end")


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def ids_of(pieces: list[Piece]) -> list[int]:
    return [token for piece in pieces for token in piece.token_ids]


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait for a condition of another process, looking often. Fails when it does not come true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - no event comes from there
            await asyncio.sleep(0.01)
