"""Three hosts in network namespaces of their own, joined by a bridge: cables are pulled, packets late and lost.

Needs root (`ip netns`), and `tc netem` for bad weather. Everything it makes lives in its namespaces and goes with them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Network:
    """Hosts a, b, c with one cable each into the bridge of the namespace `hub`."""

    prefix: str

    def create(self) -> None:
        run("ip", "netns", "add", self.space("hub"))
        run("ip", "-n", self.space("hub"), "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", self.space("hub"), "link", "set", "bridge", "up")
        for number, host in enumerate("abc", 1):
            space = self.space(host)
            run("ip", "netns", "add", space)
            run(
                *("ip", "link", "add", "cable", "netns", space),
                *("type", "veth", "peer", "name", f"to-{host}", "netns", self.space("hub")),
            )
            run("ip", "-n", self.space("hub"), "link", "set", f"to-{host}", "master", "bridge", "up")
            run("ip", "-n", space, "address", "add", f"10.213.7.{number}/24", "dev", "cable")
            run("ip", "-n", space, "link", "set", "cable", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")

    def weather(self, *netem: str) -> None:
        """What packets into each host suffer."""
        for host in "abc":
            run("tc", "-n", self.space("hub"), "qdisc", "add", "dev", f"to-{host}", "root", "netem", *netem)

    def unplug(self, host: str) -> None:
        run("ip", "-n", self.space("hub"), "link", "set", f"to-{host}", "down")

    def plug(self, host: str) -> None:
        run("ip", "-n", self.space("hub"), "link", "set", f"to-{host}", "up")

    def hosts(self) -> list[tuple[str, tuple[str, ...]]]:
        execute = ("ip", "netns", "exec")
        return [(f"10.213.7.{number}", (*execute, self.space(host))) for number, host in enumerate("abc", 1)]

    def space(self, host: str) -> str:
        return f"{self.prefix}-{host}"

    def destroy(self) -> None:
        for host in ("a", "b", "c", "hub"):
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
    asyncio.run(_pull_and_plug(network))


def test_the_same_over_a_long_line_that_loses_packets(network: Network) -> None:
    network.weather("delay", "40ms", "10ms", "loss", "2%")
    asyncio.run(_pull_and_plug(network))


async def _pull_and_plug(network: Network) -> None:
    async with mesh(3, network.hosts()) as (a, b, c):
        everyone = {a.name, b.name, c.name}
        await know([a, b, c], everyone)
        await eventually(lambda: c.noted("joined", b) and c.noted("joined", a), "c is linked to both")

        network.unplug("c")
        await eventually(lambda: all(m.noted("lost", c) for m in (a, b)), "the loss is noticed", 2.5)
        await eventually(lambda: all(m.noted("dead", c) for m in (a, b)), "c is dead to the others", DEAD_WITHIN_S)
        await know([a, b], {a.name, b.name}, 2.0)
        await know([c], {c.name}, DEAD_WITHIN_S)

        network.plug("c")
        await know([a, b, c], everyone, 40.0)
        assert all(member.noted("refuted", c) for member in (a, b))
        assert _never_dead([a, b])


def _never_dead(members: list[Member]) -> bool:
    return not any(one.noted("dead", other) for one in members for other in members)
