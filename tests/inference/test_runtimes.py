"""Servers that come and go: a real one (llama.cpp's), the watch over places, and a node that offers what it finds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil
import pytest

import atmo.node.node
import atmo.node.runtimes
import atmo.node.services
from atmo.clock import SystemClock
from atmo.config import load
from atmo.errors import EngineUnavailable, NoRoute
from atmo.gateway.handle import AskRequest, RouteRequest
from atmo.generation import Finish, Form, Piece, Prefix, Sampling, Task, Turn
from atmo.inference.engine import EngineEvent, ModelSpec
from atmo.inference.engines import installed_llama_engines
from atmo.inference.engines.http_upstream import Access
from atmo.inference.remote import RemoteModel
from atmo.inference.runtimes import USUAL_PORTS, Place, RuntimeWatch, Seen, look
from atmo.mesh.rows import Kind
from atmo.node.node import Node
from tests.gateway.support import free_port
from tests.inference.gguf_maker import song, write_parrot
from tests.inference.http_servers import (
    OLLAMA_SHOW,
    OLLAMA_TAGS,
    OPENAI_MODELS,
    FakeServer,
    Reply,
    Request,
    as_json,
    as_lines,
    fake,
)
from tests.inference.running import until

CLOCK = SystemClock()
REAL_SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 4096
params.n_parallel = 2
params.use_jinja = True
params.ui = False
params.cache_ram_mib = 0
params.fit_params = False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def llama_server(model: Path) -> AsyncIterator[str]:
    """llama.cpp's own server in a process of its own, on a port that the kernel gave. Yields its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        REAL_SERVER,
        str(model),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        address = (await asyncio.wait_for(process.stdout.readline(), 60.0)).decode().strip()
        yield address if address.startswith("http") else f"http://{address}"
    finally:
        process.kill()
        await process.wait()
    assert not psutil.pid_exists(process.pid)


@pytest.mark.asyncio
@pytest.mark.skipif("xllamacpp" not in installed_llama_engines(), reason="xllamacpp is not installed")
async def test_a_real_server_is_found_asked_and_left(tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "parrot.gguf")
    async with llama_server(model) as url:
        seen = await look(Place(Access(url)), CLOCK)
        assert seen.kind == "openai", seen
        (found,) = seen.models
        assert (found.type, found.context) == ("chat", 2048)
        assert 0 < seen.latency_s < 2.0
        remote = await _started(ModelSpec(name=found.name, kind="remote", path=url, engine="openai", slots=2))
        sung = Task((Turn("user", "sing"),), Sampling(max_tokens=12))
        pieces, finish = await _heard(remote, sung)
        assert "".join(piece.text for piece in pieces) == song(12)
        assert (finish.reason, finish.output_tokens) == ("length", 12)
        assert finish.prompt_tokens > 4
        raw, _ = await _heard(remote, Task((Turn("user", "xabc"),), Sampling(max_tokens=3), Form(raw=True)))
        assert "".join(piece.text for piece in raw) == "def"
        begun = Task(sung.turns, Sampling(max_tokens=3), prefix=Prefix("", (), "abc"))
        rest, _ = await _heard(remote, begun)
        assert "".join(piece.text for piece in rest) == "def", "an answer that was begun is gone on with"
        schema = Form(schema=json.dumps({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}))
        held, _ = await _heard(remote, Task((Turn("user", "x"),), Sampling(max_tokens=200), schema))
        assert json.loads("".join(piece.text for piece in held)) == [1, 1]
        async with aclosing(remote.chat(Task((Turn("user", "sing"),)))) as endless:
            await anext(endless)
        assert remote.load().slots_busy == 0
    with pytest.raises(EngineUnavailable, match="takes no connections"):
        await _heard(remote, sung)
    assert (await look(Place(Access(url)), CLOCK)).gone
    await remote.close()


NEEDS = ("sse-starlette", "starlette-context", "pydantic-settings", "python-dotenv")  # that server, and nobody here


@pytest.mark.soak
@pytest.mark.asyncio
@pytest.mark.skipif("llama-cpp-python" not in installed_llama_engines(), reason="llama-cpp-python is not installed")
async def test_the_server_of_llama_cpp_python_is_found_and_asked_and_never_begins_an_answer_anew(
    tmp_path: Path,
) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), *NEEDS]
    if (await (await asyncio.create_subprocess_exec(*pip)).wait()) != 0:
        pytest.skip("what its server needs cannot be installed")
    model, port = write_parrot(tmp_path / "parrot.gguf"), free_port()
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port)),
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60.0):
            while not (seen := await look(Place(Access(url)), CLOCK)).models:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.1)
        (found,) = seen.models
        assert (seen.kind, found.name, found.type) == ("openai", str(model), "chat")
        remote = await _started(ModelSpec(name=found.name, kind="remote", path=url, engine="openai", slots=2))
        sung = Task((Turn("user", "sing"),), Sampling(max_tokens=12))
        pieces, finish = await _heard(remote, sung)
        assert ("".join(piece.text for piece in pieces), finish.reason) == (song(12), "length")
        with pytest.raises(EngineUnavailable, match="cannot go on"):
            await _heard(remote, Task(sung.turns, Sampling(max_tokens=3), prefix=Prefix("", (), "abc")))
        raw = Task((Turn("user", "xa"),), Sampling(max_tokens=3), Form(raw=True), Prefix("", (), "bc"))
        assert "".join(piece.text for piece in (await _heard(remote, raw))[0]) == "def"
        await remote.close()
    finally:
        server.kill()
        await server.wait()
    assert (await look(Place(Access(url)), CLOCK)).gone


async def _started(spec: ModelSpec) -> RemoteModel:
    events: list[EngineEvent] = []
    remote = RemoteModel(spec, events.append, CLOCK)
    await remote.start()
    assert [event.state for event in events] == ["ready"]
    return remote


async def _heard(remote: RemoteModel, task: Task) -> tuple[list[Piece], Finish]:
    async with aclosing(remote.chat(task)) as parts:
        found = [part async for part in parts]
    assert isinstance(found[-1], Finish)
    return [part for part in found if isinstance(part, Piece)], found[-1]


@pytest.mark.asyncio
async def test_the_watch_tells_what_comes_changes_and_goes() -> None:
    told: list[Seen] = []
    async with fake(lambda _: as_json(OPENAI_MODELS)) as server:
        watch = RuntimeWatch([Place(Access(server.url), ("openai",))], lambda _, seen: told.append(seen), CLOCK, 60.0)
        await watch.look()
        await watch.look()
        assert [[model.name for model in seen.models] for seen in told] == [["qwen2.5-7b-instruct", "nomic-embed-text"]]
        server.answer = lambda _: as_json({"data": OPENAI_MODELS["data"][:1]})
        await watch.look()
        assert [model.name for model in told[-1].models] == ["qwen2.5-7b-instruct"]
        server.answer = lambda _: Reply(500)
        await watch.look()
        assert len(told) == 2, "once may be by chance"
        await watch.look()
        assert (len(told[-1].models), "status 500" in told[-1].trouble) == (0, True)
        server.answer = lambda _: as_json(OPENAI_MODELS)
        await watch.look()
        assert len(told) == 4
    await watch.look()
    assert (told[-1].models, told[-1].gone) == ((), True), "a refused connection is no chance"
    assert [len(seen.models) for seen in told] == [2, 1, 0, 2, 0]


@pytest.mark.asyncio
async def test_a_stranger_on_a_usual_port_is_not_taken_for_a_server() -> None:
    for answer in (
        Reply(200, {}, [b"<html>hello</html>"]),
        Reply(404),
        Reply(200, {}, [b'{"data": 5}']),
        Reply(cut=True),
    ):
        async with fake(lambda _, answer=answer: answer) as server:  # type: ignore[misc]
            seen = await look(Place(Access(server.url)), CLOCK)
            assert (seen.kind, seen.models) == ("", ())


CANARY = "sk-canary-9876543210"
NODE = """
serve = []
[discovery]
runtimes_every_s = 0.1
[[runtimes]]
url = "{ollama}"
name = "studio"
[[runtimes]]
kind = "openai"
url = "{openai}/v1"
key_file = "{key}"
models = ["qwen2.5-7b-instruct"]
price = 2.0
slots = 1
"""


def ollama(request: Request) -> Reply:
    if request.path == "/api/chat":
        done = {
            "message": {"content": ""},
            "done": True,
            "done_reason": "stop",
            "eval_count": 2,
            "prompt_eval_count": 5,
        }
        return as_lines({"message": {"content": "from ollama"}, "done": False}, done)
    if request.path == "/api/embed":
        return as_json({"embeddings": [[3.0, 4.0] for _ in request.body["input"]]})
    return as_json(OLLAMA_TAGS) if request.path == "/api/tags" else as_json(OLLAMA_SHOW[request.body["model"]])


def openai(request: Request) -> Reply:
    if request.path == "/v1/models":
        return as_json(OPENAI_MODELS)
    return as_json({"error": {"message": f"key {CANARY} is broken"}}, 500)


@pytest.mark.asyncio
async def test_models_of_servers_become_capabilities_and_go_with_them(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = Logged()
    for module in (atmo.node.node, atmo.node.runtimes, atmo.node.services):
        monkeypatch.setattr(module, "log", logged)
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0o600)
    async with fake(ollama) as local, fake(openai) as paid:
        file = tmp_path / "config.toml"
        file.write_text(NODE.format(ollama=local.url, openai=paid.url, key=key))
        node = Node(load(file=file))
        await node.start()
        try:
            await _story(node, local, paid)
            rows = [row.body for kind in Kind for row in node.mesh.core.store.rows(kind)]
            seen = [node.status(), node.mesh_view(), node.models_view(), node.config, repr(node.services), rows]
        finally:
            await node.stop()
    assert "qwen2.5-7b-instruct" in str(rows), "what is looked through holds what is gossiped"
    assert "runtime" in [line[0][0] for line in logged.lines], "and what is logged"
    files = "".join(path.read_text(errors="replace") for path in _files(Path(environ["ATMO_HOME"])))
    everything = f"{seen} {logged.lines} {files}"
    assert CANARY not in everything
    assert all(CANARY in request.headers["authorization"] for request in paid.asked)


class Logged:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def info(self, *words: object, **more: object) -> None:
        self.lines.append((words, more))

    debug = warning = error = exception = info


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.asyncio
async def test_what_listens_on_the_usual_ports_is_found_unless_that_is_not_wanted(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(USUAL_PORTS) == {11434, 1234, 8000, 8080, 13305}
    async with fake(ollama) as one, fake(openai) as other:
        usual = {one.port: USUAL_PORTS[11434], other.port: USUAL_PORTS[8000]}
        monkeypatch.setattr("atmo.inference.runtimes.USUAL_PORTS", usual)
        for wanted in (True, False):
            node = Node(load(flags={"serve": []}, environ={**environ, "ATMO_DISCOVERY_RUNTIMES": str(wanted).lower()}))
            await node.start()
            try:
                await node.settled()
                found = {(seen["runtime"], seen["kind"]) for seen in node.status()["runtimes"]}
            finally:
                await node.stop()
            places = {(f"127.0.0.1:{one.port}", "ollama"), (f"127.0.0.1:{other.port}", "openai")}
            assert found == (places if wanted else set())


async def _story(node: Node, local: FakeServer, paid: FakeServer) -> None:
    offered = node.mesh.serving.services
    await until(lambda: len(offered) == 3)
    assert sorted(offered) == [
        "atmo:chat:llama3.2-3b",
        "atmo:chat:qwen2.5-7b-instruct",
        "atmo:embedding:all-minilm-latest",
    ]
    descriptor = node.services["atmo:chat:llama3.2-3b"].descriptor
    assert (descriptor.context, descriptor.modalities) == (131072, ("text", "image"))
    assert node.services["atmo:chat:qwen2.5-7b-instruct"].descriptor.price == 2.0
    assert [entry["runtime"] for entry in node.status()["runtimes"]] == ["studio", f"127.0.0.1:{paid.port}"]
    assert await _asked(node, "atmo:chat:llama3.2-3b") == "from ollama"
    with pytest.raises(EngineUnavailable, match="status 500"):
        await _asked(node, "atmo:chat:qwen2.5-7b-instruct")
    vectors = [event async for event in node.ask(AskRequest(text="x", type="embedding"))]
    assert "vector" in [event["event"] for event in vectors]
    await local.stop()
    await until(lambda: sorted(offered) == ["atmo:chat:qwen2.5-7b-instruct"])
    with pytest.raises(NoRoute):
        node.route(RouteRequest(text="x", model="atmo:chat:llama3.2-3b"))
    assert any("studio" in problem.what for problem in node.problems())
    await local.start()
    await until(lambda: len(offered) == 3)
    assert await _asked(node, "atmo:chat:llama3.2-3b") == "from ollama"


async def _asked(node: Node, model: str) -> str:
    request = AskRequest(text="Hi", model=model, timeout_s=5.0)
    return "".join([event["text"] async for event in node.ask(request) if event["event"] == "text"])


def test_an_address_tells_its_host_and_no_password() -> None:
    assert Access("https://api.openai.com/v1").host == "api.openai.com"
    assert not Access("https://api.openai.com/v1").is_local
    assert Access("http://localhost:8000").is_local
    assert Access("http://user:secret@10.0.0.1:8000").host == "10.0.0.1:8000"
