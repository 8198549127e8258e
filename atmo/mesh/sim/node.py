"""A simulated node: a core with a key, an address and a clock that may be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

from atmo.clock import Moment
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import Identity
from atmo.keys import verify as verify_ed25519
from atmo.mesh.core import Core
from atmo.mesh.events import Deliver, Effect, Event, RowsChanged
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.rows import Sign, Verify
from atmo.mesh.timing import MeshTiming

EPOCH_S = 1_750_000_000.0


def fast_sign(peer: PeerId) -> Sign:
    """A stand-in for Ed25519 that anyone could forge but nobody forges by accident; sixty times as fast."""
    return lambda domain, payload: hashlib.blake2b(domain + b"\0" + payload, key=peer).digest()


def fast_verify(public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
    return hashlib.blake2b(domain + b"\0" + payload, key=public).digest() == signature


class SimNode:
    """number: its place in the simulation, and its port. skew_s: its wall clock minus the true time."""

    def __init__(
        self, number: int, mesh: MeshId, seed: int, timing: MeshTiming, sizes: ViewSizes, *, real_keys: bool
    ) -> None:
        self.number = number
        self.identity = Identity(hashlib.sha256(f"node {seed} {number}".encode()).digest())
        self.peer = self.identity.public
        self.address = Multiaddr(f"10.0.{number >> 8}.{number & 255}", 4600, self.peer)
        self.reachable = True
        self.speaks = True  # False: it publishes nothing of itself
        self.offers = "atmo:chat:nano"  # what it offers again after a restart
        self.alive = True
        self.skew_s = 0.0
        self.backlog: list[Event] | None = None  # what happened to it while it was paused; None while it runs
        self.generation = 0
        self.began_s = 0.0  # when it started, in simulated time
        self.wakes_s: float | None = None  # when its next Tick is scheduled
        self.delivered: list[Deliver] = []
        self.effects: list[tuple[float, Effect]] = []
        self._mesh = mesh
        self._timing = timing
        self._sizes = sizes
        self._rng = Random(f"core {seed} {number}")  # noqa: S311 - a simulation must be repeatable
        self._sign: Sign = self.identity.sign if real_keys else fast_sign(self.peer)
        self._genuine: Verify = verify_ed25519 if real_keys else fast_verify
        self.checked = 0  # signatures, in all its lives
        self.watch: Callable[[RowsChanged], None] | None = None
        self.start(1)

    def start(self, generation: int) -> None:
        """A new life: nothing is remembered but the key."""
        self.alive = True
        self.backlog = None
        self.generation = generation
        self.wakes_s = None
        self.core = Core(
            peer=self.peer,
            mesh=self._mesh,
            generation=generation,
            sign=self._sign,
            verify=self.verify,
            timing=self._timing,
            rng=self._rng,
            sizes=self._sizes,
        )

    def verify(self, public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
        self.checked += 1
        return self._genuine(public, domain, payload, signature)

    def moment(self, time_s: float) -> Moment:
        return Moment(time_s, EPOCH_S + time_s + self.skew_s)

    def remember(self, time_s: float, effect: Effect) -> None:
        """Keep what the simulation itself does not carry out, for tests to look at."""
        if isinstance(effect, Deliver):
            self.delivered.append(effect)
        elif isinstance(effect, RowsChanged):
            if self.watch is not None:
                self.watch(effect)
        else:
            self.effects.append((time_s, effect))

    def __repr__(self) -> str:
        return f"<SimNode {self.number} {'alive' if self.alive else 'dead'} {self.core!r}>"
