"""A node whose backend is broken: its requests succeed at another node, and the broken one is soon left in peace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atmo.config import Config, DiscoverySection, NodeSection, RuntimeSection, load
from atmo.errors import AtmoError
from atmo.gateway.handle import AskRequest
from atmo.mesh.budget import Budget
from atmo.node.node import Node
from tests.inference.http_servers import FakeServer, Reply, Request, as_events, as_json, fake
from tests.node.swarm_support import until

WORDS = ["what", "one", "began", "another", "one", "ends"]
SONG = " ".join(WORDS)


def singing(request: Request, words: int = len(WORDS)) -> list[Any]:
    """The events of an answer, behind what was begun of it: one for each word."""
    last = request.body["messages"][-1]
    begun = last["content"] if last["role"] == "assistant" else ""
    assert SONG.startswith(begun)
    rest = [word if at == 0 else f" {word}" for at, word in enumerate(WORDS)][len(begun.split()) : words]
    return [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in rest]


def half(request: Request) -> Reply:
    reply = as_events(*singing(request, 3), done=False)
    reply.cut = True
    return reply


TROUBLE: dict[str, Callable[[Request], Reply]] = {
    "500": lambda _: as_json({"error": {"message": "no"}}, 500),
    "503": lambda _: as_json({"error": {"message": "no"}}, 503),
    "429": lambda _: as_json({"error": {"message": "no"}}, 429, **{"retry-after": "7"}),
    "garbage": lambda _: Reply(parts=[b"data: {\xff\n\n", b"<html>\n"]),
    "half-a-stream": half,
    "an-empty-stream": lambda _: Reply(),
    "nothing": lambda _: Reply(cut=True),
}


def models(names: list[str]) -> Reply:
    return as_json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def broken(request: Request) -> Reply:
    return models(list(TROUBLE)) if request.body is None else TROUBLE[request.body["model"]](request)


def sound(request: Request) -> Reply:
    if request.body is None:
        return models(list(TROUBLE))
    return as_events(*singing(request), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


@asynccontextmanager
async def two_nodes(environ: dict[str, str], bad: FakeServer, good: FakeServer) -> AsyncIterator[Node]:
    """`near`, which is asked and has the broken backend, and `far`, which has the same models. Yields near."""
    base = load(environ=environ)
    near, far = (
        Node(
            Config(
                home=base.home,
                runtime=base.runtime,
                node=NodeSection(name=name),
                discovery=DiscoverySection(lan=False, runtimes=False, runtimes_every_s=0.2),
                serve=(),
                runtimes=(RuntimeSection(kind="openai", url=server.url),),
            )
        )
        for name, server in (("near", bad), ("far", good))
    )
    try:
        for node in (near, far):
            await node.start()
        await until(lambda: len(near.mesh.table) == 2 * len(TROUBLE), "near knows all offers of both")
        await until(lambda: near.mesh.transport.linked(), "they are linked")
        yield near
    finally:
        await asyncio.gather(near.stop(), far.stop())


async def ask(node: Node, model: str, timeout_s: float = 20.0, **constraints: Any) -> tuple[str, str]:
    """The answer, and who ended it."""
    request = AskRequest(text="Sing.", model=model, timeout_s=timeout_s, constraints=constraints)
    events = [event async for event in node.ask(request)]
    return "".join(event["text"] for event in events if event["event"] == "text"), events[-1]["node"]


def bothered(bad: FakeServer, model: str) -> int:
    return sum(request.body is not None and request.body["model"] == model for request in bad.asked)


@pytest.mark.asyncio
async def test_requests_succeed_elsewhere_and_the_breaker_of_a_broken_backend_opens(environ: dict[str, str]) -> None:
    async with fake(broken) as bad, fake(sound) as good, two_nodes(environ, bad, good) as near:
        for model in TROUBLE:
            near.mesh.asking.retries = Budget()
            at_once = await asyncio.gather(*(ask(near, model) for _ in range(5)))
            assert at_once == [(SONG, "far")] * 5, model
            assert 0 < bothered(bad, model) <= 5, f"{model}: it is asked, and by no request twice"

            while not near.mesh.field.ejected_s(near.mesh.peer, f"atmo:chat:{model}", near.clock.now()):
                assert bothered(bad, model) <= 10, f"{model}: its breaker opens after five failures in a row"
                with pytest.raises(AtmoError):
                    await ask(near, model, timeout_s=0.2, allow_nodes="near")
            opened = bothered(bad, model)
            for _ in range(5):
                assert await ask(near, model) == (SONG, "far"), model
            assert bothered(bad, model) == opened, f"{model}: it is left in peace"
        put_out = [event["detail"] for event in near.journal.since() if event["event"] == "ejected"]
        assert len(put_out) == len(TROUBLE)
