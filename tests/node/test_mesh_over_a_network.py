"""Three hosts in network namespaces of their own: cables are pulled, packets late and lost.

Needs root (`ip netns`). A short line is a bridge of the kernel's; a long one, where packets are late and lost, is
carried by long_line.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from atmo.mesh.suspicion import patience_s
from atmo.mesh.timing import MeshTiming
from tests.node.members import Member, eventually, know, mesh
from tests.node.network import Network, NoNetwork

DEAD_WITHIN_S = MeshTiming().probe_s + patience_s(MeshTiming().suspicion_s, 3, 9) + 2.0


HOSTS = ("a", "b", "c")


@contextmanager
def skipped_without() -> Iterator[None]:
    try:
        yield
    except NoNetwork as error:
        pytest.skip(str(error))


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(f"atmo-{os.getpid()}", HOSTS)
    try:
        with skipped_without():
            network.create()
        yield network
    finally:
        network.destroy()


def test_a_pulled_cable_is_noticed_and_all_is_well_when_it_is_back(network: Network) -> None:
    with skipped_without():
        cable = network.bridge()
    asyncio.run(_pull_and_plug(network, cable))


def test_the_same_over_a_long_line_that_loses_packets(network: Network) -> None:
    """A tenth of a second there and back, and one packet in fifty never arrives."""
    with skipped_without(), network.long_line(delay_ms=40.0, jitter_ms=10.0, loss=0.02) as cable:
        asyncio.run(_pull_and_plug(network, cable))


async def _pull_and_plug(network: Network, cable: Callable[[str, str], None]) -> None:
    async with mesh(3, [network.where(host) for host in HOSTS]) as (a, b, c):
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
