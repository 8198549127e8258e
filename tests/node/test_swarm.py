"""Models that travel between real nodes: whole, from several at once, and never a wrong byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from atmo.errors import ModelNotFound, PeerUnreachable, StorageFull
from atmo.models.reading import Head
from atmo.models.swarm import IN_FLIGHT_CHUNKS
from atmo.transport.base import Frame
from tests.node.swarm_support import MIB, Mover, bytes_of, movers, until, write_model

pytestmark = pytest.mark.asyncio


def damaged(mover: Mover) -> None:
    """From now on one bit of every chunk it sends is wrong."""
    genuine = mover.transfers.read

    def read(root: bytes, chunk: int, head: Head) -> memoryview:
        frame = genuine(root, chunk, head)
        frame[len(frame) // 2] ^= 1
        return frame

    mover.transfers.read = read  # type: ignore[method-assign]


def stuck(mover: Mover, after: int) -> None:
    """It sends so many chunks and then goes on being there, silently."""
    genuine, sent = mover.transfers.read, [0]
    mover.blocked = asyncio.Event()  # type: ignore[attr-defined]

    async def send(peer: bytes, frame: Frame, *, plain: bool = False) -> None:
        sent[0] += 1
        if sent[0] > after:
            await mover.blocked.wait()  # type: ignore[attr-defined]
        await mover.mesh.transport.send_bulk(peer, frame)  # type: ignore[arg-type]

    assert genuine is not None
    mover.transfers.giving._send_bulk = send


async def test_a_node_without_the_model_gets_it_from_one_that_has_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small.bin", 5 * MIB + 12345)

    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)

        fetch = await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert fetch.received == {origin.peer: model.stat().st_size}
        events = [event["event"] for event in newcomer.events("transfer_began", "transfer_progress", "transfer_done")]
        assert (events[0], events[-1]) == ("transfer_began", "transfer_done")
        await origin.knows(root, newcomer)


async def test_who_waits_no_longer_ends_no_transfer_and_who_asks_again_joins_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small.bin", 5 * MIB)

    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)
        stuck(origin, after=3)
        fetch = newcomer.fetch(root)
        impatient = asyncio.create_task(newcomer.transfers.wait(fetch))
        await until(lambda: fetch.received, "it has begun")
        impatient.cancel()
        await asyncio.wait([impatient])

        assert newcomer.fetch(root) is fetch
        origin.blocked.set()  # type: ignore[attr-defined]
        await asyncio.wait_for(newcomer.transfers.wait(fetch), 60.0)

        assert bytes_of(newcomer, root) == model.read_bytes()


async def test_several_sources_share_the_work_and_a_newcomer_is_one_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 24 * MIB)

    async with movers(tmp_path, "a", "b", "late", "later", upload_mb_per_s=12.0) as (a, b, late, later):
        root = await a.share(model)
        assert await b.share(model) == root
        for one in (late, later):
            await one.knows(root, a, b)

        first, second = await asyncio.gather(late.get(root), later.get(root))

        assert bytes_of(late, root) == bytes_of(later, root) == model.read_bytes()
        assert {a.peer, b.peer} <= first.received.keys()
        passed_on = first.received.get(later.peer, 0) + second.received.get(late.peer, 0)
        assert passed_on > 0, "they gave each other what they had"
        assert sum(first.received.values()) == sum(second.received.values()) == 24 * MIB


async def test_an_origin_gives_each_chunk_about_once_to_many(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 24 * MIB)

    async with movers(tmp_path, "origin", "b", "c", "d", "e", upload_mb_per_s=30.0) as (origin, *others):
        root = await origin.share(model)
        for one in others:
            await one.knows(root, origin)

        fetched = await asyncio.gather(*(one.get(root) for one in others))

        left = sum(fetch.received.get(origin.peer, 0) for fetch in fetched)
        assert all(bytes_of(one, root) == model.read_bytes() for one in others)
        assert left <= 1.25 * 24 * MIB, f"{left / MIB:.0f} MiB left the origin, for {len(others)} copies of 24"


async def test_a_corrupt_source_is_banned_after_its_first_chunk_and_others_complete_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 12 * MIB)

    async with movers(tmp_path, "bad", "good", "newcomer", upload_mb_per_s=20.0) as (bad, good, newcomer):
        root = await bad.share(model)
        await good.share(model)
        await newcomer.knows(root, bad, good)
        damaged(bad)

        fetch = await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert fetch.received == {good.peer: 12 * MIB}
        (banned,) = newcomer.events("banned")
        assert (banned["name"], "not what the manifest says" in banned["detail"]) == ("bad", True)
        assert bad.peer in newcomer.transfers.banned()


async def test_with_only_a_corrupt_source_there_is_no_wrong_byte_and_a_clear_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atmo.node.fetching.NO_SOURCE_S", 0.5)
    model = write_model(tmp_path / "m.bin", 6 * MIB)

    async with movers(tmp_path, "bad", "newcomer") as (bad, newcomer):
        root = await bad.share(model)
        await newcomer.knows(root, bad)
        damaged(bad)

        with pytest.raises(PeerUnreachable, match="No peer gives what is missing"):
            await newcomer.get(root)

        assert not newcomer.store.has(root)
        (part,) = newcomer.store.models(partial=True)
        assert part.done_bytes == 0
        assert newcomer.events("transfer_failed")


async def test_a_lying_manifest_is_noticed_before_a_chunk_is_asked_for(tmp_path: Path) -> None:
    model, other = write_model(tmp_path / "m.bin", 4 * MIB), write_model(tmp_path / "o.bin", 4 * MIB, seed=2)

    async with movers(tmp_path, "liar", "honest", "newcomer") as (liar, honest, newcomer):
        root = await liar.share(model)
        false = await liar.share(other)
        liar.transfers.manifest = lambda of: liar.store.manifest(false).encode()  # type: ignore[method-assign, assignment]
        await honest.share(model)
        await newcomer.knows(root, liar, honest)

        await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert all(event["name"] == "liar" for event in newcomer.events("banned"))


async def test_a_source_that_vanishes_or_falls_silent_costs_time_and_nothing_else(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 16 * MIB)

    async with movers(tmp_path, "gone", "silent", "steady", "newcomer", upload_mb_per_s=12.0) as all_four:
        gone, silent, steady, newcomer = all_four
        root = await gone.share(model)
        await silent.share(model)
        await steady.share(model)
        await newcomer.knows(root, gone, silent, steady)
        stuck(silent, after=2)

        fetch = newcomer.fetch(root)
        await until(lambda: fetch.received.get(gone.peer, 0) > 0, "the one that will vanish gave something")
        await gone.mesh.stop()
        await newcomer.transfers.wait(fetch)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert sum(fetch.received.values()) == 16 * MIB
        assert newcomer.events("banned") == []
        silent.blocked.set()  # type: ignore[attr-defined]


async def test_a_model_for_some_goes_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atmo.node.fetching.NO_SOURCE_S", 0.5)
    model = write_model(tmp_path / "m.bin", 2 * MIB)
    labels = {"inside": {"ward": "3"}}

    async with movers(tmp_path, "origin", "inside", "outside", labels=labels) as (origin, inside, outside):
        root = await origin.share(model, ward="3")
        for one in (inside, outside):
            await one.knows(root, origin)

        with pytest.raises(PeerUnreachable, match="for nodes with ward=3 only"):
            await outside.get(root)
        await inside.get(root)

        assert bytes_of(inside, root) == model.read_bytes()
        assert inside.store.get(root).record.only == {"ward": "3"}, "its terms travel with it"
        await outside.knows(root, origin, inside)
        with pytest.raises(PeerUnreachable, match="for nodes with ward=3 only"):
            await outside.get(root)


async def test_what_is_not_shared_is_not_given(tmp_path: Path) -> None:
    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        await asyncio.to_thread(origin.store.import_, write_model(tmp_path / "m.bin", MIB))

        with pytest.raises(ModelNotFound, match="No peer gives away"):
            newcomer.transfers.find("m.bin")


async def test_a_full_disk_ends_it_clearly_and_what_is_there_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "m.bin", 10 * MIB)

    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)
        real, written = os.pwrite, [0]

        def full(handle: int, data: bytes, offset: int) -> int:
            written[0] += len(data) >= MIB  # chunks; the journal has its room from the start
            if len(data) >= MIB and written[0] > 4:
                raise OSError(28, "No space left on device")
            return real(handle, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(StorageFull, match="disk is full"):
                await newcomer.get(root)

        again = await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert 0 < again.resumed_bytes < 10 * MIB


async def test_heartbeats_do_not_wait_for_a_stuck_transfer_and_memory_is_bounded(tmp_path: Path) -> None:
    """The disk stands still: what is on its way stays within the bound, and the link lives on beyond its timeout."""
    model = write_model(tmp_path / "m.bin", 64 * MIB)

    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)
        fetch = newcomer.fetch(root)
        await until(lambda: fetch.partial is not None, "the transfer has begun")
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        assert fetch.partial is not None
        write = fetch.partial.write

        def slowly(number: int, data: bytes) -> bool:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return write(number, data)

        fetch.partial.write = slowly  # type: ignore[method-assign, assignment]
        await until(lambda: fetch._writers is not None and fetch._writers.waiting >= 4, "the disk stands still")
        told_s = newcomer.mesh.transport.stats()[origin.peer].up_s
        timeout_s = 1.5
        await until(
            lambda: newcomer.mesh.transport.stats()[origin.peer].up_s > told_s + 2 * timeout_s, "the link lives on"
        )

        assert fetch.download is not None
        assert fetch.download.in_flight <= IN_FLIGHT_CHUNKS
        assert newcomer.events("lost") == []
        gate.set()
        await newcomer.transfers.wait(fetch)
        assert bytes_of(newcomer, root) == model.read_bytes()
