"""Organisations for tests: each with a home of its own, one of them the owner of the mesh that the other joined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atmo.client import SyncClient
from atmo.config import load
from atmo.models.library import embedded_models
from atmo.models.store import Store
from tests.cluster import Cluster, atmo, eventually

NOTHING = "serve = []\n"
Json = dict[str, Any]


def nano() -> Path:
    return next(model.path for model in embedded_models() if model.name == "atmo-nano")


class Site:
    """One organisation: a home, a runtime folder, and nodes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"ATMO_HOME": str(folder / "home"), "ATMO_RUNTIME": str(folder / "run")}
        folder.mkdir()
        self.cluster = Cluster(folder)
        self.store = Store(load(environ=self.environ).model_store)

    @contextmanager
    def here(self, patch: pytest.MonkeyPatch) -> Iterator[Cluster]:
        """Commands are run by this organisation."""
        for name, value in self.environ.items():
            patch.setenv(name, value)
        yield self.cluster

    def has_model(self, name: str, source: Path, **only: str) -> str:
        """Put a model into its store and give it away; the root."""
        model = self.store.import_(source, name, copy=True)
        self.store.mark(model.root, shared=True, only=only)
        return model.root.hex()

    def close(self, patch: pytest.MonkeyPatch) -> None:
        pids = list(self.cluster.pids.values())
        with self.here(patch) as cluster:
            cluster.stop_all()
        eventually(lambda: not any(_alive(pid) for pid in pids), "all processes have ended")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def two_sites(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    """The office, whose mesh it is, and the hospital. Neither runs yet."""
    office, hospital = Site(folder / "o"), Site(folder / "h")
    yield office, hospital
    for site in (hospital, office):
        site.close(patch)


def start_both(
    sites: tuple[Site, Site], patch: pytest.MonkeyPatch, *, office: str = NOTHING, ward: str = NOTHING
) -> tuple[SyncClient, SyncClient]:
    """One node each, in one mesh: `office`, and `ward` with the label."""
    with sites[0].here(patch) as cluster:
        asker = cluster.start("office", office)
        token = atmo("mesh", "invite", "--json").json["token"]
    with sites[1].here(patch) as cluster:
        assert atmo("mesh", "join", token).code == 0
        holder = cluster.start("ward", ward, "--label", "residency=hospital")
    for client in (asker, holder):
        eventually(lambda client=client: len(client.mesh()["nodes"]) == 2, "both nodes know each other")  # type: ignore[misc]
    return asker, holder


def events_of(client: SyncClient, text: str, **wishes: Any) -> list[Json]:
    return list(client.stream(text, timeout_s=60, **wishes).steps())


def of_kind(events: list[Json], kind: str) -> list[Json]:
    return [event for event in events if event["event"] == kind]
