"""The plain lane: only between two that both asked for it, only models for everybody, and never a wrong byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from atmo.config import ModelsSection
from atmo.keys import Identity
from atmo.mesh.codec import chunk_head
from atmo.models.reading import Head
from atmo.transport import plain, sockets
from tests.node.swarm_support import MIB, Mover, bytes_of, movers, start_mover, until, write_model

pytestmark = pytest.mark.asyncio


def unencrypted_bytes(mover: Mover, other: Mover) -> int:
    """What left for another on the plain lane."""
    return mover.mesh.transport.stats()[other.peer].plain.bytes_out


def has_plain_way(mover: Mover, other: Mover) -> bool:
    return mover.mesh.transport._links[other.peer].plain_way is not None  # type: ignore[attr-defined]


@asynccontextmanager
async def two(folder: Path, *, wanted: tuple[bool, bool], **labels: Any) -> AsyncIterator[tuple[Mover, Mover]]:
    """An origin and a newcomer that dialled it; wanted: who of them asked for the plain lane."""
    root = Identity.generate()
    sections = [ModelsSection(plain_lane=each) for each in wanted]
    origin = await start_mover(folder / "origin", "origin", root, {}, sections[0])
    try:
        newcomer = await start_mover(folder / "newcomer", "newcomer", root, labels, sections[1])
        try:
            assert origin.mesh.transport.address is not None
            newcomer.mesh.discovered(origin.mesh.transport.address)
            await until(lambda: origin.peer in newcomer.mesh.transport.linked(), "they are linked")
            await until(lambda: newcomer.peer in origin.mesh.transport.linked(), "and know it")
            await until(lambda: newcomer.mesh.name_of(origin.peer), "they know who they are")
            await until(lambda: origin.mesh.name_of(newcomer.peer), "both of them")
            yield origin, newcomer
        finally:
            await newcomer.close()
    finally:
        await origin.close()


async def test_two_that_asked_for_it_move_a_model_for_everybody_unencrypted(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 6 * MIB)

    async with two(tmp_path, wanted=(True, True)) as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)
        await until(lambda: has_plain_way(origin, newcomer), "the plain lane stands")

        await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert unencrypted_bytes(origin, newcomer) >= 6 * MIB


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
async def test_where_one_did_not_ask_for_it_everything_is_encrypted(tmp_path: Path, wanted: tuple[bool, bool]) -> None:
    model = write_model(tmp_path / "m.bin", 2 * MIB)

    async with two(tmp_path, wanted=wanted) as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)

        await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert unencrypted_bytes(origin, newcomer) == 0


async def test_a_model_for_some_is_encrypted_all_the_same(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 2 * MIB)

    async with two(tmp_path, wanted=(True, True), ward="3") as (origin, newcomer):
        root = await origin.share(model, ward="3")
        await newcomer.knows(root, origin)
        await until(lambda: has_plain_way(origin, newcomer), "the plain lane stands")

        await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert unencrypted_bytes(origin, newcomer) == 0


async def test_a_stranger_without_a_ticket_does_not_get_beyond_the_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []
    bind = plain.PlainLane.bind

    def noted(self: plain.PlainLane, host: str, port: int) -> None:
        bind(self, host, port)
        ports.append(self._port)

    monkeypatch.setattr(plain.PlainLane, "bind", noted)
    async with movers(tmp_path, "origin", plain_lane=True) as (origin,):
        root = await origin.share(write_model(tmp_path / "m.bin", MIB))
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as stranger:
            monitor = stranger.get_monitor_socket(sockets._BROKEN | zmq.EVENT_HANDSHAKE_SUCCEEDED)
            stranger.linger = 0
            stranger.setsockopt(zmq.RECONNECT_IVL, -1)
            stranger.setsockopt(zmq.PLAIN_USERNAME, b"ticket")
            stranger.setsockopt(zmq.PLAIN_PASSWORD, b"0" * 32)
            stranger.connect(f"tcp://127.0.0.1:{ports[0]}")
            await stranger.send(chunk_head(root, 0, 0))

            event, *_ = await monitor.recv_multipart()

            assert int.from_bytes(event[:2], "little") == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            stranger.disable_monitor()
            monitor.close()


async def test_a_ticket_is_good_for_one_connection_and_only_while_its_link_lives() -> None:
    class Link:
        down = False

    tickets, alive, gone = plain.Tickets(), Link(), Link()
    first, other = tickets.issue(alive), tickets.issue(gone)  # type: ignore[arg-type]
    gone.down = True

    assert [tickets.redeem(first), tickets.redeem(first), tickets.redeem(other)] == [True, False, False]
    tickets.forget(alive)  # type: ignore[arg-type]
    assert tickets.link_of(first) is None


async def test_wrong_bytes_on_the_plain_lane_ban_nobody_and_the_rest_comes_encrypted(tmp_path: Path) -> None:
    """As if somebody on the network changed packets: the source is honest, its encrypted lane is."""
    model = write_model(tmp_path / "m.bin", 8 * MIB)

    async with two(tmp_path, wanted=(True, True)) as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)
        await until(lambda: has_plain_way(origin, newcomer), "the plain lane stands")
        genuine = origin.transfers.read

        def read(of: bytes, chunk: int, head: Head) -> memoryview:
            frame = genuine(of, chunk, head)
            linked = origin.mesh.transport.stats().get(newcomer.peer)
            if linked is not None and has_plain_way(origin, newcomer):
                frame[len(frame) // 2] ^= 1
            return frame

        origin.transfers.read = read  # type: ignore[method-assign, assignment]

        await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert newcomer.events("banned") == []
        assert not has_plain_way(newcomer, origin)
