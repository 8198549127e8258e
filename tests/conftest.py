"""What all tests share: a home and a runtime folder of their own, short enough for sockets, gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Hundreds of processes are started, and where this is set each of them compiles all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# Laws are tried on the same examples every time, so that a test fails for what was changed and not by chance.
# `--hypothesis-profile=default` draws new ones, which is what `make soak` does.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """`ATMO_HOME` and `ATMO_RUNTIME` set to a fresh folder, no other `ATMO_*`, no zeroconf and no look at ports."""
    folder = Path(tempfile.mkdtemp(prefix="atmo-test-"))
    own = {
        "ATMO_HOME": str(folder / "home"),
        "ATMO_RUNTIME": str(folder / "run"),
        "ATMO_DISCOVERY_LAN": "false",
        "ATMO_DISCOVERY_RUNTIMES": "false",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    yield own
    shutil.rmtree(folder)
