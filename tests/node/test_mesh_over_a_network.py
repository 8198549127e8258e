"""Three hosts in network namespaces of their own: cables are pulled, packets late and lost.

Needs root (`ip netns`). A short line is a bridge of the kernel's; a long one, where packets are late and lost, is
carried by long_line.py. Everything it makes lives in its namespaces and goes with them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atmo.mesh.suspicion import patience_s
from atmo.mesh.timing import MeshTiming
from tests.node.members import Member, eventually, know, mesh

DEAD_WITHIN_S = MeshTiming().probe_s + patience_s(MeshTiming().suspicion_s, 3, 9) + 2.0


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"not permitted or not there: `{' '.join(words)}` said {done.stderr.strip()!r}")


ADDRESSES = {"a": "10.213.7.1", "b": "10.213.7.2", "c": "10.213.7.3"}


class Network:
    """Hosts a, b, c."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def create(self) -> None:
        for host in ADDRESSES:
            run("ip", "netns", "add", self.space(host))
            run("ip", "-n", self.space(host), "link", "set", "lo", "up")

    def bridge(self) -> Callable[[str, str], None]:
        """One cable each into the bridge of the namespace `hub`; `(what, host)` unplugs and plugs."""
        hub = self.space("hub")
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", hub, "link", "set", "bridge", "up")
        for host, address in ADDRESSES.items():
            space = self.space(host)
            run(
                *("ip", "link", "add", "cable", "netns", space),
                *("type", "veth", "peer", "name", f"to-{host}", "netns", hub),
            )
            run("ip", "-n", hub, "link", "set", f"to-{host}", "master", "bridge", "up")
            run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", space, "link", "set", "cable", "up")
        state = {"unplug": "down", "plug": "up"}
        return lambda what, host: run("ip", "-n", hub, "link", "set", f"to-{host}", state[what])

    @contextmanager
    def long_line(self, delay_ms: float, jitter_ms: float, loss: float) -> Iterator[Callable[[str, str], None]]:
        """One cable each into a line on which packets are late and lost."""
        if not Path("/dev/net/tun").exists():
            pytest.skip("a long line needs tun devices, and this kernel has none")
        hosts = [f"{self.space(host)}={address}" for host, address in ADDRESSES.items()]
        weather = [str(delay_ms), str(jitter_ms), str(loss)]
        line = subprocess.Popen(
            [sys.executable, "-m", "tests.node.long_line", *weather, *hosts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert line.stdin is not None
        assert line.stdout is not None
        with line, line.stdin as commands:
            assert line.stdout.readline() == "ready\n"
            yield lambda what, host: print(what, ADDRESSES[host], file=commands, flush=True)

    def hosts(self) -> list[tuple[str, tuple[str, ...]]]:
        execute = ("ip", "netns", "exec")
        return [(address, (*execute, self.space(host))) for host, address in ADDRESSES.items()]

    def space(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def destroy(self) -> None:
        for host in (*ADDRESSES, "hub"):
            ip("netns", "delete", self.space(host))


@pytest.fixture
def network() -> Iterator[Network]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux and root")
    network = Network(f"atmo-{os.getpid()}")
    try:
        network.create()
        yield network
    finally:
        network.destroy()


def test_a_pulled_cable_is_noticed_and_all_is_well_when_it_is_back(network: Network) -> None:
    asyncio.run(_pull_and_plug(network, network.bridge()))


def test_the_same_over_a_long_line_that_loses_packets(network: Network) -> None:
    """A tenth of a second there and back, and one packet in fifty never arrives."""
    with network.long_line(delay_ms=40.0, jitter_ms=10.0, loss=0.02) as cable:
        asyncio.run(_pull_and_plug(network, cable))


async def _pull_and_plug(network: Network, cable: Callable[[str, str], None]) -> None:
    async with mesh(3, network.hosts()) as (a, b, c):
        everyone = {a.name, b.name, c.name}
        await know([a, b, c], everyone)
        await eventually(lambda: c.noted("joined", b) and c.noted("joined", a), "c is linked to both")

        cable("unplug", "c")
        await eventually(lambda: all(m.noted("lost", c) for m in (a, b)), "the loss is noticed", 2.5)
        await eventually(lambda: all(m.noted("dead", c) for m in (a, b)), "c is dead to the others", DEAD_WITHIN_S)
        await know([a, b], {a.name, b.name}, 2.0)
        await know([c], {c.name}, DEAD_WITHIN_S)

        cable("plug", "c")
        await know([a, b, c], everyone, 40.0)
        assert all(member.noted("refuted", c) for member in (a, b))
        assert _never_dead([a, b])


def _never_dead(members: list[Member]) -> bool:
    return not any(one.noted("dead", other) for one in members for other in members)
