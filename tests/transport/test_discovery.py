"""Nodes find each other by multicast on the loopback interface, and say why when they cannot."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from atmo.ids import MeshId, Multiaddr, PeerId, format_peer
from atmo.keys import Identity
from atmo.transport import discovery
from atmo.transport.discovery import SERVICE, DiscoveryProblem, LanDiscovery, explain, read_announcement
from tests.transport.support import until

MESH = MeshId(Identity.generate().public)


class Seeker:
    """A discovery and what it found."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.address = Multiaddr("127.0.0.1", 4600, Identity.generate().public)
        self.found: list[tuple[Multiaddr, MeshId]] = []
        self.lost: list[PeerId] = []
        self.discovery = LanDiscovery(self.address, MESH, host, self._on_found, self.lost.append)

    def _on_found(self, address: Multiaddr, mesh: MeshId) -> None:
        self.found.append((address, mesh))


def test_two_nodes_find_each_other_and_notice_when_one_leaves() -> None:
    async def story() -> None:
        one, other = Seeker(), Seeker()
        await one.discovery.start()
        await other.discovery.start()
        await until(lambda: (other.address, MESH) in one.found, within_s=3.0)
        await until(lambda: (one.address, MESH) in other.found, within_s=3.0)
        await until(one.discovery.heard_itself.is_set)
        assert one.address not in [address for address, _ in one.found]
        await other.discovery.close()
        await until(lambda: other.address.peer in one.lost)
        await one.discovery.close()
        await one.discovery.close()
        assert one.discovery.problem is None

    asyncio.run(story())


def test_a_host_without_an_interface_is_a_problem_and_not_a_crash() -> None:
    async def story() -> None:
        seeker = Seeker("198.51.100.7")
        await seeker.discovery.start()
        assert "No network interface" in str(seeker.discovery.problem)
        assert "--seed" in str(seeker.discovery.problem)
        await seeker.discovery.close()

    asyncio.run(story())


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
            try:
                greedy.bind(("", 5353))  # without SO_REUSEADDR: for itself
            except OSError:
                pytest.skip("another program uses UDP port 5353 on this machine")
            seeker = Seeker()
            await seeker.discovery.start()
            assert "5353" in str(seeker.discovery.problem)
            await seeker.discovery.close()

    asyncio.run(story())


def test_packets_that_do_not_come_back_are_a_problem_until_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ECHO_WITHIN_S", 0.0)

    async def story() -> None:
        seeker = Seeker()
        await seeker.discovery.start()
        await until(lambda: seeker.discovery.problem or seeker.discovery.heard_itself.is_set())
        await until(lambda: seeker.discovery.heard_itself.is_set())
        assert seeker.discovery.problem is None
        await seeker.discovery.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "5353"),
        (errno.ENODEV, "No network interface"),
        (errno.EPERM, "may not use multicast"),
        (errno.ENOBUFS, "cannot be searched"),
    ],
)
def test_each_reason_has_its_words(number: int, words: str) -> None:
    problem = explain(OSError(number, "strerror"))
    assert isinstance(problem, DiscoveryProblem)
    assert words in problem.text
    assert problem.hint


PEER = Identity.generate().public
NAME = f"{format_peer(PEER)}.{SERVICE}"
GOOD: dict[bytes, bytes | None] = {b"mesh": format_peer(MESH).encode(), b"host": b"192.168.7.9", b"v": b"1"}
BREAK: list[Callable[[dict[bytes, Any]], Any]] = [
    lambda words: words.pop(b"mesh"),
    lambda words: words.pop(b"host"),
    lambda words: words.update({b"host": b"not a host"}),
    lambda words: words.update({b"host": b"\xff\xfe"}),
    lambda words: words.update({b"host": b"a" * 300}),
    lambda words: words.update({b"host": None}),
    lambda words: words.update({b"mesh": b"0OIl"}),
]


def test_an_announcement_in_order_is_read() -> None:
    assert read_announcement(NAME, 4600, GOOD) == (Multiaddr("192.168.7.9", 4600, PEER), MESH)


@pytest.mark.parametrize("spoil", BREAK)
def test_an_announcement_that_is_not_in_order_is_ignored(spoil: Callable[[dict[bytes, Any]], Any]) -> None:
    words = dict(GOOD)
    spoil(words)
    assert read_announcement(NAME, 4600, words) is None


def test_an_announcement_without_port_or_with_a_strange_name_is_ignored() -> None:
    assert read_announcement(NAME, None, GOOD) is None
    assert read_announcement(f"printer.{SERVICE}", 4600, GOOD) is None
