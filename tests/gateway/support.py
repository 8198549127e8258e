"""A gateway on real sockets over a node that plays what it is told: the double of `NodeHandle`."""

from __future__ import annotations

import asyncio
import http.client as http_client
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import openai
import structlog

from atmo.clock import SystemClock
from atmo.config import Config, GatewaySection, NodeSection, load
from atmo.errors import AtmoError, NoRoute, UsageError
from atmo.gateway import audit, entrance, policy
from atmo.gateway import gateway as gateway_module
from atmo.gateway.api_keys import KeyFile
from atmo.gateway.gateway import Gateway
from atmo.gateway.handle import AskRequest, RouteRequest, Wish
from atmo.generation import Task

Json = dict[str, Any]
T = TypeVar("T")
MESH_ID = "00112233445566778899aabbccddeeff"
WAIT_S = 10.0
LINES = structlog.processors.KeyValueRenderer()


def route(node: str = "office", capability: str = "atmo:chat:qwen") -> Json:
    chosen = {"node": node, "capability": capability, "why": "the only node of its class that can serve this"}
    return {"event": "route", "request_id": MESH_ID, "asked_at": "laptop", "chosen": chosen, "elapsed_s": 0.0002}


def text(said: str, **more: Any) -> Json:
    return {"event": "text", "text": said, "token_ids": tuple(range(len(said.split()))), **more}


def done(finish: str = "stop", *, node: str = "office", capability: str = "atmo:chat:qwen", **counts: int) -> Json:
    counted = {"prompt_tokens": 7, "output_tokens": 3, "cached_tokens": 2, **counts}
    return {"event": "done", "node": node, "capability": capability, "local": False, "finish": finish, **counted}


HELLO: list[Json] = [route(), text("Hello"), text(" there"), text("."), done()]


@contextmanager
def world() -> Iterator[dict[str, str]]:
    """A home and a runtime folder, as the `environ` fixture makes them, for as long as its user likes."""
    folder = Path(tempfile.mkdtemp(prefix="atmo-test-"))
    try:
        yield {"ATMO_HOME": str(folder / "home"), "ATMO_RUNTIME": str(folder / "run")}
    finally:
        shutil.rmtree(folder)


def _hello() -> list[Json | AtmoError]:
    return list(HELLO)


@dataclass
class PlayedNode:
    """Answers every request with `plays`: a list of events, AtmoErrors among them are raised; or with what a function
    makes of the task. It remembers what it was asked."""

    plays: list[Json | AtmoError] | Callable[[Task], AsyncIterator[Json]] = field(default_factory=_hello)
    served: tuple[tuple[str, str], ...] = (("atmo:chat:qwen", "qwen2.5-7b"), ("atmo:embedding:minilm", "minilm-l6"))
    wishes: list[Wish] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)
    open: int = 0
    stopped: bool = False

    def status(self) -> Json:
        engines = [{"id": identity, "state": "ready"} for identity, _ in self.served]
        return {"node": {"name": "laptop", "pid": 1}, "capabilities": engines}

    def mesh_view(self) -> Json:
        return {"nodes": []}

    def models_view(self) -> Json:
        told = {"description": "For tests.", "examples": ["Say hi."], "nodes": ["office"]}
        return {"served": [{"id": one, "model": model, **told} for one, model in self.served]}

    def transfers_view(self) -> Json:
        return {"transfers": []}

    def stop_fetch(self, root: str) -> Json:
        return {"stopped": False}

    def fetch(self, wanted: str) -> Json:
        return {"fetching": wanted}

    async def events(self, since: int, *, follow: bool) -> AsyncGenerator[Json, None]:
        yield {"event": "note", "number": since}

    def members_view(self) -> Json:
        return {"members": []}

    def counters(self) -> Json:
        engine = {"id": "atmo:chat:qwen", "queued": 0, "in_flight": 1, "slots": 4, "ready": True}
        lanes = {"gossip": {"frames_in": 3, "bytes_in": 300, "frames_out": 4, "bytes_out": 400}}
        return {"uptime_s": 1.5, "peers": 2, "rows": {"node": 3}, "engines": [engine], "lanes": lanes}

    def revoke(self, whom: str) -> Json:
        return {"revoked": whom}

    def route(self, request: RouteRequest) -> Json:
        return route()

    def explained(self, request_id: str) -> Json:
        if request_id != MESH_ID:
            raise UsageError("There is no such decision.")
        return {"chosen": {"node": "office"}, "lines": ["office serves this."]}

    async def ask(self, request: AskRequest) -> AsyncGenerator[Json, None]:
        async for event in self.answer(request, Task(()), request.timeout_s):
            yield event

    async def answer(self, wish: Wish, task: Task, timeout_s: float) -> AsyncGenerator[Json, None]:
        self.wishes.append(wish)
        self.tasks.append(task)
        self.timeouts_s.append(timeout_s)
        if wish.model and wish.model not in {name for pair in self.served for name in (pair[0].split(":")[2], *pair)}:
            raise NoRoute("No node can serve this.", hint="Least to change: the model.")
        self.open += 1
        try:
            if callable(self.plays):
                async for event in self.plays(task):
                    yield event
                return
            for play in self.plays:
                await asyncio.sleep(0)
                if isinstance(play, AtmoError):
                    raise play
                yield play
        finally:
            self.open -= 1

    def forget(self) -> None:
        """Be as new."""
        self.plays = _hello()
        for heard in (self.wishes, self.tasks, self.timeouts_s):
            heard.clear()

    def want_stop(self) -> None:
        self.stopped = True


@dataclass
class Api:
    """A gateway that runs in a thread of its own."""

    node: PlayedNode
    gateway: Gateway
    config: Config
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        """Of the whole API; OpenAI's is below it."""
        return self.gateway.url.removesuffix("/v1")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def keys(self) -> KeyFile:
        return KeyFile(self.config.api_keys)

    def client(self, key: str = "none", **more: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.url, api_key=key, max_retries=0, timeout=WAIT_S, **more)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)


@contextmanager
def serving(
    environ: dict[str, str], node: PlayedNode | None = None, mode: str = "participant", **section: Any
) -> Iterator[Api]:
    """A gateway on a port that the kernel gives, unless `section` says otherwise."""

    base = load(environ=environ)
    config = Config(
        home=base.home,
        runtime=base.runtime,
        node=NodeSection(mode=mode),
        gateway=GatewaySection(**{"port": free_port(), **section}),
    )
    config.node_home.mkdir(parents=True, exist_ok=True)
    _log_here()
    played = node or PlayedNode()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gateway under test")
    thread.start()

    async def begin() -> Gateway:
        gateway = Gateway(played, config, base.runtime / "api.sock", SystemClock())
        await gateway.start()
        return gateway

    try:
        gateway = asyncio.run_coroutine_threadsafe(begin(), loop).result(WAIT_S)
        try:
            yield Api(played, gateway, config, loop)
        finally:
            asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(WAIT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


def _log_here() -> None:
    """As a node logs, without a memory of where: each test has a standard output of its own."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, LINES],
        cache_logger_on_first_use=False,
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.PrintLoggerFactory(),
    )
    for module in (entrance, gateway_module, policy, audit):
        module.log = structlog.get_logger("atmo.gateway")  # type: ignore[attr-defined]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


def http(
    api: Api, method: str, path: str, body: Any = None, *, unix: bool = False, key: str = "", **headers: str
) -> Answer:
    """One request by hand. body: a dict as JSON, anything else as it is; headers with _ for -."""
    connection = http_client.HTTPConnection("127.0.0.1", api.port, timeout=WAIT_S)
    if unix:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(api.gateway.socket_path))
    sent = {"Content-Type": "application/json"} if body is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, sent)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "Say hi."}]}
