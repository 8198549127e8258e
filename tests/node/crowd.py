"""Many mesh nodes in few processes: real sockets, real keys, no engines. A crowd is one process with several nodes.

As a program (`python -m tests.node.crowd`) it is the child: it reads JSON commands, one a line, and answers each with
one line. The first, `{"root": hex, "nodes": n, "name": text}`, makes the nodes, called `name-0`, `name-1`, ...;
its answer is their addresses. When its input ends the nodes leave the mesh.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atmo.clock import SystemClock
from atmo.errors import AtmoError
from atmo.generation import Finish, Piece, Task, Turn
from atmo.ids import MeshId, PeerId, parse_multiaddr
from atmo.keys import CurveKeys, Identity, issue_credential
from atmo.mesh.asking import Job
from atmo.mesh.capability import EMBEDDING_DIM, Capability, Descriptor, Load
from atmo.mesh.constraints import Constraints
from atmo.mesh.node import MeshNode
from atmo.mesh.query import Query
from atmo.mesh.rows import Kind, NodeInfo
from atmo.mesh.service import Answer, Question
from atmo.transport.zeromq import ZmqTransport

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


# The test's end


@dataclass
class Crowd:
    """A process with some nodes. names, addresses: of its nodes, in their order."""

    process: asyncio.subprocess.Process
    name: str
    nodes: int
    addresses: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [f"{self.name}-{number}" for number in range(self.nodes)]

    async def call(self, what: str, **details: Any) -> Any:
        """The answer to one command."""
        self.tell(what, **details)
        return await self.hear()

    def tell(self, what: str, **details: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"the process of crowd {self.name} has ended"
        return json.loads(line)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                await asyncio.wait_for(self.process.wait(), 20.0)
            except TimeoutError:
                self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def crowds(*sizes: int) -> AsyncIterator[list[Crowd]]:
    """Crowds of these sizes, in one mesh; every node is told where the first one is."""
    root = Identity.generate().secret.hex()
    made: list[Crowd] = []
    try:
        for number, nodes in enumerate(sizes):
            crowd = Crowd(await _start(), f"c{number}", nodes)
            made.append(crowd)
            crowd.tell("begin", root=root, nodes=nodes, name=crowd.name)
        for crowd in made:
            crowd.addresses = await crowd.hear()
        for crowd in made:
            await crowd.call("dial", address=made[0].addresses[0])
        yield made
    finally:
        await asyncio.gather(*(crowd.close() for crowd in made))


async def _start() -> asyncio.subprocess.Process:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.node.crowd"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 22,
        env={**environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


# The child


class Echo:
    """A service that says who it is."""

    def __init__(self, capability_id: str, name: str) -> None:
        self._name = name
        self._load = Load(capability_id, 0, 1, 0, 0.0, 0.0, 0.0, True)

    async def answer(self, question: Question) -> AsyncGenerator[Answer, None]:
        yield Piece(f"I am {self._name}.")
        yield Finish(reason="stop")

    def load(self) -> Load:
        return self._load


def capability(number: int) -> Capability:
    descriptor = Descriptor(id=f"atmo:chat:echo-{number}", type="chat", description="Says who it is. " * 20)
    return Capability(descriptor, "none", (bytes([number % 128 + 1]) * EMBEDDING_DIM,))


class Child:
    """The nodes of this process, and what can be asked of them."""

    nodes: list[MeshNode]
    names: list[str]

    async def begin(self, root: str, nodes: int, name: str) -> list[str]:
        owner = Identity(bytes.fromhex(root))
        self.nodes = [_make(owner) for _ in range(nodes)]
        self.names = [f"{name}-{number}" for number in range(nodes)]
        for node, called in zip(self.nodes, self.names, strict=True):
            await node.start()
            address = str(node.transport.address)
            node.introduce(NodeInfo(name=called, addresses=(address,), mode="provider", software="-"))
        return [str(node.transport.address) for node in self.nodes]

    async def dial(self, address: str) -> None:
        for node in self.nodes:
            node.discovered(parse_multiaddr(address))

    async def known(self) -> list[list[str]]:
        """The names in each node's table."""
        return [_names(node) for node in self.nodes]

    async def links(self) -> list[Json]:
        """Of each node: how many links it has, how many neighbours, and whether it takes the mesh for a small one."""
        return [
            {
                "links": len(node.transport.linked()),
                "neighbours": len(node.core.fabric.overlay.active),
                "everyone": node.core.fabric.everyone,
            }
            for node in self.nodes
        ]

    async def offer(self, node: int, number: int) -> None:
        made = capability(number)
        self.nodes[node].offer(made, Echo(made.descriptor.id, self.names[node]))

    async def holders(self, number: int) -> int:
        """How many nodes have the capability in their tables."""
        wanted = capability(number).descriptor.id
        return sum(any(row.id.key == wanted for row in node.core.store.rows(Kind.CAPABILITY)) for node in self.nodes)

    async def strangers(self, node: int) -> list[str]:
        """The names of nodes to which this one has no link."""
        asker = self.nodes[node]
        rows = asker.core.store.rows(Kind.NODE)
        linked = asker.transport.linked() | {asker.peer}
        return [row.body.name for row in rows if row.id.origin not in linked and isinstance(row.body, NodeInfo)]

    async def linked_to(self, node: int, address: str) -> bool:
        return parse_multiaddr(address).peer in self.nodes[node].transport.linked()

    async def ask(self, node: int, number: int, timeout_s: float) -> Json:
        """What the node is answered that asks for this capability: `text`, or `error`."""
        asker = self.nodes[node]
        wanted = Query(asker.peer, constraints=Constraints(model=capability(number).descriptor.id))
        task = Task((Turn("user", "Who are you?"),))
        said = []
        try:
            async for reply in asker.ask(Job(task, wanted, timeout_s)):
                said += [reply.text] if isinstance(reply, Piece) else []
        except AtmoError as error:
            return {"error": type(error).__name__, "message": error.message}
        return {"text": "".join(said)}


def _make(root: Identity) -> MeshNode:
    identity, curve, clock = Identity.generate(), CurveKeys.generate(), SystemClock()
    credential = issue_credential(root, identity, curve, wall_s=clock.wall())
    mesh = MeshId(root.public)
    transport = ZmqTransport(PeerId(identity.public), curve, credential, mesh, clock=clock)
    return MeshNode(
        identity=identity,
        certificate=credential.certificate,
        mesh=mesh,
        generation=1,
        transport=transport,
        clock=clock,
        rng=random.Random(identity.public),
    )


def _names(node: MeshNode) -> list[str]:
    rows = node.core.store.rows(Kind.NODE)
    return sorted(row.body.name for row in rows if isinstance(row.body, NodeInfo))


async def live() -> None:
    child = Child()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            command = json.loads(line)
            answer = await getattr(child, command.pop("do"))(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await asyncio.gather(*(node.stop() for node in child.nodes))


if __name__ == "__main__":
    import structlog
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))  # errors only
    uvloop.run(live())
