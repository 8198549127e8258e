"""Models that travel between real nodes: whole, from several at once, and never a wrong byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.swarm_support import MIB, bytes_of, movers, write_model

pytestmark = pytest.mark.asyncio


async def test_a_node_without_the_model_gets_it_from_one_that_has_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small.bin", 5 * MIB + 12345)

    async with movers(tmp_path, "origin", "newcomer") as (origin, newcomer):
        root = await origin.share(model)
        await newcomer.knows(root, origin)

        fetch = await newcomer.get(root)

        assert bytes_of(newcomer, root) == model.read_bytes()
        assert fetch.received == {origin.peer: model.stat().st_size}
        assert [event["event"] for event in newcomer.events("transfer_began", "transfer_done")] == [
            "transfer_began",
            "transfer_done",
        ]
