"""Meshes of real processes without engines (bench/member.py), told what to do and listened to. Linux and macOS.

What the processes report carries the machine's monotonic clock, so times of several processes can be compared.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atmo.ids import PeerId, parse_multiaddr, short
from atmo.keys import Identity

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


class Member:
    """One node process and all it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[Json] = []
        self.address = ""
        self.peer = PeerId(bytes(32))
        self._reading = asyncio.create_task(self._read())

    @property
    def name(self) -> str:
        return f"member-{parse_multiaddr(self.address).port}"

    @property
    def label(self) -> str:
        """How others name it in their notes."""
        return short(self.peer)

    def do(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    def kill(self) -> int:
        """kill -9; the monotonic time of it, in ns."""
        at_ns = time.monotonic_ns()
        self.process.kill()
        return at_ns

    def stop(self) -> int:
        """SIGSTOP; the monotonic time of it, in ns."""
        at_ns = time.monotonic_ns()
        os.kill(self.process.pid, signal.SIGSTOP)
        return at_ns

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def noted(self, what: str, about: Member, since_ns: int = 0) -> Json | None:
        """The first note of this kind on another one, if there is one."""
        for event in self.said:
            noted = event["event"] == "note" and event["what"] == what and event["at_ns"] >= since_ns
            if noted and about.label in event["about"]:
                return event
        return None

    def last(self, event: str) -> Json | None:
        return next((found for found in reversed(self.said) if found["event"] == event), None)

    async def close(self) -> None:
        """Ended by itself when asked; killed if it does not. Stopped ones go on first."""
        if self.process.returncode is None:
            self.go_on()
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 10.0)
            except TimeoutError:
                self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))


async def eventually(true: Callable[[], Any], what: str, patience_s: float = 20.0) -> Any:
    """Wait until it is so; returns what made it so."""
    ends_s = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < ends_s, f"waited {patience_s:g} s in vain: {what}"
        await asyncio.sleep(0.02)
    return value


@asynccontextmanager
async def mesh(count: int, hosts: Sequence[tuple[str, Sequence[str]]] = ()) -> AsyncIterator[list[Member]]:
    """So many members, each told where the first is. hosts: for each the address to bind, and the command to start it
    with (such as `ip netns exec NAME`)."""
    root = Identity.generate().secret.hex()
    members: list[Member] = []
    try:
        for number in range(count):
            host, prefix = hosts[number] if hosts else ("127.0.0.1", ())
            member = Member(await _start(prefix))
            members.append(member)
            member.do(root=root, host=host, notes=True)
        for member in members:
            ready = await eventually(lambda member=member: member.last("ready"), "a node is up", 60.0)  # type: ignore[misc]
            member.address = ready["address"]
            peer = parse_multiaddr(member.address).peer
            assert peer is not None
            member.peer = peer
        for member in members[1:]:
            member.do(do="dial", addresses=[members[0].address])
        yield members
    finally:
        await asyncio.gather(*(member.close() for member in members))


async def _start(prefix: Sequence[str]) -> asyncio.subprocess.Process:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
    return await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", "bench.member",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 20,
        env={**environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


class Strain:
    """How starved of CPU this machine is: the worst oversleep of a process that wants next to nothing."""

    EVERY_S = 0.01
    # What a machine that is not overcommitted adds. Measured: 0.02 s with 24 idle nodes on two cores.
    USUAL_S = 0.05

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def __aenter__(self) -> Strain:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()

    def bar(self, seconds: float) -> float:
        """The bar, as it is where there is CPU to be had. Elsewhere a frame waits its turn in several processes."""
        return seconds if self.worst_s < self.USUAL_S else seconds + 10.0 * self.worst_s

    async def _watch(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(self.EVERY_S)
            self.worst_s = max(self.worst_s, time.monotonic() - began_s - self.EVERY_S)


async def know(members: Sequence[Member], names: set[str], patience_s: float = 20.0) -> None:
    """Wait until all of them have exactly these nodes in their tables."""
    for member in members:
        ends_s = time.monotonic() + patience_s
        while True:
            asked = len(member.said)
            member.do(do="table")
            await eventually(lambda m=member, a=asked: _answer(m, a), "a node answers", patience_s)  # type: ignore[misc]
            if set(_answer(member, asked)["nodes"]) == names:
                break
            assert time.monotonic() < ends_s, f"{member.name} knows {_answer(member, asked)['nodes']}, not {names}"
            await asyncio.sleep(0.1)


def _answer(member: Member, since: int) -> Json:
    return next((event for event in member.said[since:] if event["event"] == "table"), {})
