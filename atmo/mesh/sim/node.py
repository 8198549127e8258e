"""A simulated node: a core with a key, an address and a clock that may be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

from atmo.clock import Moment
from atmo.ids import MeshId, Multiaddr, PeerId
from atmo.keys import YEAR_S, Certificate, Identity, Standing, check_certificate, issue_membership
from atmo.keys import verify as verify_ed25519
from atmo.mesh.core import Core
from atmo.mesh.events import Deliver, Effect, Event, RowsChanged
from atmo.mesh.overlay import ViewSizes
from atmo.mesh.roll import Check, Roll
from atmo.mesh.rows import Sign, Verify
from atmo.mesh.timing import MeshTiming
from atmo.mesh.verdict import Reason

EPOCH_S = 1_750_000_000.0


def fast_sign(peer: PeerId) -> Sign:
    """A stand-in for Ed25519 that anyone could forge but nobody forges by accident; sixty times as fast."""
    return lambda domain, payload: hashlib.blake2b(domain + b"\0" + payload, key=peer).digest()


def fast_verify(public: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
    return hashlib.blake2b(domain + b"\0" + payload, key=public).digest() == signature


class FastIdentity(Identity):
    """Signs with the stand-in."""

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        return fast_sign(self.public)(domain, payload)


class _SimRoll(Roll):
    """Counts silent nodes as members although they have shown no certificate: they stand for nodes whose NODE row is
    left out of the simulation to keep its tables small."""

    def __init__(self, check: Check, silent: set[PeerId]) -> None:
        super().__init__(check, lambda standing: True)
        self._silent = silent

    def bars(self, origin: PeerId, wall_s: float) -> Reason | None:
        refused = super().bars(origin, wall_s)
        return None if refused is Reason.UNKNOWN_ORIGIN and origin in self._silent else refused


class Registry:
    """The simulated mesh's root. A certificate is checked once for the whole simulation: what each node would find out
    for itself, with the same result."""

    def __init__(self, *, real_keys: bool) -> None:
        secret = hashlib.sha256(b"the mesh's root").digest()
        self._root = Identity(secret) if real_keys else FastIdentity(secret)
        self.mesh = MeshId(self._root.public)
        self._verify: Verify = verify_ed25519 if real_keys else fast_verify
        self._read: dict[Certificate, Standing] = {}
        self.silent: set[PeerId] = set()  # members without a NODE row, see _SimRoll

    def certify(self, peer: PeerId) -> Certificate:
        """Valid before the simulation begins and long after it ends, whatever a node's clock says."""
        long_ago_s = EPOCH_S - YEAR_S
        return Certificate(issue_membership(self._root, peer, wall_s=long_ago_s, serial=1, lifetime_s=3 * YEAR_S))

    def roll(self) -> Roll:
        return _SimRoll(self._check, self.silent)

    def _check(self, certificate: Certificate) -> Standing:
        if certificate not in self._read:
            self._read[certificate] = check_certificate(certificate, self.mesh, self._verify)
        return self._read[certificate]


class SimNode:
    """number: its place in the simulation, and its port. skew_s: its wall clock minus the true time."""

    def __init__(
        self,
        number: int,
        registry: Registry,
        seed: int,
        timing: MeshTiming,
        sizes: ViewSizes,
        *,
        real_keys: bool,
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
        self.wakes_s: float | None = None  # when its next Tick is scheduled
        self.delivered: list[Deliver] = []
        self.effects: list[tuple[float, Effect]] = []
        self.registry = registry
        self.certificate = registry.certify(self.peer)
        self._mesh = registry.mesh
        self._timing = timing
        self._sizes = sizes
        self._rng = Random(f"core {seed} {number}")  # noqa: S311 - a simulation must be repeatable
        self._sign: Sign = self.identity.sign if real_keys else fast_sign(self.peer)
        self._verify: Verify = verify_ed25519 if real_keys else fast_verify
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
            verify=self._verify,
            timing=self._timing,
            rng=self._rng,
            sizes=self._sizes,
            roll=self.registry.roll(),
            certificate=self.certificate,
        )

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
