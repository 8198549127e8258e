"""A node whose engine or backend is broken: requests succeed elsewhere, and it is left in peace until it is well."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atmo.config import Config, DiscoverySection, InferenceSection, NodeSection, RuntimeSection, ServeSection, load
from atmo.errors import AtmoError, NoRoute
from atmo.gateway.handle import AskRequest, RouteRequest
from atmo.inference.restarts import RestartPolicy
from atmo.inference.supervisor import SupervisorSettings
from atmo.mesh.budget import Budget
from atmo.mesh.calls import Observe
from atmo.node.node import Node
from tests.inference.gguf_maker import song, write_parrot
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
    return as_json({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"} for name in names]})


def broken(request: Request) -> Reply:
    return models(list(TROUBLE)) if request.body is None else TROUBLE[request.body["model"]](request)


def sound(request: Request) -> Reply:
    if request.body is None:
        return models(list(TROUBLE))
    return as_events(*singing(request), {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


@asynccontextmanager
async def two_nodes(environ: dict[str, str], near: dict[str, Any], far: dict[str, Any]) -> AsyncIterator[list[Node]]:
    """`near` and `far`, linked, each with these sections of its configuration."""
    base = load(environ=environ)
    nodes = [
        Node(
            Config(
                home=base.home,
                runtime=base.runtime,
                node=NodeSection(name=name),
                discovery=DiscoverySection(lan=False, runtimes=False, runtimes_every_s=0.2),
                **{"serve": (), **sections},
            )
        )
        for name, sections in (("near", near), ("far", far))
    ]
    try:
        for node in nodes:
            await node.start()
        await until(lambda: all(node.mesh.transport.linked() for node in nodes), "they are linked")
        yield nodes
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))


def behind(server: FakeServer) -> dict[str, Any]:
    return {"runtimes": (RuntimeSection(kind="openai", url=server.url),)}


async def ask(node: Node, model: str, timeout_s: float = 20.0, **constraints: Any) -> tuple[str, str]:
    """The answer, and who ended it."""
    request = AskRequest(text="Sing.", model=model, timeout_s=timeout_s, constraints=constraints)
    events = [event async for event in node.ask(request)]
    return "".join(event["text"] for event in events if event["event"] == "text"), events[-1]["node"]


def finished_at(node: Node) -> list[Observe]:
    """What it learns from answers, from now on."""
    finished: list[Observe] = []
    learn = node.mesh.asking._learn

    def note(seen: Observe) -> None:
        finished.extend([seen] if seen.what == "finished" else [])
        learn(seen)

    node.mesh.asking._learn = note
    return finished


def bothered(bad: FakeServer, model: str) -> int:
    return sum(request.body is not None and request.body["model"] == model for request in bad.asked)


@pytest.mark.asyncio
async def test_requests_succeed_elsewhere_and_the_breaker_of_a_broken_backend_opens(environ: dict[str, str]) -> None:
    async with fake(broken) as bad, fake(sound) as good, two_nodes(environ, behind(bad), behind(good)) as (near, _):
        await until(lambda: len(near.mesh.table) == 2 * len(TROUBLE), "near knows all offers of both")
        finished = finished_at(near)
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
        assert len(finished) == 10 * len(TROUBLE)
        assert all(seen.load is not None for seen in finished), "every answer brings its node's load"
        put_out = [event["detail"] for event in near.journal.since() if event["event"] == "ejected"]
        assert len(put_out) == len(TROUBLE)


@pytest.mark.asyncio
async def test_a_capability_whose_worker_dies_is_withdrawn_everywhere_and_comes_back(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = partial(SupervisorSettings, restarts=RestartPolicy(first_s=2.0))  # so that nobody misses that it is down
    monkeypatch.setattr("atmo.node.services.SupervisorSettings", patient)
    serving = {"serve": (ServeSection(model="atmo-tone"),)}
    async with two_nodes(environ, {}, serving) as (near, far):
        tone = "atmo:classification:atmo-tone"

        def offered() -> bool:
            row = near.mesh.table.find(far.mesh.peer, tone)
            return row >= 0 and bool(near.mesh.table.rows.ready[row])

        await until(offered, "near knows of it")
        pid = far.services[tone].report()["worker_pid"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not offered(), "near knows that it is down")
        with pytest.raises(NoRoute, match=r"\(far\) is excluded by loading or restarting"):
            near.route(RouteRequest(text="How does this sound?", model=tone))
        await until(offered, "near knows that it is back")
        assert far.services[tone].report()["worker_pid"] != pid
        assert (await ask(near, tone))[1] == "far"


@pytest.mark.asyncio
async def test_a_node_that_stops_ends_what_it_began_where_nobody_else_can(
    environ: dict[str, str], tmp_path: Path
) -> None:
    parrot = write_parrot(tmp_path / "parrot.gguf", blocks=2, inner=1024)  # so slow that it is stopped while it sings
    serving = {"serve": (ServeSection(model=str(parrot)),), "inference": InferenceSection(drain_s=60.0)}
    async with two_nodes(environ, {}, serving) as (near, far):
        await until(lambda: len(near.mesh.table) == 1, "near knows of it")
        asked = near.ask(AskRequest(text="sing", model="parrot", max_tokens=100, timeout_s=60.0))
        text, stopping = "", asyncio.create_task(asyncio.sleep(0))
        async for event in asked:
            assert event["event"] != "retry"
            if event["event"] == "text" and not text:
                stopping = asyncio.create_task(far.stop())
            text += event["text"] if event["event"] == "text" else ""
        assert text == song(100)
        await stopping
