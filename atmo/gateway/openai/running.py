"""From `Work` to events: every choice is a request of its own to the mesh, a few of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from atmo.errors import AtmoError, InferenceError
from atmo.gateway.handle import Json, NodeHandle
from atmo.gateway.openai.reading import Work
from atmo.gateway.trace import Trace
from atmo.generation import Task

# Choices of one request that are written at the same time: as many as an engine has slots by default.
AT_ONCE = 4

Event = tuple[int, Json]


@asynccontextmanager
async def running(node: NodeHandle, work: Work, trace: Trace) -> AsyncIterator[AsyncGenerator[Event, None]]:
    """(choice, event) as they come; whatever runs ends when the block is left. Events are raised as they are made:
    AtmoError."""
    events = _one(node, work, trace) if len(work.tasks) == 1 else _several(node, work, trace)
    async with aclosing(events):
        yield events


async def _one(node: NodeHandle, work: Work, trace: Trace) -> AsyncGenerator[Event, None]:
    async with aclosing(node.answer(work.wish, work.tasks[0], work.timeout_s)) as events:
        async for event in events:
            trace.hear(event)
            yield 0, event


async def _several(node: NodeHandle, work: Work, trace: Trace) -> AsyncGenerator[Event, None]:
    ready: asyncio.Queue[Event | AtmoError | None] = asyncio.Queue()
    turn = asyncio.Semaphore(AT_ONCE)
    tasks = [
        asyncio.create_task(_choice(node, work, at, task, turn, ready), name=f"choice {at}")
        for at, task in enumerate(work.tasks)
    ]
    left = len(tasks)
    try:
        while left:
            item = await ready.get()
            if isinstance(item, AtmoError):
                raise item
            if item is None:
                left -= 1
                continue
            trace.hear(item[1], lead=item[0] == 0, prompt=item[0] % work.per_prompt == 0)
            yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _choice(
    node: NodeHandle,
    work: Work,
    at: int,
    task: Task,
    turn: asyncio.Semaphore,
    ready: asyncio.Queue[Event | AtmoError | None],
) -> None:
    try:
        async with turn, aclosing(node.answer(work.wish, task, work.timeout_s)) as events:
            async for event in events:
                ready.put_nowait((at, event))
    except AtmoError as error:
        ready.put_nowait(error)
    except Exception as error:
        failed = InferenceError(f"The node failed: {type(error).__name__}.", hint="See its log.")
        failed.__cause__ = error
        ready.put_nowait(failed)
    else:
        ready.put_nowait(None)
