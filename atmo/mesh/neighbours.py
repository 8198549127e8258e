"""Whom to dial, where and when: everyone while the mesh is small, and then whom the overlay names (overlay.py).

A target is a peer with its known addresses, or an address whose peer is not known yet. A target without a link is
dialled, and again after each failure with exponential backoff and jitter (for ever: a seed may be switched on later,
and one dial a minute costs nothing), its addresses in turn. What a NODE row named is a target while that row lives.

A link costs both ends some milliseconds of CPU, and a machine that has none to spare loses links because of that: what
it does about it must not make it worse. So a link that was lost soon after it came up is dialled later each time (as
route flaps are damped, RFC 2439); the end that had dialled it dials first; and of dials that are repeated there are
only so many at once as come to an end in time (`Window`). First dials do not wait for repeated ones.

In a large mesh (`everyone` False) only addresses from discovery are dialled again, ten times as seldom: a thousand
nodes may remember the same seed, and most of them are no neighbours of it: a link to it that ends, be it after seconds,
is dialled again no sooner than that while there are others. Others are dialled once, by `seek`, and the overlay chooses
again if that fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from atmo.errors import UsageError
from atmo.ids import Multiaddr, PeerId, parse_multiaddr
from atmo.mesh.agenda import Agenda, Chance
from atmo.mesh.timing import MeshTiming

# Addresses from discovery that are kept. A guess: a LAN's worth.
MAX_HINTS = 1024
# Dials without an outcome yet. A guess: enough to link a small mesh in a few round trips.
MAX_DIALS = 32
# A link that stood so long was sound, whatever ended it. A guess: several times what it takes to notice that it is not.
STOOD_S = 10.0
# Flaps after which the wait is not doubled any more: 8 to 16 s. A guess.
MAX_FLAPS = 5
# How many more redial_min_s the end that did not dial waits for the other to dial again. The other's first dial comes
# before that, and both before MeshTiming.probe_s is over.
PATIENT = 2.0
# Repeated dials at once, at first and at the least, and how long a dial takes for which nobody has time. Guesses.
FIRST_WINDOW, LEAST_WINDOW = 16.0, 4.0
SLOW_DIAL_S = 1.0
# Nodes learned of by gossip are dialled at once while there are so few; each further one spreads the dials over so much
# more time. Guesses: who enters a large mesh hears how large it is before it has dialled all of it.
AT_ONCE, SPREAD_S = 4, 0.03
# How much more seldom an address from discovery is dialled again in a large mesh. A guess.
SELDOM = 10.0

Target = PeerId | Multiaddr


@dataclass(slots=True)
class _Prospect:
    """told: from the peer's own row; hints: from discovery, the latest first; failures: since the last link; flaps: of
    how many links in a row none stood; up_s, outbound: when the last link came up, and whether this node dialled it."""

    told: tuple[Multiaddr, ...] = ()
    hints: tuple[Multiaddr, ...] = ()
    failures: int = 0
    flaps: int = 0
    up_s: float = float("-inf")
    outbound: bool = True

    @property
    def addresses(self) -> tuple[Multiaddr, ...]:
        return tuple(dict.fromkeys(self.hints + self.told))


@dataclass(slots=True)
class Window:
    """How many repeated dials may be under way: more after each that led to a link, half after each that took too long
    to fail (additive increase, multiplicative decrease, as of TCP's congestion window; RFC 5681)."""

    size: float = FIRST_WINDOW

    def ended(self, linked: bool, took_s: float) -> None:
        if linked:
            self.size = min(float(MAX_DIALS), self.size + 1.0)
        elif took_s >= SLOW_DIAL_S:
            self.size = max(LEAST_WINDOW, self.size / 2.0)


@dataclass(slots=True)
class Neighbours:
    own: PeerId
    timing: MeshTiming
    rng: Chance
    everyone: bool = True
    _prospects: dict[Target, _Prospect] = field(default_factory=dict)
    _linked: set[PeerId] = field(default_factory=set)
    _avoided: dict[Target, float] = field(default_factory=dict)  # not to be dialled before that time
    _agenda: Agenda[Target] = field(default_factory=Agenda)  # when to dial
    _dialled: Agenda[Target] = field(default_factory=Agenda)  # when a dial in progress has failed
    _window: Window = field(default_factory=Window)

    def told(self, peer: PeerId, addresses: Iterable[str], now_s: float) -> None:
        """A peer's NODE row names its addresses. Those that do not parse, or name another peer, are passed over."""
        if peer == self.own:
            return
        prospect = self._prospects.setdefault(peer, _Prospect())
        was, prospect.told = prospect.told, tuple(_addresses_of(peer, addresses))
        if prospect.told != was and self.everyone:
            at_s = now_s + (self.timing.courtesy_s if self.own > peer else 0.0)
            many = len(self._prospects) - AT_ONCE
            self._consider(peer, at_s + self.rng.uniform(0.0, many * SPREAD_S) if many > 0 else at_s)

    def link_to_all(self, everyone: bool, now_s: float) -> None:
        """Everyone is a target, or only whom discovery or the overlay names."""
        if everyone == self.everyone:
            return
        self.everyone = everyone
        for target, prospect in self._prospects.items():
            if everyone and prospect.addresses:
                self._consider(target, now_s + self.rng.uniform(0.0, 2.0 * self.timing.courtesy_s))
            elif not everyone and not prospect.hints:
                self._agenda.drop(target)

    def seek(self, peer: PeerId, addresses: Iterable[str], now_s: float) -> Multiaddr | None:
        """The address to dial this peer at now, for the overlay. None if there is none, or it is dialled already."""
        prospect = self._prospects.get(peer)
        known = tuple(_addresses_of(peer, addresses)) or (prospect.addresses if prospect else ())
        if not known or peer in self._linked or self._dialled.at(peer) is not None:
            return None
        if self._avoided_until_s(peer, now_s) > now_s or len(self._dialled) >= MAX_DIALS:
            return None
        self._agenda.drop(peer)
        self._dialled.put(peer, now_s + self.timing.dial_timeout_s)
        return known[int(self.rng.random() * len(known))]

    def dials(self, peer: PeerId) -> bool:
        """True while a dial to it may still succeed."""
        return self._dialled.at(peer) is not None

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Where a peer can be dialled, as far as it is known; without its name, which the caller knows."""
        prospect = self._prospects.get(peer)
        return tuple(str(replace(address, peer=None)) for address in prospect.addresses) if prospect else ()

    def discovered(self, address: Multiaddr, now_s: float) -> None:
        target: Target = address if address.peer is None else address.peer
        if target == self.own:
            return
        prospect = self._prospects.setdefault(target, _Prospect())
        if address not in prospect.hints:
            prospect.hints = (address, *prospect.hints)[:4]
            self._bound_hints()
            prospect.failures = 0
            self._consider(target, now_s)
        else:  # announced again, so probably switched on again; but announcements may be many
            prospect.failures = min(prospect.failures, 2)
            self._consider(target, now_s + self.timing.redial_min_s * 2.0**prospect.failures)

    def node_gone(self, peer: PeerId) -> None:
        prospect = self._prospects.get(peer)
        if prospect is not None:
            prospect.told = ()
            if not prospect.hints:
                self._drop(peer)

    def alive(self, peer: PeerId, now_s: float) -> None:
        """There is news of a peer that seemed dead: dial as if nothing had failed."""
        prospect = self._prospects.get(peer)
        if prospect is not None and prospect.addresses:
            prospect.failures = 0
            self._consider(peer, now_s)

    def link_up(self, peer: PeerId, address: Multiaddr | None, outbound: bool, now_s: float) -> None:
        self._linked.add(peer)
        prospect = self._prospects.setdefault(peer, _Prospect())
        prospect.failures = 0
        prospect.up_s, prospect.outbound = now_s, outbound
        self._agenda.drop(peer)
        self._ended(peer, outbound, now_s)
        if address is not None:
            nameless = replace(address, peer=None)
            if nameless in self._prospects:  # now it is known who is there
                self._drop(nameless)
                prospect.hints = (replace(address, peer=peer), *prospect.hints)[:4]

    def link_down(self, peer: PeerId, now_s: float) -> None:
        self._linked.discard(peer)
        prospect = self._prospects.get(peer)
        if prospect is not None and not prospect.addresses:
            self._drop(peer)
        elif prospect is not None:
            prospect.flaps = 0 if now_s - prospect.up_s >= STOOD_S else min(prospect.flaps + 1, MAX_FLAPS)
            patience_s = 0.0 if prospect.outbound else PATIENT * self.timing.redial_min_s
            self._retry(peer, prospect, now_s, patience_s, leisurely=not self.everyone and bool(self._linked))

    def dial_failed(self, address: Multiaddr, now_s: float) -> None:
        target: Target = address if address.peer is None else address.peer
        prospect = self._prospects.get(target)
        if self._dialled.at(target) is not None:
            self._ended(target, False, now_s)
            if prospect is not None:
                self._retry(target, prospect, now_s)

    def avoid(self, peer: PeerId, until_s: float) -> None:
        """Do not dial it before that, whatever happens."""
        self._avoided[peer] = until_s
        if self._agenda.at(peer) is not None:
            self._agenda.put(peer, until_s)

    def due(self, now_s: float) -> list[Multiaddr]:
        """The addresses to dial now."""
        for target in self._dialled.take_due(now_s):
            self._window.ended(False, self.timing.dial_timeout_s)
            if target in self._prospects:
                self._retry(target, self._prospects[target], now_s)
        dials = []
        for target in self._agenda.take_due(now_s):
            prospect = self._prospects.get(target)
            if prospect is None or not prospect.addresses or target in self._linked:
                continue
            repeated = prospect.failures > 0 or prospect.flaps > 0
            if len(self._dialled) >= (int(self._window.size) if repeated else MAX_DIALS):
                self._agenda.put(target, now_s + self.timing.redial_min_s * self.rng.uniform(0.1, 0.5))
                continue
            self._dialled.put(target, now_s + self.timing.dial_timeout_s)
            dials.append(prospect.addresses[prospect.failures % len(prospect.addresses)])
        return dials

    def next_due(self) -> float | None:
        times = [at_s for at_s in (self._agenda.next_s(), self._dialled.next_s()) if at_s is not None]
        return min(times, default=None)

    def __repr__(self) -> str:
        return f"<Neighbours {len(self._linked)} linked, {len(self._dialled)} dialled, {len(self._agenda)} to dial>"

    def validate(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        for target, prospect in self._prospects.items():
            if prospect.addresses and target not in self._linked:
                waits = self._agenda.at(target) is not None or self._dialled.at(target) is not None
                assert waits or not (self.everyone or prospect.hints), "a prospect that nobody will ever dial"

    def _consider(self, target: Target, at_s: float) -> None:
        if target not in self._linked and self._dialled.at(target) is None:
            self._agenda.put_if_sooner(target, max(at_s, self._avoided_until_s(target, at_s)))

    def _ended(self, target: Target, linked: bool, now_s: float) -> None:
        """A dial has come to its end."""
        until_s = self._dialled.at(target)
        if until_s is not None:
            self._dialled.drop(target)
            self._window.ended(linked, now_s - (until_s - self.timing.dial_timeout_s))

    def _retry(
        self, target: Target, prospect: _Prospect, now_s: float, patience_s: float = 0.0, *, leisurely: bool = False
    ) -> None:
        if target in self._linked or not (self.everyone or prospect.hints):
            return
        most_s = self.timing.redial_max_s * (1.0 if self.everyone or not self._linked else SELDOM)
        wait_s = min(most_s, self.timing.redial_min_s * 2.0 ** min(prospect.failures + prospect.flaps, 16))
        if leisurely:
            wait_s = most_s
        prospect.failures += 1
        at_s = now_s + patience_s + wait_s * self.rng.uniform(0.5, 1.0)
        self._agenda.put(target, max(at_s, self._avoided_until_s(target, now_s)))

    def _avoided_until_s(self, target: Target, now_s: float) -> float:
        until_s = self._avoided.get(target, float("-inf"))
        if until_s <= now_s:
            self._avoided.pop(target, None)
        return until_s

    def _drop(self, target: Target) -> None:
        self._prospects.pop(target, None)
        self._agenda.drop(target)
        self._dialled.drop(target)

    def _bound_hints(self) -> None:
        hinted = [target for target, prospect in self._prospects.items() if prospect.hints and not prospect.told]
        for target in hinted[: max(0, len(hinted) - MAX_HINTS)]:
            if target not in self._linked:
                self._drop(target)


# A node's addresses are the same in each of its renewals; parsing them is a tenth of what a renewal costs (measured).
_parsed = lru_cache(maxsize=4096)(parse_multiaddr)


def _addresses_of(peer: PeerId, texts: Iterable[str]) -> Iterable[Multiaddr]:
    for text in texts:
        try:
            address = _parsed(text)
        except UsageError:
            continue  # its owner's mistake, and only its owner's loss
        if address.peer in (None, peer):
            yield replace(address, peer=peer)
