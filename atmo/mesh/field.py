"""The gradient field: how long a request would take at each node that could serve it, as this node sees it.

Rows are never changed in transit, so nobody's guess is built on another's guess. Each node computes its own field from
what the origins signed and from what it saw itself. For one candidate, in seconds:

    L     path latency, peak EWMA: L = x if x > L else L*e^(-d/tau) + x*(1 - e^(-d/tau))    (Finagle's Peak EWMA)
    S     service time for work of this size
    Phi   = L + S * (1 + max(0, r + a + 1 - k) / k)   r requests there; a from here, not yet in r; k slots
    Phi'  = w*Phi + (1 - w)*p75                       w = e^(-age/tau_g); p75: of Phi over the class's candidates
    Phi'' = Phi' * (1 + lambda*e)                     e = gamma^dt*e + 1 at a failure, gamma^dt*e in between

`Phi''` is the potential; lower is better. L also counts a first-token wait that nothing explains, and how long our
oldest silent request there is overdue: what hides its queue is found out before its first answer. A load that was
told long ago says little, so a candidate drifts towards what is usual in its class, rather on the slow side. S comes
from seconds a prompt token and an output token that were learned from any mix of requests (pace.py), so hardware that
suits a shape of request is found by itself. Invariants: every potential is finite and positive; an advert cannot push
S below a quarter of the candidates' median; after three answers adverts do not count.

Outlier ejection as Envoy does it: five failures in a row put a candidate out for 30 s, longer each time, and then the
first request decides whether it stays. The decision ignores ejection where it would leave nobody.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId
from atmo.mesh.capability import Load
from atmo.mesh.pace import Size, rates, remember, size_of
from atmo.mesh.remembered import Rankings
from atmo.mesh.table import MAX_SERVICE_S, RoutingTable, RowColumns

Floats = NDArray[np.float64]
_AT = {name: at for at, name in enumerate(RowColumns.TOGETHER)}  # in the block of a row
_IN_FLIGHT, _SLOTS, _OWN, _SAID, _SETTLED = (_AT[name] for name in ("in_flight", "slots", "own", "said_s", "settled_s"))
_SINCE = _AT["since_s"]
_SERVICE, _DECODE, _SAMPLES = _AT["service_s"], _AT["decode_tps"], _AT["samples"]
_PROMPT, _OUTPUT = _AT["prompt_s"], _AT["output_s"]
_EXCESS, _EXCESS_AT, _FAILURES, _FAILED_AT = (
    _AT[name] for name in ("excess_s", "excess_at_s", "failures", "failed_at_s")
)


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """The field's constants. Each says where it comes from."""

    tau_s: float = 10.0  # memory of L, as Finagle's default decay
    tau_staleness_s: float = 20.0  # memory of an advert; a guess: two lifetimes of a GRADIENT row
    failure_half_life_s: float = 10.0  # gamma = 0.5^(1/10 s); a guess
    failure_weight: float = 2.0  # lambda; a guess: one fresh failure makes a node look three times as slow
    learning_rate: float = 0.1  # of the EWMA of S; measured against 0.3 in the simulation of docs/routing.md
    trusted_samples: int = 3  # answers after which adverts count no more
    unknown_rtt_s: float = 0.005  # L before the first measurement; a guess: a slow LAN
    default_service_s: float = 1.0  # S when neither advert nor observation exists; a guess
    least_service_s: float = 0.0005  # no engine here answers faster: one text through the encoder takes as long
    advert_floor: float = 0.25  # an advert's S counts at least so much of the candidates' median S; a guess
    advert_slots: float = 2.0  # an unproven node's slots count at most so many times the candidates' median; a guess
    gossip_delay_s: float = 0.1  # a report may be so old when it leaves: the batch time of gossip
    eject_after: int = 5  # failures in a row; Envoy, consecutive_5xx
    eject_s: float = 30.0  # times the number of ejections; Envoy, base_ejection_time
    eject_most_s: float = 300.0  # Envoy, max_ejection_time


TERMS = (
    "latency_s",
    "service_s",
    "in_flight",
    "own",
    "slots",
    "age_s",
    "weight",
    "phi_s",
    "p75_s",
    "failures",
    "potential_s",
)
"""The terms of the field in the order in which `FieldTerms` holds them; times in seconds, potential is Phi''."""
_TERM = {name: at for at, name in enumerate(TERMS)}


@dataclass(frozen=True, slots=True, eq=False)
class FieldTerms:
    """Every term for n candidates. rows: (n,) int32, rows of the table; values: (len(TERMS), n) float64."""

    rows: NDArray[np.int32]
    values: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, mask: NDArray[np.bool_]) -> FieldTerms:
        """The candidates where mask (n,) is true."""
        return FieldTerms(self.rows[mask], self.values[:, mask])

    def term(self, name: str) -> Floats:
        """(n,) one term by its name."""
        values: Floats = self.values[_TERM[name]]
        return values

    @property
    def potential_s(self) -> Floats:
        """(n,) what is compared: lower is better."""
        values: Floats = self.values[-1]
        return values


class GradientField:
    """Learns from outcomes, writes what it learned into the table's columns, and computes terms from them."""

    def __init__(self, table: RoutingTable, settings: FieldSettings | None = None) -> None:
        self.table = table
        self.settings = settings or FieldSettings()
        self.rankings = Rankings(table)
        self._running: dict[tuple[PeerId, str], _Running] = {}

    def __repr__(self) -> str:
        running = sum(len(own.starts) for own in self._running.values())
        return f"<GradientField {running} of our requests in flight at {len(self._running)} places>"

    def observe_start(self, peer: PeerId, capability_id: str, now: float = -np.inf) -> None:
        """A request was handed to the peer. Exactly one of finish, failure or cancel must follow.

        Without `now` the next report of the peer's load is taken to count it.
        """
        own = self._running.setdefault((peer, capability_id), _Running(deque()))
        own.starts.append(now)
        own.silent.append(now)
        row = self.table.find(peer, capability_id)
        if row >= 0:
            self.table.rows.own[row] = own.fresh()
            self.table.rows.since_s[row] = own.since_s()

    def observe_first_token(
        self, peer: PeerId, capability_id: str, wait_s: float, now: float, prompt_tokens: int = 0
    ) -> None:
        """The first piece came `wait_s` after the start. What neither prefill nor known queueing explains raises L."""
        row = self.table.find(peer, capability_id)
        own = self._running.get((peer, capability_id))
        if own is not None and own.silent:
            own.silent.popleft()
        if row < 0 or not np.isfinite(wait_s):
            return
        self.table.rows.since_s[row] = own.since_s() if own is not None else math.inf
        rows = self.table.rows
        prefill_s = float(rows.prompt_s[row]) * prompt_tokens
        queue = max(0.0, float(rows.in_flight[row] + rows.own[row] - rows.slots[row])) / float(rows.slots[row])
        excess_s = max(0.0, wait_s - prefill_s - queue * float(rows.service_s[row]))
        level, at_s = float(rows.excess_s[row]), float(rows.excess_at_s[row])
        rows.excess_s[row] = peak_ewma(level, excess_s, now - at_s, self.settings.tau_s)
        rows.excess_at_s[row] = now

    def observe_finish(
        self, peer: PeerId, capability_id: str, service_s: float, prompt_tokens: int, output_tokens: int, now: float
    ) -> bool:
        """The answer is complete. service_s: from the start to the last piece, as seen here, less the queueing that the
        peer admits to; a peer that hides its queue therefore looks slow.

        Returns whether the candidate was on trial, having been put out, and is trusted again because of it.
        """
        row = self._end(peer, capability_id)
        if row < 0:
            return False
        rows = self.table.rows
        passed = bool(rows.ejections[row] and rows.streak[row] >= self.settings.eject_after - 1)
        rows.streak[row] = 0
        rows.ejections[row] = max(0, int(rows.ejections[row]) - 1)
        if np.isfinite(service_s) and service_s >= 0:
            self._remember(row, service_s, prompt_tokens, output_tokens)
        return passed

    def _remember(self, row: int, service_s: float, prompt_tokens: int, output_tokens: int) -> None:
        rows = self.table.rows
        spent_s = min(max(service_s, self.settings.least_service_s), MAX_SERVICE_S)
        rows.samples[row] += 1
        rate = max(self.settings.learning_rate, 1.0 / float(rows.samples[row]))  # the first samples average evenly
        means: list[Floats] = [getattr(rows, name) for name in rows.MEANS]
        held = remember([float(mean[row]) for mean in means], size_of(prompt_tokens, output_tokens), spent_s, rate)
        for mean, value in zip(means, held, strict=True):
            mean[row] = value
        rows.prompt_s[row], rows.output_s[row] = rates(held)

    def observe_failure(self, peer: PeerId, capability_id: str, now: float) -> float:
        """The request failed there through the peer's or the path's fault. Not for a cancel or a caller's mistake.

        Returns for how many seconds the candidate is put out because of it, usually 0.
        """
        row = self._end(peer, capability_id)
        if row < 0:
            return 0.0
        rows, settings = self.table.rows, self.settings
        rows.failures[row] = self._failures_left(row, now) + 1.0
        rows.failed_at_s[row] = now
        if now < rows.ejected_until_s[row]:
            return 0.0  # begun before it was put out: known already
        rows.streak[row] += 1
        if rows.streak[row] < settings.eject_after:
            return 0.0
        rows.streak[row] = settings.eject_after - 1  # back on trial: one more, and it is out again
        rows.ejections[row] += 1
        out_s = min(settings.eject_s * int(rows.ejections[row]), settings.eject_most_s)
        rows.ejected_until_s[row] = now + out_s
        return out_s

    def ejected_s(self, peer: PeerId, capability_id: str, now: float) -> float:
        """For how many seconds more the candidate is put out. Usually 0."""
        row = self.table.find(peer, capability_id)
        return max(0.0, float(self.table.rows.ejected_until_s[row]) - now) if row >= 0 else 0.0

    def observe_cancel(self, peer: PeerId, capability_id: str) -> None:
        """The request ended through nobody's fault; only the count of requests in flight changes."""
        self._end(peer, capability_id)

    def observe_rtt(self, peer: PeerId, rtt_s: float, now: float) -> None:
        """A ping came back."""
        if not (np.isfinite(rtt_s) and rtt_s >= 0):
            return
        index, peers = self.table.peer_index(peer), self.table.peers
        level, elapsed_s = float(peers.rtt_s[index]), now - float(peers.rtt_at_s[index])
        peers.rtt_s[index] = peak_ewma(level, rtt_s, elapsed_s, self.settings.tau_s)
        peers.rtt_at_s[index] = now

    def on_feedback(self, peer: PeerId, load: Load, now: float) -> None:
        """Load that came with an answer, told after that request had left its slot. Call `observe_finish` first."""
        self.table.put_load(peer, load, now)
        row = self.table.find(peer, load.capability)
        if row >= 0:
            self._settle(row, now)

    def terms(self, rows: NDArray[np.int32], size: Size, local: PeerId, now: float) -> FieldTerms:
        """The field over candidates of one class. rows: (n,), n >= 1; size: of the request."""
        return self.terms_of_each([rows], size, local, now)[0]

    def terms_of_each(
        self, groups: Sequence[NDArray[np.int32]], size: Size, local: PeerId, now: float
    ) -> list[FieldTerms]:
        """The field over the candidates of several classes, each of which has its own medians. groups: of each class
        its rows, (n,), n >= 1. What is computed one by one is computed for all together: a call of numpy costs more
        than its sums."""
        spans, n = [], 0
        for group in groups:
            spans.append(slice(n, n + len(group)))
            n += len(group)
        rows = groups[0] if len(groups) == 1 else np.concatenate(groups)
        values = self._values(rows, spans, size, local, now)
        return [FieldTerms(group, values[:, span]) for group, span in zip(groups, spans, strict=True)]

    def _values(self, rows: NDArray[np.int32], spans: Sequence[slice], size: Size, local: PeerId, now: float) -> Floats:
        """(len(TERMS), n), see `terms_of_each`. spans: where each class's rows are."""
        columns, n = self.table.rows, len(rows)
        if n == 1:
            return self._values_of_one(int(rows[0]), size, local, now)
        told = columns.block.take(rows, axis=0).T.copy()  # (len(TOGETHER), n); the copy makes each of them contiguous
        if np.count_nonzero(told[_OWN]):
            for at in np.flatnonzero((told[_OWN] > 0) & (told[_SETTLED] != told[_SAID])).tolist():
                self._settle(int(rows[at]), float(told[_SAID, at]) - self.settings.gossip_delay_s)
                told[_OWN, at] = columns.own[rows[at]]
        values = np.empty((len(TERMS), n))
        latency_s, service_s, in_flight, own, slots, age_s, weight, phi_s, p75_s, failures, potential_s = values
        peers = self.table.rows.peer.take(rows)
        here = peers == self.table.find_peer(local)
        latency_s[:] = self._latency(peers, here, told, now)
        service_s[:] = self._service(told, size, spans)
        in_flight[:] = told[_IN_FLIGHT]
        own[:] = told[_OWN]
        slots[:] = self._slots(told, spans)
        queue = in_flight + own
        queue += 1.0
        queue -= slots
        np.maximum(queue, 0.0, out=queue)
        queue /= slots
        queue += 1.0
        np.multiply(queue, service_s, out=phi_s)
        overdue_s = now - told[_SINCE] - phi_s
        np.minimum(overdue_s, MAX_SERVICE_S, out=overdue_s)
        np.maximum(latency_s, overdue_s, out=latency_s)
        phi_s += latency_s
        np.subtract(now, told[_SAID], out=age_s)
        np.maximum(age_s, 0.0, out=age_s)
        if np.count_nonzero(here):
            age_s[here] = 0.0  # of itself a node hears at once
        np.exp(age_s * (-1.0 / self.settings.tau_staleness_s), out=weight)
        for span in spans:
            p75_s[span] = nearest_rank(phi_s[span], 0.75)
        np.subtract(1.0, weight, out=potential_s)
        potential_s *= p75_s
        potential_s += weight * phi_s
        self._weigh_failures(told, failures, potential_s, now)
        return values

    def _values_of_one(self, row: int, size: Size, local: PeerId, now: float) -> Floats:
        """(len(TERMS), 1): the same for a candidate without rivals, whose medians are its own. Without numpy, which
        would take five times as long for one."""
        columns, settings = self.table.rows, self.settings
        told: list[float] = columns.block[row].tolist()
        own, slots = told[_OWN], told[_SLOTS]
        if own > 0 and told[_SETTLED] != told[_SAID]:
            self._settle(row, told[_SAID] - settings.gossip_delay_s)
            own = float(columns.own[row])
        peer = int(columns.peer[row])
        here = peer == self.table.find_peer(local)
        latency_s = 0.0 if here else float(self.table.peers.rtt_s[peer])
        if latency_s < 0:
            latency_s = settings.unknown_rtt_s
        if told[_EXCESS]:
            fading = math.exp(min(told[_EXCESS_AT] - now, 0.0) / settings.tau_s)
            latency_s = max(latency_s, told[_EXCESS] * fading)
        service_s = self._service_of_one(told, size)
        phi_s = service_s * (1.0 + max(0.0, told[_IN_FLIGHT] + own + 1.0 - slots) / slots)
        latency_s = max(latency_s, min(now - told[_SINCE] - phi_s, MAX_SERVICE_S))
        phi_s += latency_s
        age_s = 0.0 if here else max(0.0, now - told[_SAID])
        weight = math.exp(-age_s / settings.tau_staleness_s)
        failures = self._failures_left(row, now) if told[_FAILURES] else 0.0
        potential_s = phi_s * (1.0 + settings.failure_weight * failures)
        terms = (latency_s, service_s, told[_IN_FLIGHT], own, slots, age_s, weight, phi_s, phi_s, failures, potential_s)
        return np.array(terms).reshape(len(TERMS), 1)

    def _service_of_one(self, told: list[float], size: Size) -> float:
        """S of a candidate without rivals: no bound but its own."""
        settings = self.settings
        if told[_SAMPLES] >= settings.trusted_samples:
            service_s = told[_PROMPT] * size.prompt + told[_OUTPUT] * size.output
        elif told[_SERVICE]:
            service_s = told[_SERVICE]
        else:
            service_s = size.units / max(told[_DECODE], 1e-6) if told[_DECODE] > 0 else settings.default_service_s
        return min(max(service_s, settings.least_service_s), MAX_SERVICE_S)

    def _latency(self, peers: NDArray[np.int32], here: NDArray[np.bool_], told: Floats, now: float) -> Floats:
        path_s: Floats = self.table.peers.rtt_s.take(peers)
        unknown = path_s < 0
        if np.count_nonzero(unknown):
            path_s[unknown] = self.settings.unknown_rtt_s
        if np.count_nonzero(here):
            path_s[here] = 0.0
        if np.count_nonzero(told[_EXCESS]):
            fading = np.exp(np.minimum(told[_EXCESS_AT] - now, 0.0) / self.settings.tau_s)
            np.maximum(path_s, told[_EXCESS] * fading, out=path_s)
        return path_s

    def _service(self, told: Floats, size: Size, spans: Sequence[slice]) -> Floats:
        """S: as seen where enough was, else as advertised, within bounds."""
        settings, n = self.settings, told.shape[1]
        known = told[_SAMPLES] >= settings.trusted_samples
        number = np.count_nonzero(known)
        if number:
            seen: Floats = told[_PROMPT] * size.prompt + told[_OUTPUT] * size.output
            np.maximum(seen, settings.least_service_s, out=seen)
            np.minimum(seen, MAX_SERVICE_S, out=seen)
            if number == n:
                return seen
        advert: Floats = told[_SERVICE].copy()
        if np.count_nonzero(advert) < n:
            silent = advert == 0
            tps = told[_DECODE, silent]
            by_rate = np.minimum(size.units / np.maximum(tps, 1e-6), MAX_SERVICE_S)
            advert[silent] = np.where(tps > 0, by_rate, settings.default_service_s)
        np.maximum(advert, settings.least_service_s, out=advert)
        service_s: Floats = np.where(known, seen, advert) if number else advert
        for span in spans:
            floor_s = settings.advert_floor * nearest_rank(service_s[span], 0.5)
            np.maximum(service_s[span], floor_s, out=service_s[span], where=~known[span] if number else True)
        return service_s

    def _slots(self, told: Floats, spans: Sequence[slice]) -> Floats:
        """k: as advertised, but of an unproven node no more than some times what is usual among its rivals."""
        slots: Floats = told[_SLOTS]
        if slots.max() == 1.0:
            return slots
        for span in spans:
            limit = self.settings.advert_slots * nearest_rank(slots[span], 0.5)
            unproven = told[_SAMPLES, span] < self.settings.trusted_samples
            np.minimum(slots[span], limit, out=slots[span], where=unproven)
        return slots

    def _weigh_failures(self, told: Floats, failures: Floats, potential_s: Floats, now: float) -> None:
        """Fills in what is left of each one's failures, and their share of its potential."""
        failures[:] = 0.0
        if np.count_nonzero(told[_FAILURES]):
            past_s = np.maximum(0.0, now - told[_FAILED_AT])
            np.multiply(told[_FAILURES], np.exp2(past_s / -self.settings.failure_half_life_s), out=failures)
            potential_s *= 1.0 + self.settings.failure_weight * failures

    def _failures_left(self, row: int, now: float) -> float:
        past_s = max(0.0, now - float(self.table.rows.failed_at_s[row]))
        return float(self.table.rows.failures[row]) * math.exp2(-past_s / self.settings.failure_half_life_s)

    def _end(self, peer: PeerId, capability_id: str) -> int:
        """One of our requests there ended. The row, or -1."""
        row = self.table.find(peer, capability_id)
        own = self._running.get((peer, capability_id))
        if own is None:
            return row
        counted = own.end_oldest()
        if not own.starts:
            del self._running[peer, capability_id]
        if row >= 0:
            self.table.rows.own[row] = own.fresh()
            self.table.rows.since_s[row] = own.since_s()
            if counted:  # the peer's last report still holds it
                self.table.rows.in_flight[row] = max(0.0, float(self.table.rows.in_flight[row]) - 1.0)
        return row

    def _settle(self, row: int, told_s: float) -> None:
        """Find out which of our requests the peer's report counts. told_s: when it was written, on our clock."""
        columns = self.table.rows
        columns.settled_s[row] = columns.said_s[row]
        own = self._running.get((self.table.row_peer(row), self.table.capability_id[row]))
        if own is not None:
            rtt_s = max(0.0, float(self.table.peers.rtt_s[columns.peer[row]]))
            own.reflect(told_s - rtt_s)
            columns.own[row] = own.fresh()


@dataclass(slots=True)
class _Running:
    """Our requests at one place: when each was started, oldest first, and how many of them the peer's load counts."""

    starts: deque[float]
    counted: int = 0
    silent: deque[float] = field(default_factory=deque)  # starts of those of which nothing has come yet

    def fresh(self) -> int:
        return len(self.starts) - self.counted

    def since_s(self) -> float:
        """When the oldest of the silent ones began, as far as that is known."""
        return self.silent[0] if self.silent and self.silent[0] > -math.inf else math.inf

    def reflect(self, before_s: float) -> None:
        self.counted = sum(1 for start in self.starts if start <= before_s)

    def end_oldest(self) -> bool:
        """Which of several ended is not known and hardly matters: the oldest, most likely. Was it counted there?"""
        if self.starts:
            self.starts.popleft()
        if len(self.silent) > len(self.starts):
            self.silent.popleft()
        if not self.counted:
            return False
        self.counted -= 1
        return True


def peak_ewma(level: float, sample: float, elapsed_s: float, tau_s: float) -> float:
    """Up at once, down slowly. level < 0: no sample before."""
    if level < 0 or sample > level:
        return sample
    keep = float(np.exp(-max(0.0, elapsed_s) / tau_s))
    return level * keep + sample * (1.0 - keep)


def nearest_rank(values: Floats, share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed. values: (n,), n >= 1."""
    rank = max(0, math.ceil(share * len(values)) - 1)
    ordered = values.copy()
    ordered.partition(rank)
    return float(ordered[rank])
