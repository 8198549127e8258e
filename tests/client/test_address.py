"""The client finds its node by itself, or says that there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from atmo.client import SyncClient, find_socket, running_nodes
from atmo.client.address import address_of
from atmo.config import load
from atmo.errors import NodeNotRunning, UsageError
from atmo.ids import MeshId, Multiaddr
from atmo.keys import Identity
from atmo.transport.neighbours import Neighbours, NodeCard


@pytest.fixture
def announced(environ: dict[str, str]) -> Iterator[Neighbours]:
    """The runtime folder with two nodes in it, `zoe` and `anna`, both shown by this process."""
    neighbours = Neighbours(Path(environ["ATMO_RUNTIME"]))
    for port, name in enumerate(("zoe", "anna"), start=1):
        peer = Identity.generate().public
        address = Multiaddr("127.0.0.1", port, peer)
        neighbours.announce(NodeCard(peer, MeshId(peer), address, os.getpid(), name, f"/run/{name}.sock"))
    yield neighbours
    asyncio.run(neighbours.close())


def test_without_a_node_it_says_how_to_start_one(environ: dict[str, str]) -> None:
    with pytest.raises(NodeNotRunning, match="atmo node start"):
        SyncClient()


def test_the_configured_node_comes_first_then_any(announced: Neighbours) -> None:
    assert find_socket(load()) == Path("/run/anna.sock")
    assert find_socket(load({"node.name": "zoe"})) == Path("/run/zoe.sock")
    assert find_socket(load(), "zoe") == Path("/run/zoe.sock")
    with pytest.raises(NodeNotRunning, match="Running: anna, zoe"):
        find_socket(load(), "ben")


def test_a_node_that_died_is_not_mistaken_for_a_running_one(environ: dict[str, str]) -> None:
    """Its card is there, and nobody holds the lock on it."""
    folder = Path(environ["ATMO_RUNTIME"]) / "nodes"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "ghost.json").write_text('{"name": "ghost"}')
    assert running_nodes(load()) == []


def test_a_socket_nobody_listens_on_is_no_node(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(NodeNotRunning):
        SyncClient(socket_path=tmp_path / "none.sock").status()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://desk:4680", "http://desk:4680"),
        ("http://desk:4680/v1/", "http://desk:4680"),
        ("desk:4680", "http://desk:4680"),
        ("https://mesh.example/atmo/v1", "https://mesh.example:443/atmo"),
        ("http://[::1]:4680", "http://[::1]:4680"),
    ],
)
def test_a_node_is_reached_by_the_url_that_openais_clients_take(url: str, shown: str) -> None:
    client = SyncClient(url=url, key="sk-secret")
    assert client.address.shown == shown
    assert "sk-secret" not in repr(client) + repr(client.address)


@pytest.mark.parametrize(
    "url", ["ftp://desk", "http://", "http://desk:port", "http://me:word@desk", "http://desk/?a=1"]
)
def test_what_is_no_url_of_a_node_is_said(url: str) -> None:
    with pytest.raises(UsageError, match="not "):
        address_of(url)


def test_a_key_cannot_smuggle_a_header() -> None:
    with pytest.raises(UsageError, match="key"):
        address_of("http://desk", "sk-x\r\nX-Other: 1")


def test_nobody_at_a_url_is_said_with_the_url() -> None:
    with pytest.raises(NodeNotRunning, match=r"http://127\.0\.0\.1:9"):
        SyncClient(url="http://127.0.0.1:9").status()
