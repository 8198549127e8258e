"""A node whose user wants it fetches what is asked for there again and again; by default none does."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmo.config import load
from atmo.errors import ConfigError
from atmo.models.demand import WANTED
from atmo.node.prefetch import Prefetch
from tests.node.swarm_support import MIB, Mover, bytes_of, movers, write_model


def prefetch_of(mover: Mover, **models: object) -> Prefetch:
    section = load({"home": "/nowhere", **{f"models.{key}": value for key, value in models.items()}}).models
    return Prefetch(section, mover.transfers, mover.mesh._clock)


@pytest.mark.asyncio
async def test_what_is_wanted_often_comes_within_the_quota_and_only_if_asked_to(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.bin", 2 * MIB)
    async with movers(tmp_path, "origin", "eager") as (origin, eager):
        root = await origin.share(model)
        await eager.knows(root, origin)
        off = prefetch_of(eager)
        tight = prefetch_of(eager, prefetch=True, quota_gb=0.001)
        roomy = prefetch_of(eager, prefetch=True, quota_gb=1.0)
        for _ in range(int(WANTED) + 1):
            for each in (off, tight, roomy):
                each.asked(root.hex())

        assert await off.look() is None
        assert await tight.look() is None
        assert await roomy.look() == root.hex()
        assert bytes_of(eager, root) == model.read_bytes()
        assert await roomy.look() is None, "once is enough"


def test_a_bound_must_be_set() -> None:
    with pytest.raises(ConfigError, match="needs a bound"):
        load({"models.prefetch": True}, {})
