"""Many jobs, some of them at a time, with an outcome for each.

So many workers take jobs one after the other, so a batch may be longer than memory is willing to hold requests for, and
its jobs may come from a generator. One that fails costs the others nothing; a batch that is cancelled takes all its
requests with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from atmo.client.address import Address
from atmo.client.options import Intent, Options, check, job_of, timeout_of
from atmo.client.results import Answer, Outcome
from atmo.client.waiting import Client
from atmo.errors import AtmoError, Overloaded, UsageError


async def execute_batch(client: Client, jobs: Iterable[Intent], at_once: int, options: Options) -> list[Outcome]:
    """Raises UsageError for options that no job could use; what is wrong with one job is in its outcome."""
    if at_once < 1:
        raise UsageError(f"at_once is {at_once}.", hint="At least one has to be on its way.")
    check(options)
    outcomes: list[Outcome] = []
    waiting = enumerate(jobs)
    workers = [asyncio.create_task(_work(client, waiting, options, outcomes)) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return sorted(outcomes, key=lambda outcome: outcome.number)


async def _work(
    client: Client, waiting: Iterator[tuple[int, Intent]], options: Options, outcomes: list[Outcome]
) -> None:
    for number, job in waiting:
        try:
            outcomes.append(Outcome(number=number, answer=await _execute(client, job, options)))
        except AtmoError as error:
            outcomes.append(Outcome(number=number, error=error))


async def _execute(client: Client, job: Intent, options: Options) -> Answer:
    intent, given, own = job_of(job, options)
    ends_s = time.monotonic() + timeout_of(own)
    while True:
        try:
            return await client.execute(intent, given, **own)
        except Overloaded as busy:
            if time.monotonic() + busy.retry_after_s >= ends_s:
                raise
            await asyncio.sleep(busy.retry_after_s)


def execute_batch_now(address: Address, jobs: Iterable[Intent], at_once: int, options: Options) -> list[Outcome]:
    """For those without an event loop, or in the middle of one: in a loop of its own, in a thread of its own."""
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def batch() -> list[Outcome]:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await execute_batch(Client.at(address), jobs, at_once, options)

    with ThreadPoolExecutor(1, thread_name_prefix="atmo-batch") as thread:
        ended = thread.submit(lambda: asyncio.run(batch()))
        try:
            return ended.result()
        except BaseException:  # Ctrl-C while it waits: nobody wants the rest
            if running and not ended.done():
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise
