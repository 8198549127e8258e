"""Do the vectors that a peer publishes fit the text beside them?

Relevance is computed from published vectors, so a node could describe a thermometer and publish the vectors of a
chat, and would be sent every question. Anybody can redo the sum: this node re-embeds a sample of what it is sent, in
a thread, one class at a time and a pause between, and where a vector is off by more than rounding the capability is
not used, whoever offers it, and its origin is named as a problem. Each class is looked at once. Vectors of another
encoder cannot be compared and are let pass; a full queue lets pass as well, which makes it a sample.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

import structlog

from atmo.errors import AtmoError
from atmo.ids import PeerId
from atmo.mesh.capability import Capability, ClassKey, Descriptor

log = structlog.get_logger("atmo.vetting")

LEAST_COSINE = 0.98  # between what was sent and what comes out here; int8 rounding of both costs less than 0.001
PAUSE_S = 0.2  # between two classes, each of which takes a few milliseconds for each of its texts; a guess
WAITING = 256  # classes that wait to be looked at
REMEMBERED = 4096  # classes whose verdict is kept

Refuse = Callable[[PeerId, Capability, str], None]


class Vetting:
    """embed: descriptor to capability as this node would publish it, blocking; refuse: called on the loop for each
    origin of a capability whose vectors do not fit."""

    def __init__(self, embed: Callable[[Descriptor], Capability], refuse: Refuse, pause_s: float = PAUSE_S) -> None:
        self._embed = embed
        self._refuse = refuse
        self._pause_s = pause_s
        self._verdicts: OrderedDict[ClassKey, str] = OrderedDict()  # why not, empty for fine
        self._waiting: OrderedDict[ClassKey, tuple[Capability, set[PeerId]]] = OrderedDict()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="vetting")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def __repr__(self) -> str:
        refused = sum(bool(why) for why in self._verdicts.values())
        return f"<Vetting {len(self._verdicts)} looked at, {refused} refused, {len(self._waiting)} waiting>"

    def admits(self, origin: PeerId, capability: Capability) -> bool:
        """False for what was found not to fit. What was not looked at yet is let pass, and will be."""
        key = capability.class_key
        why = self._verdicts.get(key)
        if why:
            self._refuse(origin, capability, why)
            return False
        if why is None and (key in self._waiting or len(self._waiting) < WAITING):
            self._waiting.setdefault(key, (capability, set()))[1].add(origin)
            self._more.set()
        return True

    async def _run(self) -> None:
        while True:
            await self._more.wait()
            if not self._waiting:
                self._more.clear()
                continue
            key, (capability, _) = next(iter(self._waiting.items()))
            try:
                why = await asyncio.to_thread(self._judge, capability)
            except AtmoError as error:
                log.warning("not vetted", capability=capability.descriptor.id, why=error.message)
                why = ""
            _, origins = self._waiting.pop(key)
            self._verdicts[key] = why
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
            for origin in origins if why else ():
                self._refuse(origin, capability, why)
            await asyncio.sleep(self._pause_s)

    def _judge(self, capability: Capability) -> str:
        """Why the vectors do not fit, empty if they do."""
        ours = self._embed(capability.descriptor)
        if ours.encoder != capability.encoder:
            return ""
        if len(ours.views) != len(capability.views):
            return f"it publishes {len(capability.views)} vectors where its text gives {len(ours.views)}"
        worst = float((ours.matrix() * capability.matrix()).sum(axis=1).min())
        return "" if worst >= LEAST_COSINE else f"a vector is at {worst:.2f} to what its text gives"
