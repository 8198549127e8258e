"""Both clients against the real gateway, on both of its doors, over a node that plays what it is told."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

import atmo.client
from atmo import Client, SyncClient
from atmo.client import Filters, Options, results
from atmo.errors import (
    Forbidden,
    NodeNotRunning,
    NoRoute,
    Overloaded,
    RequestTimeout,
    Unauthorized,
    UsageError,
)
from atmo.generation import Task
from atmo.mesh.constraints import Constraints
from tests.cluster import eventually
from tests.gateway.support import HELLO, Api, Json, PlayedNode, done, route, serving, text, world

ASYNC, SYNC = "async", "sync"


class Awaited:
    """`Client` as if it waited: each call in an event loop of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *words, **named: asyncio.run(getattr(self._client, name)(*words, **named))


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """One for all: starting it takes longer than a test."""
    with world() as environ, serving(environ) as running:
        yield running


@pytest.fixture(autouse=True)
def node(api: Api) -> PlayedNode:
    api.node.forget()
    return api.node


@pytest.fixture(params=["socket", "url"])
def where(request: pytest.FixtureRequest, api: Api) -> dict[str, Any]:
    return {"socket_path": api.gateway.socket_path} if request.param == "socket" else {"url": api.gateway.url}


@pytest.fixture(params=[SYNC, ASYNC])
def client(request: pytest.FixtureRequest, where: dict[str, Any]) -> SyncClient:
    return SyncClient(**where) if request.param == SYNC else cast(SyncClient, Awaited(Client(**where)))


def test_both_clients_can_the_same() -> None:
    """Every method of one is a method of the other, with the same parameters and the same words about it."""

    def public(kind: type) -> dict[str, tuple[list[str], str | None]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: (list(inspect.signature(method).parameters), inspect.getdoc(method))
            for name, method in methods
            if not name.startswith("_")
        }

    assert public(Client) == public(SyncClient)


def test_the_filters_are_the_constraints_of_the_mesh() -> None:
    known = set(Constraints.__struct_fields__)
    assert set(Filters.__annotations__) == known - {"model", "type"}
    assert known < set(Options.__annotations__)


def test_the_page_about_the_client_leaves_nothing_out() -> None:
    """docs/client.md names every method, option, result and its parts, and nothing under these names that is none."""
    page = (Path(__file__).parents[2] / "docs/client.md").read_text()
    told = set(re.findall(r"`(\w+)(?:\(\))?`", page))
    methods = {name for name, _ in inspect.getmembers(SyncClient, inspect.isfunction) if not name.startswith("_")}
    kinds = [kind for name, kind in vars(results).items() if name in atmo.client.__all__ and name != "Message"]
    parts = {part for kind in kinds for part in _parts(kind)} - set(dir(dict))
    assert methods <= told
    assert set(Options.__annotations__) <= told
    assert {kind.__name__ for kind in kinds} - {"Report"} <= told
    assert parts <= told


def _parts(kind: type) -> set[str]:
    fields = getattr(kind, "__struct_fields__", ())
    return {*fields, *(name for name, value in vars(kind).items() if isinstance(value, property))}


def test_an_answer_is_text_and_who_gave_it(client: SyncClient, node: PlayedNode) -> None:
    answer = client.ask("Say hi.", min_tps=20, labels={"team": "a"}, model="qwen", constraints={"max_load": 2})
    assert str(answer) == answer.text == "Hello there."
    assert (answer.node, answer.capability, answer.finish) == ("office", "atmo:chat:qwen", "stop")
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (7, 3, 2)
    assert answer.decision.why.startswith("the only node")
    assert node.wishes[-1].constraints == {"min_tps": 20, "labels": {"team": "a"}, "max_load": 2}
    assert node.wishes[-1].model == "qwen"


def test_a_conversation_goes_on(client: SyncClient, node: PlayedNode) -> None:
    talk: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]
    answer = client.chat(talk)
    client.chat([*talk, answer.message, {"role": "user", "content": "And now?"}])
    asked: Any = node.wishes[-1]
    assert asked.text == "And now?"
    assert [turn.role for turn in asked.history] == ["system", "user", "assistant"]
    assert asked.history[-1].content == "Hello there."
    with pytest.raises(UsageError, match="last message"):
        client.chat([answer.message])


def test_images_come_as_files_bytes_or_urls(client: SyncClient, node: PlayedNode, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff")
    seen: Any = {"role": "user", "content": "What is this?", "images": [photo]}
    again: Any = {**seen, "images": [b"\x89PNG", "data:x"]}
    client.ask([seen, {"role": "assistant", "content": "A cat."}, again])
    asked: Any = node.wishes[-1]
    assert asked.history[0].images == ["data:image/jpeg;base64,/9j/"]
    assert asked.images == ["data:image/png;base64,iVBORw==", "data:x"]
    with pytest.raises(UsageError, match="No such file"):
        client.ask("What is this?", images=[tmp_path / "none.png"])


def test_labels_and_vectors_are_answers_too(client: SyncClient, node: PlayedNode) -> None:
    node.plays = [route(), {"event": "labels", "labels": [["negative", 0.9], ["positive", 0.1]]}, done()]
    judged = client.execute("Say whether this is praise", input="It broke.")
    assert (judged.text, judged.labels) == ("negative", (("negative", 0.9), ("positive", 0.1)))
    asked: Any = node.wishes[-1]
    assert (asked.intent, asked.text) == ("Say whether this is praise", "It broke.")
    node.plays = [route(), {"event": "vector", "vector": [0.5, -1.0]}, done()]
    assert client.execute("a vector").vector == (0.5, -1.0)


def test_texts_become_vectors_in_their_order(client: SyncClient, node: PlayedNode) -> None:
    async def embed(task: Task) -> AsyncIterator[Json]:
        yield route("gpu", "atmo:embedding:minilm")
        for turn in task.turns:
            yield {"event": "vector", "vector": [float(len(turn.content)), 0.25]}
        yield done(node="gpu", capability="atmo:embedding:minilm")

    node.plays = embed
    found = client.embed(["a", "bb", "ccc"], model="minilm", data_residency="eu")
    assert found.vectors == ((1.0, 0.25), (2.0, 0.25), (3.0, 0.25))
    assert (found.node, found.capability) == ("gpu", "atmo:embedding:minilm")
    assert node.wishes[-1].constraints == {"data_residency": "eu"}
    assert client.embed("dddd").vectors == ((4.0, 0.25),)


def test_reports_have_names_for_what_matters(client: SyncClient) -> None:
    assert client.status().name == "laptop"
    assert next((model.id, model.type, model.name, model.nodes) for model in client.models().served) == (
        "atmo:chat:qwen", "chat", "qwen2.5-7b", ["office"],
    )  # fmt: skip
    assert client.mesh().nodes == []
    assert client.route("Hi", max_load=2).node == "office"
    assert client.explain(route()["request_id"]).lines == ["office serves this."]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NoRoute("Nobody can.", hint="Ask less."), NoRoute),
        (RequestTimeout("Too late."), RequestTimeout),
        (Overloaded("Busy.", retry_after_s=0.25), Overloaded),
    ],
)
def test_errors_of_the_node_are_the_clients(
    client: SyncClient, node: PlayedNode, error: Any, kind: type[Exception]
) -> None:
    node.plays = [route(), text("Half"), error]
    with pytest.raises(kind) as told:
        client.ask("Hi")
    assert str(told.value) == str(error)
    assert getattr(told.value, "retry_after_s", None) == getattr(error, "retry_after_s", None)
    with pytest.raises(kind):
        client.embed(["Hi"])


def test_an_option_that_is_none_is_said_before_anything_is_sent(client: SyncClient, node: PlayedNode) -> None:
    wrong: Any = {"min_tsp": 3}
    for call in (client.ask, client.execute, client.route, client.embed):
        with pytest.raises(UsageError, match="Did you mean 'min_tps'"):
            call("Hi", **wrong)
    assert node.wishes == []


def test_over_tcp_a_key_is_needed_and_the_owners_calls_are_refused(environ: dict[str, str]) -> None:
    with serving(environ) as api:
        secret, _ = api.keys.create(1e9, "app", 0, 0, ())
        eventually(lambda: _refused(api), "the node has seen the key")
        client = SyncClient(url=api.url, key=secret)
        assert client.ask("Hi").text == "Hello there."
        with pytest.raises(Forbidden):
            client.members()
        assert SyncClient(socket_path=api.gateway.socket_path).members() == {"members": []}


def _refused(api: Api) -> bool:
    try:
        SyncClient(url=api.url).status()
    except Unauthorized:
        return True
    return False


# Streams


def endless(node: PlayedNode) -> None:
    async def sing(task: Task) -> AsyncIterator[Json]:
        yield route()
        while True:
            yield text("la ")
            await asyncio.sleep(0.001)

    node.plays = sing


def test_text_streams_and_the_answer_is_there_at_the_end(where: dict[str, Any]) -> None:
    with SyncClient(**where).stream("Hi") as stream:
        assert list(stream) == ["Hello", " there", "."]
        assert stream.so_far.node == "office"

    async def awaited() -> None:
        async with Client(**where).stream("Hi") as stream:
            assert [piece async for piece in stream] == ["Hello", " there", "."]
            assert stream.so_far.node == "office"

    asyncio.run(awaited())
    assert [step.kind for step in SyncClient(**where).stream("Hi").steps()] == [event["event"] for event in HELLO]


@pytest.mark.parametrize("how", ["close", "forget"])
def test_leaving_a_stream_cancels_the_work(where: dict[str, Any], node: PlayedNode, how: str) -> None:
    endless(node)
    stream = SyncClient(**where).stream("Sing")
    assert next(iter(stream)) == "la "
    assert node.open == 1
    if how == "close":
        stream.close()
    del stream
    eventually(lambda: node.open == 0, "the node stopped")


def test_a_task_that_is_cancelled_cancels_the_work(where: dict[str, Any], node: PlayedNode) -> None:
    endless(node)

    async def leave() -> None:
        task = asyncio.create_task(Client(**where).ask("Sing"))
        while not node.open:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while node.open:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 20))


def test_a_stream_that_is_forgotten_in_a_loop_is_cancelled(where: dict[str, Any], node: PlayedNode) -> None:
    endless(node)

    async def forget() -> None:
        async for _ in Client(**where).stream("Sing"):
            break
        gc.collect()
        while node.open:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(forget(), 20))


def test_events_come_to_both(where: dict[str, Any], node: PlayedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def happened(since: int, *, follow: bool) -> AsyncIterator[Json]:
        async def told() -> AsyncIterator[Json]:
            yield {"seq": since + 1, "at_s": 5.0, "event": "joined", "peer": "p", "name": "desk", "detail": "x"}

        return told()

    monkeypatch.setattr(node, "events", happened)
    (event,) = SyncClient(**where).events(7)
    assert (event.seq, event.kind, event.peer, event.name, event.detail) == (8, "joined", "p", "desk", "x")

    async def awaited() -> list[Any]:
        async with aclosing(Client(**where).events(7, follow=False)) as events:
            return [event async for event in events]

    assert asyncio.run(awaited()) == [event]


# A node that hangs


@pytest.fixture
def deaf() -> Iterator[dict[str, Any]]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield {"url": f"http://127.0.0.1:{listening.getsockname()[1]}"}


def test_a_node_that_says_nothing_is_not_waited_for_for_ever(
    deaf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atmo.client.calls.CONNECT_TIMEOUT_S", 0.05)
    for client in (SyncClient(**deaf), cast(SyncClient, Awaited(Client(**deaf)))):
        with pytest.raises(NodeNotRunning, match="does not answer"):
            client.ask("Hi", timeout_s=0.05)
        with pytest.raises(NodeNotRunning, match="does not answer"):
            client.status()


# Batches


def test_a_batch_keeps_its_order_and_its_limit_and_tells_each_error(where: dict[str, Any], node: PlayedNode) -> None:
    most = 0

    async def work(task: Task) -> AsyncIterator[Json]:
        nonlocal most
        most = max(most, node.open)
        number = int(node.wishes[-1].text)
        yield route()
        if number == 3:
            raise NoRoute("Not three.")
        await asyncio.sleep(0.02 if number % 2 else 0.001)
        yield text(f"number {number}")
        yield done()

    node.plays = work
    for client in (SyncClient(**where), cast(SyncClient, Awaited(Client(**where)))):
        outcomes = client.execute_batch((str(number) for number in range(12)), at_once=1)
        assert [outcome.number for outcome in outcomes] == list(range(12))
        assert [outcome.unwrap().text for outcome in outcomes if outcome.ok] == [
            f"number {number}" for number in range(12) if number != 3
        ]
        with pytest.raises(NoRoute, match="Not three"):
            outcomes[3].unwrap()
    assert most == 1
    assert len(SyncClient(**where).execute_batch(["1"] * 9, at_once=3)) == 9
    assert most == 3, "three at a time, and no more"


def test_who_is_told_to_come_again_comes_again(where: dict[str, Any], node: PlayedNode) -> None:
    refusals = 3

    async def busy(task: Task) -> AsyncIterator[Json]:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Overloaded("Busy.", retry_after_s=0.01)
        yield route()
        yield text("done")
        yield done()

    node.plays = busy
    client = SyncClient(**where)
    assert [outcome.unwrap().text for outcome in client.execute_batch(["a", "b"])] == ["done", "done"]
    refusals = 1000
    (outcome,) = client.execute_batch([{"intent": "a", "timeout_s": 0.05}])
    assert isinstance(outcome.error, Overloaded)


def test_jobs_have_options_of_their_own(where: dict[str, Any], node: PlayedNode) -> None:
    jobs: list[Any] = [
        {"intent": "Judge", "input": "It broke.", "min_tps": 5},
        {"intent": "Hi", "nonsense": 1},
        "Plain",
    ]
    judged, wrong, plain = SyncClient(**where).execute_batch(jobs, at_once=1, min_tps=1, max_load=2)
    assert judged.ok
    assert plain.ok
    assert isinstance(wrong.error, UsageError)
    assert node.wishes[0].constraints == {"min_tps": 5, "max_load": 2}
    assert node.wishes[1].constraints == {"min_tps": 1, "max_load": 2}
    with pytest.raises(UsageError, match="at_once"):
        SyncClient(**where).execute_batch(["a"], at_once=0)


def test_a_batch_in_the_middle_of_an_event_loop(where: dict[str, Any]) -> None:
    """As in a notebook, where a loop runs already."""

    async def notebook() -> list[str]:
        return [outcome.unwrap().text for outcome in SyncClient(**where).execute_batch(["a", "b"])]

    assert asyncio.run(notebook()) == ["Hello there."] * 2


def test_a_batch_that_is_cancelled_leaves_nothing_running(where: dict[str, Any], node: PlayedNode) -> None:
    endless(node)

    async def leave() -> None:
        task = asyncio.create_task(Client(**where).execute_batch(["a"] * 9, at_once=3))
        while node.open < 3:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while node.open:  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 20))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("atmo-batch")]


def test_the_command_line_does_not_pay_for_the_event_loop() -> None:
    code = "import sys; from atmo import SyncClient; print({'asyncio', 'http', 'ssl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
