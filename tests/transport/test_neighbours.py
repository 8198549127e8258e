"""Nodes of one user find each other through the runtime folder, and the dead do not haunt it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atmo.errors import ConfigError
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import Identity
from atmo.transport.neighbours import Neighbours, NodeCard
from tests.transport.support import until


def card(name: str, peer: PeerId | None = None, port: int = 4600) -> NodeCard:
    peer = peer or Identity.generate().public
    address = Multiaddr("127.0.0.1", port, peer)
    return NodeCard(peer, MeshId(bytes(31) + b"m"), address, os.getpid(), name, "/run/x.sock")


HOLD = """
import sys
from pathlib import Path
from tests.transport.test_neighbours import card
from atmo.transport.neighbours import Neighbours
held = Neighbours(Path(sys.argv[1]))
held.announce(card("other process"))
print("ready", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_card_is_seen_by_another_process_s_eyes_until_it_is_withdrawn(tmp_path: Path) -> None:
    one, other = Neighbours(tmp_path / "run"), Neighbours(tmp_path / "run")
    mine = card("kitchen")
    one.announce(mine)
    assert other.list() == [mine]
    one.withdraw(mine.peer)
    assert other.list() == []


def test_the_folder_and_the_card_are_closed_to_others(tmp_path: Path) -> None:
    one = Neighbours(tmp_path / "run")
    one.announce(card("private"))
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "run", *(tmp_path / "run").rglob("*"))]
    assert sorted(modes) == [0o600, 0o700, 0o700]
    asyncio.run(one.close())


def test_a_killed_node_s_card_is_removed_by_whoever_looks(tmp_path: Path) -> None:
    process = other_process(tmp_path / "run")
    neighbours = Neighbours(tmp_path / "run")
    try:
        assert [seen.name for seen in neighbours.list()] == ["other process"]
    finally:
        kill(process)
    assert neighbours.list() == []
    assert not list((tmp_path / "run" / "nodes").iterdir())


def test_a_card_can_be_replaced_by_its_own_node_only(tmp_path: Path) -> None:
    one, other = Neighbours(tmp_path / "run"), Neighbours(tmp_path / "run")
    first = card("first")
    one.announce(first)
    second = card("second", first.peer, 4700)
    one.announce(second)
    assert other.list() == [second]
    with pytest.raises(ConfigError, match="runs already"):
        other.announce(card("copy", first.peer))
    asyncio.run(one.close())
    other.announce(card("successor", first.peer))
    assert [seen.name for seen in one.list()] == ["successor"]
    asyncio.run(other.close())


def test_watching_tells_who_comes_changes_and_goes(tmp_path: Path) -> None:
    async def story() -> None:
        watcher, node = Neighbours(tmp_path / "run"), Neighbours(tmp_path / "run")
        found: list[NodeCard] = []
        lost: list[NodeCard] = []
        watcher.announce(card("the watcher itself"))
        watcher.watch(found.append, lost.append)
        first = card("first")
        node.announce(first)
        await until(lambda: found == [first])
        moved = card("first", first.peer, 4700)
        node.announce(moved)
        await until(lambda: found == [first, moved])
        await node.close()
        await until(lambda: lost == [moved])
        await watcher.close()
        await watcher.close()

    asyncio.run(story())


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 5000, b'{"peer": 5}', b'{"peer": "\xff"}'])
def test_a_damaged_card_is_ignored(tmp_path: Path, content: bytes) -> None:
    neighbours = Neighbours(tmp_path / "run")
    path = tmp_path / "run" / "nodes" / "x.json"
    path.write_bytes(content)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # or it would count as stale and not be read at all
        assert neighbours.list() == []
        assert path.exists()
    assert neighbours.list() == []
    assert not path.exists()


def test_a_folder_that_others_can_open_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o755)
    with pytest.raises(ConfigError, match="open to other users") as caught:
        Neighbours(tmp_path / "run")
    assert "chmod 700" in caught.value.hint


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="not a folder"):
        Neighbours(tmp_path / "link")
    with pytest.raises(ConfigError, match=r"cannot be used|not a folder"):
        Neighbours(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Neighbours(tmp_path / "run")
