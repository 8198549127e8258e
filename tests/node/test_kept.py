"""What came for a request is served again by the next life of its node, within the rules of its user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from atmo.config import Config, ServeSection, load
from atmo.models.store import Store
from atmo.node.kept import FILE, Kept
from atmo.node.offers import offers
from tests.inference.gguf_maker import write_parrot


@pytest.fixture
def config(environ: dict[str, str]) -> Config:
    made = load({"node.labels": {"residency": "hospital"}})
    made.node_home.mkdir(parents=True)
    return made


def kept_by(config: Config, **models: Any) -> Kept:
    named = {f"models.{key}": value for key, value in models.items()}
    changed = load({"node.labels": dict(config.node.labels), **named})
    store = Store(changed.model_store, int(changed.models.quota_gb * 1e9), sync=lambda _: None)
    return Kept(changed.node_home, changed, store)


def has(config: Config, folder: Path, name: str) -> bytes:
    """A model of its own bytes in the store."""
    source = write_parrot(folder / f"{name}.gguf", context=2048 + len(name))
    return Store(config.model_store, sync=lambda _: None).import_(source, copy=True).root


def test_models_are_served_again_as_long_as_they_are_here(config: Config, tmp_path: Path) -> None:
    polly, pirate = has(config, tmp_path, "polly"), has(config, tmp_path, "pirate")
    kept = kept_by(config)
    for root in (polly, pirate, polly):
        kept.add(root)
    assert [offer.root for offer in kept_by(config).offers([])] == [pirate.hex(), polly.hex()]
    kept._store.remove(pirate)
    assert [offer.spec.name for offer in kept_by(config).offers([])] == ["polly"]
    assert kept.roots() == [polly]
    kept_by(config, keep_migrated=False).offers([])
    assert kept.roots() == [], "who wants nothing kept is asked again from the beginning"


def test_a_label_that_the_node_lost_what_its_user_serves_and_the_quota_go_first(config: Config, tmp_path: Path) -> None:
    polly, pirate = has(config, tmp_path, "polly"), has(config, tmp_path, "pirate")
    kept = kept_by(config)
    for root in (polly, pirate):
        kept.add(root)
    served = offers(replace(config, serve=(ServeSection(model="polly", name="bird"),)))
    assert [offer.spec.name for offer in kept.offers(served)] == ["pirate"], "its user serves it by another name"
    twin = offers(replace(config, serve=(ServeSection(model="atmo-nano", name="polly"),)))
    assert [offer.spec.name for offer in kept.offers(twin)] == ["pirate"], "its user's capability has that name"

    kept._store.mark(polly, only={"residency": "bank"})
    assert [offer.spec.name for offer in kept.offers([])] == ["pirate"]
    kept._store.mark(polly, only={"residency": "hospital"})
    assert len(kept.offers([])) == 2

    with kept._store.hold(pirate):
        pass  # used last
    sizes = [model.size_bytes for model in kept._store.models()]
    tight = kept_by(config, quota_gb=(max(sizes) + (1 << 16)) / 1e9)
    assert [offer.spec.name for offer in tight.offers([])] == ["pirate"]
    assert tight._store.gc().fits, "so that there is something that can go"


def test_a_damaged_list_is_no_reason_not_to_start(config: Config) -> None:
    for damaged in (b"", b"[1]", b'["zz"]', b"\xff"):
        (config.node_home / FILE).write_bytes(damaged)
        assert kept_by(config).offers([]) == []
