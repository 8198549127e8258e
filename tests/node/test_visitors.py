"""Who wants nothing kept is rid of a model as soon as no request needs it; and what comes takes nobody's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atmo.config import Config, DiscoverySection, ModelsSection, NodeSection, ServeSection, load
from atmo.node import visitors
from atmo.node.node import Node
from tests.inference.gguf_maker import write_parrot
from tests.node.swarm_support import until

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def node(environ: dict[str, str]) -> AsyncIterator[Node]:
    base = load(environ=environ)
    made = Node(
        Config(
            home=base.home,
            runtime=base.runtime,
            node=NodeSection(mode="standalone"),
            discovery=DiscoverySection(lan=False, runtimes=False),
            serve=(ServeSection(model="atmo-nano"),),
            models=ModelsSection(keep_migrated=False),
        )
    )
    try:
        await made.start()
        await made.settled()
        yield made
    finally:
        await made.stop()


async def test_a_model_goes_when_the_last_request_is_over_and_takes_no_others_name(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, migration = node.transfers.store, node.private._migration
    root = store.import_(write_parrot(tmp_path / "parrot.gguf"), "atmo-nano", copy=True).root
    name = f"atmo:chat:atmo-nano-{root.hex()[:8]}"
    guests = migration.visitors

    assert await migration._load(root) == name
    assert set(node.services) == {"atmo:chat:atmo-nano", name}
    await guests.leave(root, name, came=False)
    assert store.has(root), "it was here before"
    with guests.used(root):
        await guests.leave(root, name, came=True)
        assert name in node.services, "another request needs it"
    await guests.leave(root, name, came=False)
    assert (store.has(root), set(node.services)) == (False, {"atmo:chat:atmo-nano"})

    root = store.import_(tmp_path / "parrot.gguf", "atmo-nano", copy=True).root
    monkeypatch.setattr(visitors, "IDLE_S", 0.2)
    assert await migration._load(root) == name
    guests.leave_when_idle(root, name, node.mesh.peer)
    await until(lambda: not store.has(root), "what was brought for another node goes when nobody asks it")
    assert name not in node.services
    assert node.kept.roots() == []
