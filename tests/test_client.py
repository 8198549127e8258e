"""The client finds its node by itself, or says that there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from atmo.client import SyncClient, find_socket, running_nodes
from atmo.config import load
from atmo.errors import NodeNotRunning


def announce(environ: dict[str, str], name: str, pid: int) -> None:
    folder = Path(environ["ATMO_RUNTIME"]) / "nodes"
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"name": name, "peer_id": name, "pid": pid, "address": "/ip4/127.0.0.1/tcp/1", "api": f"/run/{name}.sock"}
    (folder / f"{name}.json").write_text(json.dumps(entry))


def test_without_a_node_it_says_how_to_start_one(environ: dict[str, str]) -> None:
    with pytest.raises(NodeNotRunning, match="atmo node start"):
        SyncClient()


def test_the_configured_node_comes_first_then_any(environ: dict[str, str]) -> None:
    announce(environ, "zoe", os.getpid())
    announce(environ, "anna", os.getpid())
    assert find_socket(load()) == Path("/run/anna.sock")
    assert find_socket(load({"node.name": "zoe"})) == Path("/run/zoe.sock")
    assert find_socket(load(), "zoe") == Path("/run/zoe.sock")
    with pytest.raises(NodeNotRunning, match="Running: anna, zoe"):
        find_socket(load(), "ben")


def test_a_node_that_died_is_not_mistaken_for_a_running_one(environ: dict[str, str]) -> None:
    announce(environ, "ghost", 2**22 + 1)
    (Path(environ["ATMO_RUNTIME"]) / "nodes" / "torn.json").write_text('{"name": ')
    assert running_nodes(load()) == []


def test_a_socket_nobody_listens_on_is_no_node(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(NodeNotRunning):
        SyncClient(socket_path=tmp_path / "none.sock").status()
