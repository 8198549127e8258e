"""What a node's API costs: the same request to a fake upstream directly and to a node that has the same answer ready.

Both are asked in turns over one connection each, by the same few lines of socket code, so that the difference is the
node's: HTTP, JSON, routing, the mesh's request path and back. Then from many connections, and by clients that leave.
With `--with-litellm` LiteLLM's proxy stands beside them, in front of the same upstream, installed for that purpose.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil

from atmo.errors import AtmoError
from bench import litellm, processes
from bench.harness import Context, Outcome, Pair, Series
from bench.upstream import ENDLESS, MODEL

DIRECT, NODE, AGAIN, LITELLM = "direct", "node", "direct, again", "LiteLLM"
NAMED, AUTO = "model named", "model auto"
START_LIMIT_S = 30.0
NOTE = "one connection, at the client's socket"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rounds, streams: requests each way; windows of window_s for each number of connections, each way."""

    rounds: int
    streams: int
    warm_up: int
    window_s: float
    windows: int
    connections: list[int]
    departures: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    with ExitStack() as stack:
        upstream = stack.enter_context(_server("direct", context.folder))
        node = stack.enter_context(_server("node", context.folder))
        ports = {DIRECT: upstream.port, NODE: node.port, AGAIN: upstream.port}
        proxy = stack.enter_context(litellm.proxy(context, upstream.port)) if litellm.wanted() else None
        if proxy is not None:
            ports[LITELLM] = proxy.port
        outcomes = _one_by_one(context, sizes, ports)
        outcomes += _many_at_once(context, sizes, ports)
        outcomes.append(_chosen(context, sizes, node))
        outcomes.append(_memory("node", node.pid))
        if proxy is not None:
            outcomes.append(_memory(LITELLM, proxy.pid))
        outcomes.append(_departures(context, sizes, node))
    return outcomes


class Server:
    """One of bench.upstream's, in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        told = self.line()
        self.port, self.pid = int(told["port"]), int(told["pid"])

    def line(self) -> dict[str, int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AtmoError("A server of the scenario ended by itself.")
        told: dict[str, int] = json.loads(line)
        return told


@contextmanager
def _server(kind: str, folder: Path) -> Iterator[Server]:
    world = processes.World(folder)
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.upstream", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=world.environment,
        )
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(processes.GRACE_S * 2)
        if process.stdout is not None:
            process.stdout.close()


# One by one


def _one_by_one(context: Context, sizes: Sizes, ports: dict[str, int]) -> list[Outcome]:
    whole = _in_turns(context, sizes.rounds, sizes.warm_up, ports, stream=False)
    context.say("whole answers asked")
    first = _in_turns(context, sizes.streams, sizes.warm_up, ports, stream=True)
    context.say("streams asked")
    outcomes: list[Outcome] = []
    for what, taken in (("whole answer", whole), ("first streamed token", first)):
        series = {way: Series(f"{what}, {way}", "ms", ms, NOTE) for way, ms in taken.items()}
        outcomes += [
            Pair(f"{what}, {way} against direct", series[way], series[DIRECT]) for way in taken if way != DIRECT
        ]
    over = [ours - direct for ours, direct in zip(whole[NODE], whole[DIRECT], strict=True)]
    outcomes.append(Series("overhead of each whole answer", "ms", over, "node less direct, asked one after the other"))
    return outcomes


def _chosen(context: Context, sizes: Sizes, node: Server) -> Pair:
    """By itself, for reading the texts takes the caches from whoever is asked next."""
    taken = _in_turns(context, sizes.streams, sizes.warm_up, {NAMED: node.port, AUTO: node.port}, stream=False)
    named, auto = (Series(f"whole answer, node, {way}", "ms", taken[way], NOTE) for way in (NAMED, AUTO))
    context.say("models chosen")
    return Pair("what it costs that the mesh chooses the model", auto, named)


def _in_turns(
    context: Context, rounds: int, warm_up: int, ports: dict[str, int], *, stream: bool
) -> dict[str, list[float]]:
    """Milliseconds of each request, by way; the order within each round is drawn."""
    taken: dict[str, list[float]] = {way: [] for way in ports}
    request = _request(MODEL, stream=stream)
    ask = _first_token_ms if stream else _whole_ms
    with ExitStack() as stack:
        links = {way: stack.enter_context(_dial(port)) for way, port in ports.items()}
        for number in range(warm_up + rounds):
            for way in context.chance.sample(list(ports), len(ports)):
                # No text comes twice, or the encoder would remember it.
                ms = ask(links[way], _request("auto", number, stream=stream) if way == AUTO else request)
                if number >= warm_up:
                    taken[way].append(ms)
    return taken


def _dial(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=30.0)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _request(model: str, number: int = 0, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": f"Say word {number:06}, please, and then some more."}]
    body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer none\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    return head + body


def _whole_ms(link: socket.socket, request: bytes) -> float:
    begun_ns = time.perf_counter_ns()
    link.sendall(request)
    heard = link.recv(65536)
    while b"\r\n\r\n" not in heard:
        heard += link.recv(65536)
    left = _body_bytes(heard)
    while left > 0:
        left -= len(link.recv(65536))
    return (time.perf_counter_ns() - begun_ns) / 1e6


def _body_bytes(heard: bytes) -> int:
    """How much of a reply's body is still to come. Raises AtmoError for a refusal."""
    head, _, body = heard.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise AtmoError(f"Refused: {heard[:500]!r}.")
    lower = head.lower()
    at = lower.index(b"content-length:")
    return int(lower[at + 15 :].split(b"\r\n", 1)[0]) - len(body)


def _first_token_ms(link: socket.socket, request: bytes) -> float:
    begun_ns = time.perf_counter_ns()
    link.sendall(request)
    heard, first_ns = b"", 0
    while not heard.endswith(b"0\r\n\r\n"):
        heard += link.recv(65536)
        if not first_ns and b" word" in heard:
            first_ns = time.perf_counter_ns()
    if not heard.startswith(b"HTTP/1.1 200"):
        raise AtmoError(f"Refused: {heard[:500]!r}.")
    return (first_ns - begun_ns) / 1e6


# Many at once


def _many_at_once(context: Context, sizes: Sizes, ports: dict[str, int]) -> list[Outcome]:
    ways = [way for way in ports if way != AGAIN]
    outcomes: list[Outcome] = []
    for count in sizes.connections:
        per_request: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(sizes.windows):
            for way in context.chance.sample(ways, len(ways)):
                done = asyncio.run(_window(ports[way], count, sizes.window_s))
                per_request[way].append(sizes.window_s * 1e3 / done)
        for way, ms in per_request.items():
            rate = 1e3 / (sum(ms) / len(ms))
            note = (
                f"windows of {sizes.window_s:g} s, whole answers; {rate:.0f} requests/s; the client shares the machine"
            )
            outcomes.append(Series(f"time per request at {count} connections, {way}", "ms", ms, note))
        context.say(f"{count} connections asked")
    return outcomes


async def _window(port: int, count: int, for_s: float) -> int:
    """Requests answered within the window."""
    request = _request(MODEL, stream=False)
    ends_s = time.perf_counter() + for_s
    return sum(await asyncio.gather(*(_connection(port, request, ends_s) for _ in range(count))))


async def _connection(port: int, request: bytes, ends_s: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    try:
        while time.perf_counter() < ends_s:
            writer.write(request)
            left = _body_bytes(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(left)
            done += 1
    finally:
        writer.close()
        await writer.wait_closed()
    return done


def _memory(way: str, pid: int) -> Series:
    """Of a process with its children, resident, after all that."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    note = "resident, after all requests" + ("; text encoder included" if way == NODE else "")
    return Series(f"memory, {way}", "MB", [sum(one.memory_info().rss for one in family) / 1e6], note)


# Clients that leave


def _departures(context: Context, sizes: Sizes, node: Server) -> Series:
    """From the client's close to the service's cancellation, by the machine's monotonic clock."""
    taken_ms = []
    for _ in range(sizes.departures):
        link = _dial(node.port)
        link.sendall(_request(ENDLESS, stream=True))
        _until(link, lambda heard: b" word" in heard)
        left_ns = time.monotonic_ns()
        link.close()
        taken_ms.append((node.line()["freed_ns"] - left_ns) / 1e6)
    context.say(f"{sizes.departures} clients left")
    return Series("slot free after its client left", "ms", taken_ms, "a stream was cut after its first word")


def _until(link: socket.socket, enough: Callable[[bytes], bool]) -> None:
    heard = b""
    while not enough(heard):
        more = link.recv(65536)
        if not more:
            raise AtmoError(f"The node hung up: {heard[:500]!r}.")
        heard += more
