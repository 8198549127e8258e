"""Models of other servers become capabilities of this node, and go when their server does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from atmo.clock import Clock
from atmo.config import CLOUDS, Config, RuntimeSection
from atmo.errors import ConfigError
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.http_model import FoundModel
from atmo.inference.engines.http_upstream import Access
from atmo.inference.hosts import REMOTE
from atmo.inference.runtimes import Place, RuntimeWatch, Seen, usual_places
from atmo.mesh.capability import CHAT, EMBEDDING, Descriptor
from atmo.mesh.classes import ELSEWHERE, GENERAL
from atmo.models.describing import strength_of
from atmo.node.offers import Offer, slug
from atmo.problems import Problem

log = structlog.get_logger("atmo.runtimes")

_CLOUD_STRENGTH = 0.9  # a guess: who pays for a model pays for a good one
_UNKNOWN_STRENGTH = 0.4  # a guess, for names that tell no size
_KINDS = {"ollama": "Ollama", "openai": "an OpenAI-compatible server", "anthropic": "Anthropic"}


class Adopts(Protocol):
    """What a node does with offers that come and go while it runs."""

    async def adopt(self, offer: Offer) -> None:
        """Serve it and tell the mesh."""

    async def dismiss(self, capability_id: str) -> None:
        """Withdraw it and free what served it."""


class Runtimes:
    """taken: ids of capabilities that are served otherwise, which are left alone."""

    def __init__(self, config: Config, node: Adopts, clock: Clock, taken: Callable[[], set[str]]) -> None:
        self._sections = {place_of(section): section for section in config.runtimes}
        known = {place.access.url.rstrip("/").removesuffix("/v1") for place in self._sections}
        usual = usual_places() if config.discovery.runtimes else []
        places = [*self._sections, *(place for place in usual if place.access.url not in known)]
        self._node = node
        self._taken = taken
        self._watch = RuntimeWatch(places, self._on_change, clock, config.discovery.runtimes_every_s)
        self._served: dict[Place, dict[str, Offer]] = {}
        self._changing: set[asyncio.Task[None]] = set()
        self._in_turn = asyncio.Lock()
        self._first: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look; `settled` waits for the first look."""
        self._first = asyncio.create_task(self._watch.start(), name="first look at runtimes")

    async def settled(self) -> None:
        if self._first is not None:
            await asyncio.wait([self._first])
        while self._changing:
            await asyncio.wait(self._changing)

    async def close(self) -> None:
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait([self._first])
        await self._watch.close()
        for task in self._changing:
            task.cancel()
        if self._changing:
            await asyncio.wait(self._changing)

    def report(self) -> list[dict[str, Any]]:
        """Each place with a server, or configured to have one: what is there, how quick, or what is wrong."""
        return [
            {
                "runtime": str(place),
                "kind": seen.kind,
                "models": [model.name for model in seen.models],
                "latency_ms": round(seen.latency_s * 1000, 1),
                "trouble": f"{seen.trouble} {seen.remedy}".rstrip(),
            }
            for place, seen in self._watch.seen().items()
            if seen.kind or place in self._sections
        ]

    def problems(self) -> list[Problem]:
        """One for each configured server that is not there."""
        return [
            Problem(f"The server {place} cannot be used: {seen.trouble}", seen.remedy)
            for place, seen in self._watch.seen().items()
            if place in self._sections and seen.trouble
        ]

    def _on_change(self, place: Place, seen: Seen) -> None:
        task = asyncio.create_task(self._apply(place, seen), name=f"models of {place}")
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)

    async def _apply(self, place: Place, seen: Seen) -> None:
        async with self._in_turn:
            ours = self._served.setdefault(place, {})
            free = self._taken() - set(ours)
            wanted = self._offers(place, seen, free)
            for gone in [each for each in ours if ours[each] != wanted.get(each)]:
                del ours[gone]
                await self._node.dismiss(gone)
            for capability_id in [each for each in wanted if each not in ours]:
                ours[capability_id] = wanted[capability_id]
                await self._node.adopt(wanted[capability_id])
        log.info("runtime", place=str(place), kind=seen.kind, models=len(seen.models), trouble=seen.trouble)

    def _offers(self, place: Place, seen: Seen, taken: set[str]) -> dict[str, Offer]:
        section = self._sections.get(place, RuntimeSection(url=place.access.url))
        found: dict[str, Offer] = {}
        for model in seen.models:
            try:
                offer = remote_offer(place, section, seen.kind, model)
            except ConfigError as error:
                log.warning("model not offered", place=str(place), why=str(error))
                continue
            if offer.descriptor.id not in taken:
                found[offer.descriptor.id] = offer
        return found


def place_of(section: RuntimeSection) -> Place:
    kinds = ("ollama", "openai") if section.kind == "auto" else (section.kind,)
    return Place(Access(section.address, section.key), kinds, section.name, section.models)


def remote_offer(place: Place, section: RuntimeSection, kind: str, model: FoundModel) -> Offer:
    """The capability that a server's model becomes. Raises ConfigError for a name that no id can be made of."""
    spec = ModelSpec(
        name=model.name,
        kind=REMOTE,
        path=place.access.url,
        engine=kind,
        context=model.context,
        slots=section.slots,
        key=place.access.key,
    )
    what = EMBEDDING if model.type == "embedding" else CHAT
    labels = dict(section.labels)
    if what == CHAT:
        labels.setdefault(*GENERAL)
    if not place.access.is_local:
        labels |= dict([ELSEWHERE])  # no setting may hide that prompts leave this machine
    descriptor = Descriptor(
        id=f"atmo:{what}:{slug(model.name)}",
        type=what,
        description=_description(what, model.name, kind),
        model=model.name,
        context=model.context,
        modalities=("text", "image") if model.vision else ("text",),
        quantisation=model.quantisation,
        parameters=model.parameters,
        strength=section.strength if section.strength >= 0 else _strength(section, model),
        price=section.price,
        labels=tuple(sorted(labels.items())),
    )
    return Offer(descriptor, spec)


def _description(what: str, name: str, kind: str) -> str:
    if what == EMBEDDING:
        return f"Text embedding with {name} of {_KINDS[kind]}: turns text into vectors for search and similarity."
    return f"General chat and text generation with {name}, a language model of {_KINDS[kind]}."


def _strength(section: RuntimeSection, model: FoundModel) -> float:
    """By size as for models of this machine, which a name often tells: `qwen2.5:7b`, `Llama-3.1-70B`."""
    if section.kind in CLOUDS and not section.url:
        return _CLOUD_STRENGTH
    named = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", model.name.lower())
    parameters = model.parameters or (float(named[1]) * 1e9 if named else 0.0)
    return strength_of(parameters) if parameters else _UNKNOWN_STRENGTH
