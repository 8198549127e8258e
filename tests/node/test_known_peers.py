"""A node remembers whom it was linked to: its file, and a restart where nothing else would bring it back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from atmo.clock import ManualClock
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import Identity
from atmo.node import known_peers
from atmo.node.known_peers import DIALS, FORGET_S, MAX_KNOWN, KnownPeers
from tests.cluster import Cluster, Outcome, atmo, eventually
from tests.node.test_invites import free_port

MESH = MeshId(Identity(bytes(32)).public)
NOBODY: frozenset[PeerId] = frozenset()


def address(number: int) -> Multiaddr:
    return Multiaddr("10.0.0.1", 1000 + number, peer(number))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def known(folder: Path, clock: ManualClock) -> KnownPeers:
    return KnownPeers(folder, MESH, clock.wall)


def remembered(folder: Path, clock: ManualClock, *numbers: int) -> None:
    """A node was linked to these, the last of them last, and stopped."""
    before = known(folder, clock)
    for number in numbers:
        before.linked(peer(number), address(number))
    asyncio.run(before.close())


def test_the_last_peers_are_remembered_the_latest_first(tmp_path: Path) -> None:
    clock = ManualClock()
    remembered(tmp_path, clock, *range(MAX_KNOWN + 10), 20)

    after = known(tmp_path, clock).addresses()

    assert len(after) == MAX_KNOWN
    assert after[:3] == [address(20), address(MAX_KNOWN + 9), address(MAX_KNOWN + 8)]
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_cannot_be_dialled_or_was_not_seen_for_a_month_is_forgotten(tmp_path: Path) -> None:
    clock = ManualClock()
    before = known(tmp_path, clock)
    before.linked(peer(1), address(1))
    clock.advance(FORGET_S / 2)
    before.linked(peer(2), address(2))
    before.linked(peer(3), None)
    asyncio.run(before.close())
    clock.advance(FORGET_S / 2)

    assert known(tmp_path, clock).addresses() == [address(2)]


def test_another_mesh_has_other_peers(tmp_path: Path) -> None:
    remembered(tmp_path, ManualClock(), 1)

    assert KnownPeers(tmp_path, MeshId(peer(9)), ManualClock().wall).addresses() == []


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91\x92\x01\x02", b"garbage" * 100])
def test_a_damaged_file_is_as_good_as_none_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    clock = ManualClock()
    remembered(tmp_path, clock, 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)

    assert known(tmp_path, clock).addresses() == []
    remembered(tmp_path, clock, 2)
    assert known(tmp_path, clock).addresses() == [address(2)]


def test_they_are_dialled_a_few_at_a_time_until_somebody_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_peers, "DIALS_EVERY_S", 0.01)
    remembered(tmp_path, ManualClock(), *range(3 * DIALS))
    dialled: list[Multiaddr] = []

    async def story() -> None:
        peers = known(tmp_path, ManualClock())
        peers.start(dialled.append, lambda: frozenset({peer(1)}) if len(dialled) > DIALS else NOBODY)
        while len(dialled) <= DIALS:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # enough for the rest, which must not come
        await peers.close()

    asyncio.run(story())

    assert dialled == [address(number) for number in reversed(range(DIALS, 3 * DIALS))]


@pytest.fixture
def folder(environ: dict[str, str]) -> Iterator[Path]:
    made = Path(environ["ATMO_HOME"]).parent
    yield made
    for name in ("anna", "ben"):
        atmo("node", "stop", "--all", ATMO_RUNTIME=str(made / f"r-{name}"))
    Cluster(made).stop_all()


def test_a_killed_node_comes_back_by_itself_without_seed_or_discovery(folder: Path) -> None:
    """Two nodes that cannot see each other's runtime folder. Ben comes back at another port, so Anna cannot find him."""

    def start(name: str, port: int, *flags: str) -> Outcome:
        words = ("node", "start", "--name", name, "--serve", "atmo-tone", "--port", str(port), "--json", *flags)
        outcome = atmo(*words, ATMO_RUNTIME=str(folder / f"r-{name}"))
        assert outcome.code == 0, outcome.err
        return outcome

    def sees_anna() -> bool:
        outcome = atmo("mesh", "--json", ATMO_RUNTIME=str(folder / "r-ben"))
        nodes = outcome.json["nodes"] if outcome.code == 0 else []
        return any(node["name"] == "anna" and node["linked"] for node in nodes)

    anna = start("anna", free_port()).json["node"]["address"]
    ben = start("ben", free_port(), "--seed", anna).json["node"]["pid"]
    eventually(sees_anna, "they are linked by the seed")
    eventually(lambda: list((folder / "home" / "nodes" / "ben").glob("peers-*")), "Anna is remembered")
    os.kill(ben, signal.SIGKILL)

    start("ben", free_port())

    eventually(sees_anna, "they are linked by memory")
