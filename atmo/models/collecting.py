"""Garbage collection: what the store may lose, the longest unused first.

A pinned model is never taken, nor one that a process holds or fetches at this moment. What a crash left behind, and
what was begun and not gone on with for a week, goes in any case.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from atmo.errors import ModelInUse, ModelNotFound
from atmo.models.files import disk, locked
from atmo.models.records import StoredModel

if TYPE_CHECKING:
    from atmo.models.store import Store

# A download that nobody went on with for so long was given up. A guess.
STALE_S = 7 * 86400.0


@dataclass(slots=True)
class Collected:
    """removed: models and beginnings of models; freed_bytes: on the disk; used_bytes: what the store takes now; fits:
    within the quota."""

    removed: list[StoredModel] = field(default_factory=list)
    freed_bytes: int = 0
    used_bytes: int = 0
    fits: bool = True


def collect(store: Store, quota_bytes: int, now_s: float, *, needed_bytes: int = 0, dry: bool = False) -> Collected:
    """Make the store fit, with room for `needed_bytes` more. quota_bytes: 0 for no limit; dry: only say what would go.

    Raises StorageError.
    """
    with disk("look through the store of models", store.folder):
        before = own_bytes(store.folder)
        if not dry:
            _sweep(store.folder, now_s)
        found = Collected()
        for model in _stale(store, now_s):
            _take(store, model, found, dry)
        for model in sorted(store.models(), key=lambda each: each.used_s):
            gone = sum(own_bytes(each.folder.parent) for each in found.removed) if dry else 0
            if not quota_bytes or own_bytes(store.folder) - gone + needed_bytes <= quota_bytes:
                break
            if not model.record.pinned:
                _take(store, model, found, dry)
        gone = sum(own_bytes(each.folder.parent) for each in found.removed) if dry else 0
        found.used_bytes = own_bytes(store.folder) - gone
    found.freed_bytes = before - found.used_bytes
    found.fits = not quota_bytes or found.used_bytes + needed_bytes <= quota_bytes
    return found


def own_bytes(folder: Path) -> int:
    """What removing a folder would free: blocks of its files, without holes, and without files that have a name
    elsewhere too, such as the one they were imported from. Raises OSError."""
    names: dict[tuple[int, int], int] = {}
    found: dict[tuple[int, int], os.stat_result] = {}
    for place in _files(folder):
        with suppress(FileNotFoundError):
            seen = os.lstat(place)
            names[seen.st_dev, seen.st_ino] = names.get((seen.st_dev, seen.st_ino), 0) + 1
            found[seen.st_dev, seen.st_ino] = seen
    return sum(seen.st_blocks * 512 for key, seen in found.items() if names[key] >= seen.st_nlink)


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(place, name)


def _stale(store: Store, now_s: float) -> list[StoredModel]:
    return [model for model in store.models(partial=True) if now_s - model.used_s > STALE_S]


def _take(store: Store, model: StoredModel, found: Collected, dry: bool) -> None:
    with suppress(ModelInUse, ModelNotFound):
        if dry:
            store.check_unused(model.root)
        else:
            store.remove(model.root)
        found.removed.append(model)


def _sweep(folder: Path, now_s: float) -> None:
    """What was renamed to be removed when the process ended, and downloads that were given up."""
    for place in folder.glob(".*"):
        shutil.rmtree(place, ignore_errors=True)
    for place in (folder / "incoming").glob("*"):
        if now_s - max(each.stat().st_mtime for each in (place, *place.iterdir())) > STALE_S:
            with locked(place / "lock", wait=False) as unused:
                if unused:
                    shutil.rmtree(place, ignore_errors=True)
