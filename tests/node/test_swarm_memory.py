"""What a transfer takes of memory does not depend on the model's size."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.movers import one_downloader

GB = 10**9
BOUND_BYTES = 100 * 10**6


async def _peak_bytes(folder: Path, size_bytes: int) -> int:
    """Of a downloader's whole process, for a model that is one hole."""
    folder.mkdir()
    model = folder / "model.bin"
    with model.open("wb") as file:
        file.truncate(size_bytes)
    done = await one_downloader(folder, model, 1)
    assert done["bytes"] <= size_bytes
    return int(done["peak_rss_bytes"])


async def _costs_little(tmp_path: Path, size_bytes: int) -> None:
    at_rest = await _peak_bytes(tmp_path / "small", 1 << 20)
    assert await _peak_bytes(tmp_path / "large", size_bytes) - at_rest < BOUND_BYTES


@pytest.mark.asyncio
async def test_a_model_of_a_quarter_of_a_gigabyte_takes_less_than_a_hundred_megabytes(tmp_path: Path) -> None:
    await _costs_little(tmp_path, GB // 4)


@pytest.mark.soak
@pytest.mark.asyncio
async def test_and_so_does_one_of_twenty_gigabytes(tmp_path: Path) -> None:
    await _costs_little(tmp_path, 20 * GB)
