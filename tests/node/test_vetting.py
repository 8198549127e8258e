"""A peer whose vectors do not fit its words is not used, and is named."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from atmo.errors import AtmoError
from atmo.ids import PeerId
from atmo.mesh.capability import Capability, Descriptor
from atmo.mesh.views import build_views
from atmo.node.meaning import Meaning
from atmo.node.vetting import LEAST_COSINE, Vetting
from tests.mesh.routing_support import direction, peer

THERMOMETER = Descriptor(
    id="atmo:sensor:attic",
    type="sensor",
    description="Temperature and humidity in the attic.",
    examples=("how warm is it in the attic", "humidity upstairs"),
)


@dataclass
class Refused:
    calls: list[tuple[PeerId, str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, origin: PeerId, capability: Capability, why: str) -> None:
        self.calls.append((origin, capability.descriptor.id, why))
        self.changed.set()


@pytest.fixture(scope="module")
def meaning() -> Meaning:
    made = Meaning()
    asyncio.run(made.load())
    return made


async def looked_at(vetting: Vetting, classes: int) -> None:
    async with asyncio.timeout(20):
        while f"<Vetting {classes} looked at" not in repr(vetting):  # noqa: ASYNC110 - the thread tells nobody else
            await asyncio.sleep(0.01)


@pytest.mark.asyncio
async def test_honest_vectors_pass_and_those_of_another_text_do_not(meaning: Meaning) -> None:
    honest = meaning.capability(THERMOMETER)
    chat = meaning.capability(
        msgspec.structs.replace(THERMOMETER, description="General chat.", examples=("hello", "hi"))
    )
    forged = Capability(THERMOMETER, honest.encoder, chat.views)
    refused = Refused()
    vetting = Vetting(meaning.capability, refused, pause_s=0.0)
    vetting.start()

    assert vetting.admits(peer("honest"), honest)
    assert vetting.admits(peer("liar"), forged), "nobody has looked at it yet"
    await looked_at(vetting, 2)

    assert [origin for origin, _, _ in refused.calls] == [peer("liar")]
    assert "to what its text gives" in refused.calls[0][2]
    assert vetting.admits(peer("honest"), honest)
    assert not vetting.admits(peer("liar"), forged)
    assert not vetting.admits(peer("accomplice"), forged), "known by its content, whoever offers it"
    await vetting.close()


@pytest.mark.asyncio
async def test_one_forged_example_among_honest_ones_is_found(meaning: Meaning) -> None:
    honest = meaning.capability(THERMOMETER)
    views = (*honest.views[:-1], build_views(direction("everything"), [])[0])
    refused = Refused()
    vetting = Vetting(meaning.capability, refused, pause_s=0.0)
    vetting.start()
    vetting.admits(peer("liar"), Capability(THERMOMETER, honest.encoder, views))
    await looked_at(vetting, 1)

    assert len(refused.calls) == 1
    await vetting.close()


@pytest.mark.asyncio
async def test_missing_vectors_are_found_and_another_encoder_is_let_pass(meaning: Meaning) -> None:
    honest = meaning.capability(THERMOMETER)
    refused = Refused()
    vetting = Vetting(meaning.capability, refused, pause_s=0.0)
    vetting.start()
    vetting.admits(peer("lazy"), Capability(THERMOMETER, honest.encoder, honest.views[:1]))
    vetting.admits(peer("newer"), Capability(THERMOMETER, "another-encoder", honest.views[:1]))
    await looked_at(vetting, 2)

    assert [origin for origin, _, _ in refused.calls] == [peer("lazy")]
    await vetting.close()


@pytest.mark.asyncio
async def test_all_who_sent_it_before_it_was_looked_at_are_named() -> None:
    def embed(descriptor: Descriptor) -> Capability:
        return Capability(descriptor, "e", build_views(direction("truth"), []))

    forged = Capability(THERMOMETER, "e", build_views(direction("lie"), []))
    refused = Refused()
    vetting = Vetting(embed, refused, pause_s=0.0)
    for name in ("one", "two"):
        vetting.admits(peer(name), forged)
    vetting.start()
    await looked_at(vetting, 1)

    assert {origin for origin, _, _ in refused.calls} == {peer("one"), peer("two")}
    await vetting.close()


@pytest.mark.asyncio
async def test_a_text_that_cannot_be_embedded_harms_nobody() -> None:
    def embed(descriptor: Descriptor) -> Capability:
        raise AtmoError("The encoder is gone.")

    refused = Refused()
    vetting = Vetting(embed, refused, pause_s=0.0)
    vetting.start()
    vetting.admits(peer("one"), Capability(THERMOMETER, "e", build_views(direction("x"), [])))
    await looked_at(vetting, 1)

    assert refused.calls == []
    await vetting.close()


def test_rounding_is_far_inside_the_tolerance() -> None:
    """Both ends round to int8; a vector with noise of another machine's size still fits."""
    exact = direction("x")
    noisy = exact + np.random.default_rng(1).standard_normal(384).astype(np.float32) * 0.003
    one, two = (Capability(THERMOMETER, "e", build_views(vector, [])).matrix()[0] for vector in (exact, noisy))

    assert float(one @ two) > (1 + LEAST_COSINE) / 2
