"""An engine as a capability: whose turn it is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from atmo.clock import SystemClock
from atmo.config import load
from atmo.generation import Sampling, Task, Turn
from atmo.mesh.service import Question
from atmo.node.offers import offers
from atmo.node.services import EngineService
from tests.inference.gguf_maker import write_parrot
from tests.inference.running import until


def question(name: str, *, own: bool, max_tokens: int = 3) -> Question:
    return Question(name.encode(), Task((Turn("user", "sing"),), Sampling(max_tokens=max_tokens)), 60.0, own)


@pytest.mark.asyncio
@pytest.mark.parametrize(("own_first", "expected"), [("true", ["own", "peer"]), ("false", ["peer", "own"])])
async def test_who_asks_at_this_machine_goes_first_if_that_is_wanted(
    environ: dict[str, str], tmp_path: Path, own_first: str, expected: list[str]
) -> None:
    wanted = {"ATMO_INFERENCE_OWN_FIRST": own_first, "ATMO_INFERENCE_SLOTS": "1"}
    config = load(flags={"serve": [str(write_parrot(tmp_path / "parrot.gguf"))]}, environ={**environ, **wanted})
    (offer,) = offers(config)
    service = EngineService(offer, config.inference, SystemClock(), lambda _: None)
    served: list[str] = []

    async def ask(name: str, *, own: bool) -> None:
        async for _ in service.answer(question(name, own=own)):
            pass
        served.append(name)

    await service.start()
    try:
        await service.settled()
        async with aclosing(service.answer(question("long", own=False, max_tokens=0))) as endless:
            await anext(endless)
            peer = asyncio.create_task(ask("peer", own=False))
            await until(lambda: service.load().queued == 1)
            own = asyncio.create_task(ask("own", own=True))
            await until(lambda: service.load().queued == 2)
        await asyncio.gather(peer, own)
    finally:
        await service.close()
    assert served == expected
