"""Who is alive: a node's neighbours watch it, accuse it when it falls silent, and bury it if it does not contradict.

Theory of operation. Whoever is linked to a node watches it: the transport's heartbeats are the observations. When a
link is lost the watcher dials again (the direct probe). If that fails, or nothing came of it in `probe_s`, the watcher
*accuses* the node: its own SUSPECT row names (node, generation, incarnation) and is gossiped like any row. Everyone who
has no link to the accused starts a timer then (suspicion.py). When it runs out the node is *dead* here, provided that
this node observed it itself or two others accuse it: one lying accuser buries nobody.

Where not all link to all, a node and all who watch it may die together. So after several deaths a dial that fails to a
node without a link is an observation too (patrol.py).

Only the accused refutes: it raises the incarnation in its NODE row, and accusations of the former one are void. A
renewed row of the same incarnation refutes nothing, for it may have been written before the end. A dead node's rows are
kept out of sight (RowStore.bury) until it refutes; a restart, which is a new generation, does so as well. A node that
was restored from an older copy may count a generation twice: accused in an incarnation that it never had, it begins
another one.

One who was taken for dead must learn of it to refute, so accusations are said again when there is a sign of life of it:
a link, or a row that it cannot have said before (`heard`). Accusations that nothing renews end after `SAID_S`.

Nobody believes anything against a node that it is linked to. What this node says against others waits longer while it
is itself unwell (Awareness). Everything is in memory and expires; a row's TTL remains the backstop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from atmo.ids import PeerId
from atmo.mesh.agenda import Agenda, Chance
from atmo.mesh.events import Health
from atmo.mesh.limits import MAX_CHARGES
from atmo.mesh.rows import Charge
from atmo.mesh.suspicion import CONFIRMATIONS, RECOVERY_S, Awareness, patience_s
from atmo.mesh.timing import MeshTiming

# An accusation stands so long after the last reason for it. A guess: several repairs, half a row's life.
SAID_S = 30.0
# One node says a dead one's accusation again, not all at once: the others hear of it within this time. A guess.
REMIND_MIN_S, REMIND_MAX_S = 0.2, 2.0
# Enough accusers are enough: the accusation of one more changes nobody's mind. Lifeguard gossips the first K.
ENOUGH = CONFIRMATIONS + 2
# A refutation takes some time to reach all; it would be voided by the next one sooner than that. A guess.
REFUTE_INTERVAL_S = 1.0


class Life(NamedTuple):
    """What an accusation names: any later life of the node makes it void."""

    generation: int
    incarnation: int


class Lives(Protocol):
    """What the table knows of lives."""

    def life(self, peer: PeerId) -> tuple[int, int] | None:
        """Of a node that is known, dead or alive."""

    def is_dead(self, peer: PeerId) -> bool: ...

    def population(self) -> int:
        """Nodes that are not dead."""


@dataclass(slots=True)
class _Loss:
    """A link that was lost, or could not be made. failed: so was the direct probe. confirmed: this node accuses."""

    life: Life
    at_s: float
    failed: bool = False
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class _Suspect:
    life: Life
    since_s: float


@dataclass(slots=True)
class _Said:
    life: Life
    until_s: float


@dataclass(slots=True)
class Detector:
    """Pure: observations and the time go in, findings come out of `poll`."""

    own: PeerId
    lives: Lives
    timing: MeshTiming
    rng: Chance
    incarnation: int = 0
    awareness: Awareness = field(default_factory=Awareness)
    _linked: set[PeerId] = field(default_factory=set)
    _excused: set[PeerId] = field(default_factory=set)
    _losses: dict[PeerId, _Loss] = field(default_factory=dict)
    _accusers: dict[PeerId, dict[PeerId, Life]] = field(default_factory=dict)  # of whom, by whom
    _suspects: dict[PeerId, _Suspect] = field(default_factory=dict)
    _said: dict[PeerId, _Said] = field(default_factory=dict)  # what this node's own row says
    _looks: Agenda[PeerId] = field(default_factory=Agenda)  # when to judge whom
    _reminders: Agenda[PeerId] = field(default_factory=Agenda)  # when to say again that one is dead
    _silences: Agenda[PeerId] = field(default_factory=Agenda)  # when to take back an accusation
    _outlived: bool = False  # there was a later life than this one
    _refute_s: float | None = None
    _refuted_s: float = float("-inf")

    # Observations

    def link_up(self, peer: PeerId, now_s: float) -> None:
        self._linked.add(peer)
        self._excused.discard(peer)
        self._losses.pop(peer, None)
        if self.lives.is_dead(peer):
            self._reminders.put(peer, now_s)  # it lives, and must hear what is said of it
        self._touch(peer, now_s)

    def link_down(self, peer: PeerId, now_s: float) -> None:
        """A link was lost: from now on the peer is doubted, unless it said goodbye or was sent away."""
        self._linked.discard(peer)
        life = self._life(peer)
        if peer not in self._excused and life is not None and not self.lives.is_dead(peer):
            self._losses[peer] = _Loss(life, now_s)
        self._touch(peer, now_s)

    def excuse(self, peer: PeerId) -> None:
        """The next loss of its link is this node's own doing and says nothing about the peer."""
        self._excused.add(peer)

    def dial_failed(self, peer: PeerId, now_s: float, *, evidence: bool = False) -> None:
        """evidence: it counts against the peer although this node lost no link to it (patrol.py)."""
        loss, life = self._losses.get(peer), self._life(peer)
        if loss is None and evidence and life is not None and peer not in self._linked and not self.lives.is_dead(peer):
            loss = self._losses[peer] = _Loss(life, now_s)
        if loss is not None:
            loss.failed = True
            self._touch(peer, now_s)

    def accused(self, accuser: PeerId, charges: Sequence[Charge], generation: int, now_s: float) -> None:
        """All that an accuser says now, in place of what it said before. generation: this node's own."""
        named = {PeerId(charge.peer): Life(charge.generation, charge.incarnation) for charge in charges}
        for target in [target for target, by in self._accusers.items() if accuser in by and target not in named]:
            self._retract(accuser, target)
            self._touch(target, now_s)
        for target, life in named.items():
            if target not in (self.own, accuser):
                self._accusers.setdefault(target, {})[accuser] = life
                self._touch(target, now_s)
        self.answer(charges, generation, now_s)

    def answer(self, charges: Sequence[Charge], generation: int, now_s: float) -> None:
        """If this node is accused in its present life, it will refute; in a later one of its generation, it forgot."""
        if Charge(self.own, generation, self.incarnation) in charges and self._refute_s is None:
            self.awareness.accused(now_s)
            self._refute_s = max(now_s, self._refuted_s + REFUTE_INTERVAL_S)
        for charge in charges:
            if charge.peer == self.own and charge.generation == generation and charge.incarnation > self.incarnation:
                self._outlived = True

    def life_changed(self, peer: PeerId, now_s: float) -> None:
        """The node said something new of itself, or is gone."""
        if peer in self._losses or peer in self._suspects or peer in self._said or peer in self._accusers:
            self._touch(peer, now_s)

    def heard(self, peer: PeerId, now_s: float) -> None:
        """A new row of a dead node, in the life that it is dead in: it may be alive and not know that it is doubted."""
        life = self._life(peer)
        said = peer in self._said or life in self._accusers.get(peer, {}).values()
        if life is not None and not said and self._reminders.at(peer) is None:
            self._reminders.put(peer, now_s + self.rng.uniform(REMIND_MIN_S, REMIND_MAX_S))

    # Findings

    def poll(self, now_s: float) -> list[tuple[PeerId, Health]]:
        """What has become of whom. The caller buries the dead at once."""
        for peer in self._reminders.take_due(now_s):
            self._remind(peer, now_s)
        findings = []
        for peer in self._looks.take_due(now_s):
            finding = self._judge(peer, now_s)
            if finding is not None:
                findings.append((peer, finding))
        for peer in self._silences.take_due(now_s):
            self._fall_silent(peer, now_s)
        return findings

    def next_due(self) -> float | None:
        if self._outlived:
            return float("-inf")
        times = (self._looks.next_s(), self._reminders.next_s(), self._silences.next_s(), self._refute_s)
        return min((at_s for at_s in times if at_s is not None), default=None)

    def take_refutation(self, now_s: float) -> bool:
        """True if the own NODE row must be said again, with the incarnation that was just raised."""
        if self._refute_s is None or self._refute_s > now_s:
            return False
        self.incarnation += 1
        self._refute_s, self._refuted_s = None, now_s
        return True

    def take_outlived(self) -> bool:
        """True if this generation was lived before, further than this node remembers: only a new one is believed."""
        outlived, self._outlived = self._outlived, False
        return outlived

    def charges(self) -> tuple[Charge, ...]:
        """What the own SUSPECT row has to say."""
        said = sorted(self._said.items())[:MAX_CHARGES]
        return tuple(Charge(peer, *charge.life) for peer, charge in said)

    def suspects(self) -> frozenset[PeerId]:
        return frozenset(self._suspects)

    def doubts(self, peer: PeerId) -> bool:
        """True if this node itself lost it, and has not heard from it since: what it said is better not told on."""
        return peer in self._losses

    def __repr__(self) -> str:
        return f"<Detector {len(self._suspects)} suspects, {len(self._said)} accused, incarnation {self.incarnation}>"

    # Judging

    def _judge(self, peer: PeerId, now_s: float) -> Health | None:
        life = self._life(peer)
        if life is None or self.lives.is_dead(peer):
            self._losses.pop(peer, None)
            self._suspects.pop(peer, None)
            return None
        observed = self._observe(peer, life, now_s)
        accusers = sum(self._counts(accuser, said, life) for accuser, said in self._accusers.get(peer, {}).items())
        was = self._suspects.get(peer)
        if peer in self._linked or accusers + observed == 0:
            self._suspects.pop(peer, None)
            refuted = was is not None and was.life != life
            return None if was is None else Health.REFUTED if refuted else Health.HEALED
        if was is None or was.life != life:
            was = self._suspects[peer] = _Suspect(life, now_s)
            finding: Health | None = Health.SUSPECT
        else:
            finding = None
        if observed:
            self._accuse(peer, life, accusers, now_s)
        if observed or accusers >= 2:
            wait_s = patience_s(self.timing.suspicion_s, self.lives.population(), accusers + observed - 1)
            due_s = self._patient(was.since_s, wait_s * self.awareness.multiplier(now_s), now_s)
            if due_s <= now_s:
                del self._suspects[peer]
                self._losses.pop(peer, None)
                return Health.DEAD
            self._looks.put_if_sooner(peer, due_s)
        return finding

    def _observe(self, peer: PeerId, life: Life, now_s: float) -> bool:
        """Did this node itself lose it, and fail to get it back?"""
        loss = self._losses.get(peer)
        if loss is None:
            return False
        if loss.life != life:  # it said something since, in a later life
            del self._losses[peer]
            return False
        if not loss.confirmed:
            factor = self.awareness.multiplier(now_s) - (1.0 if loss.failed else 0.0)
            confirm_s = self._patient(loss.at_s, self.timing.probe_s * factor, now_s)
            loss.confirmed = confirm_s <= now_s
            if not loss.confirmed:
                self._looks.put_if_sooner(peer, confirm_s)
        return loss.confirmed

    def _counts(self, accuser: PeerId, said: Life, life: Life) -> bool:
        return said == life and self._life(accuser) is not None and not self.lives.is_dead(accuser)

    def _accuse(self, peer: PeerId, life: Life, others: int, now_s: float) -> None:
        said = self._said.get(peer)
        if said is not None and said.life == life:
            said.until_s = now_s + SAID_S
        elif others < ENOUGH:
            self._say(peer, life, now_s)

    def _remind(self, peer: PeerId, now_s: float) -> None:
        life = self._life(peer)
        if life is None or not self.lives.is_dead(peer):
            return
        if peer in self._linked or life not in self._accusers.get(peer, {}).values():
            self._say(peer, life, now_s)

    def _say(self, peer: PeerId, life: Life, now_s: float) -> None:
        self._said[peer] = _Said(life, now_s + SAID_S)
        self._silences.put(peer, now_s + SAID_S)

    def _fall_silent(self, peer: PeerId, now_s: float) -> None:
        """Take back an accusation that is void, mistaken or old."""
        said = self._said.get(peer)
        if said is None:
            return
        back = peer in self._linked and not self.lives.is_dead(peer)
        if said.life != self._life(peer) or said.until_s <= now_s or back:
            del self._said[peer]
        else:
            self._silences.put(peer, said.until_s)

    def _patient(self, since_s: float, wait_s: float, now_s: float) -> float:
        """When the wait is over; in time to look again if this node may trust itself more by then."""
        due_s = since_s + wait_s
        if due_s > now_s and self.awareness.multiplier(now_s) > 1.0:
            return min(due_s, now_s + RECOVERY_S)
        return due_s

    def _retract(self, accuser: PeerId, target: PeerId) -> None:
        del self._accusers[target][accuser]
        if not self._accusers[target]:
            del self._accusers[target]

    def _life(self, peer: PeerId) -> Life | None:
        life = self.lives.life(peer)
        return Life(*life) if life is not None else None

    def _touch(self, peer: PeerId, now_s: float) -> None:
        """Something happened that may matter: judge it at once."""
        self._looks.put_if_sooner(peer, now_s)
        if peer in self._said:
            self._silences.put_if_sooner(peer, now_s)
