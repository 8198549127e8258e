"""Models that came for the sake of a request and are served on: which they are outlives the node.

`kept.json` in the node's home lists their roots, those that came last at the end. At a start they are served again, as
far as they are still here, the quota has room for them, this node still has the labels that they ask of it, and the
configuration does not serve the same model or capability itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from atmo.config import Config, InferenceSection, ServeSection
from atmo.errors import AtmoError, ModelInvalid, ModelNotFound
from atmo.models.collecting import own_bytes
from atmo.models.files import write_whole
from atmo.models.records import StoredModel
from atmo.models.store import Store
from atmo.node.offers import Offer, offer_of
from atmo.node.seeding import local_model

log = structlog.get_logger("atmo.kept")

FILE = "kept.json"


class Kept:
    """folder: of the node. Everything but the constructor reads or writes the disk: call it in a thread."""

    def __init__(self, folder: Path, config: Config, store: Store) -> None:
        self._file = folder / FILE
        self._config = config
        self._store = store

    def roots(self) -> list[bytes]:
        """A file that cannot be read is as good as none: what it lists can come again."""
        try:
            return [bytes.fromhex(root) for root in msgspec.json.decode(self._file.read_bytes(), type=list[str])]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, msgspec.DecodeError) as error:
            log.warning("what is kept cannot be read", file=str(self._file), why=type(error).__name__)
            return []

    def add(self, root: bytes) -> None:
        self._write([each for each in self.roots() if each != root] + [root])

    def offers(self, others: Iterable[Offer]) -> list[Offer]:
        """What is to be served at a start, beside what is served otherwise. Forgets what is here no more."""
        if not self._config.models.keep_migrated:
            self._file.unlink(missing_ok=True)
            return []
        others = list(others)
        roots = {bytes.fromhex(offer.root) for offer in others} | self._too_many()
        taken = {offer.descriptor.id for offer in others}
        found: list[Offer] = []
        here = [root for root in self.roots() if self._store.has(root)]
        for root in here:
            offer = self._offer(root) if root not in roots else None
            if offer is not None and offer.descriptor.id not in taken:
                found.append(apart(offer) if offer.descriptor.id in {each.descriptor.id for each in found} else offer)
        if here != self.roots():
            self._write(here)
        return found

    def longest_unused(self) -> list[StoredModel]:
        """Those that are here, in the order in which they should make room for another; none that is pinned."""
        kept = set(self.roots())
        found = [model for model in self._store.models() if model.root in kept and not model.record.pinned]
        return sorted(found, key=lambda model: model.used_s)

    def _too_many(self) -> set[bytes]:
        """With what is served the store could not get back below its quota: these are left for it to remove."""
        if not self._store.quota_bytes:
            return set()
        over, left = own_bytes(self._store.folder) - self._store.quota_bytes, set()
        for model in self.longest_unused():
            if over > 0:
                log.warning("a kept model is not served", model=model.name, why="the store is above its quota")
                over -= own_bytes(model.folder.parent)
                left.add(model.root)
        return left

    def _offer(self, root: bytes) -> Offer | None:
        try:
            stored = self._store.get(root)
            lacking = set(stored.record.only.items()) - set(self._config.node.labels.items())
            if lacking:
                needed = ", ".join(f"{key}={value}" for key, value in sorted(lacking))
                log.warning("a kept model is not served", model=stored.name, why=f"it is for nodes with {needed}")
                return None
            return offer_stored(stored, self._config.inference)
        except ModelNotFound:
            return None
        except AtmoError as error:
            log.warning("a kept model is not served", root=root.hex()[:12], why=error.message)
            return None

    def _write(self, roots: list[bytes]) -> None:
        try:
            write_whole(self._file, msgspec.json.encode([root.hex() for root in roots]), self._store.sync)
        except OSError as error:
            log.warning("what is kept was not written down", why=error.strerror)

    def __repr__(self) -> str:
        return f"<Kept {len(self.roots())} models>"


def offer_stored(stored: StoredModel, inference: InferenceSection) -> Offer:
    """A model of the store as it is served where nobody configured it. Raises ModelInvalid, ConfigError."""
    model = local_model(stored)
    if model is None:
        raise ModelInvalid(f"{stored.name} is no model that an engine here can load.")
    return offer_of(model, ServeSection(model=stored.name), inference)


def apart(offer: Offer) -> Offer:
    """By a name that no other model has."""
    named = msgspec.structs.replace(offer.descriptor, id=f"{offer.descriptor.id}-{offer.root[:8]}")
    return replace(offer, descriptor=named)
