"""The gradient field: how long a request would take at each node that could serve it, as this node sees it.

Rows are never changed in transit, so nobody's guess is built on another's guess. Each node computes its own field from
what the origins signed and from what it saw itself. For one candidate, in seconds:

    L     path latency, peak EWMA: L = x if x > L else L*e^(-d/tau) + x*(1 - e^(-d/tau))    (Finagle's Peak EWMA)
    S     service time for work of this size
    Phi   = L + S * (1 + max(0, r + a + 1 - k) / k)   r requests there; a from here, not yet in r; k slots
    Phi'  = w*Phi + (1 - w)*p75                       w = e^(-age/tau_g); p75: of Phi over the class's candidates
    Phi'' = Phi' * (1 + lambda*e)                     e = gamma^dt*e + 1 at a failure, gamma^dt*e in between

`Phi''` is the potential; lower is better. A load that was told long ago says little, so a candidate drifts towards
what is usual in its class, rather on the slow side. Size is counted in units of work (`work_units`), so that a node's
seconds a unit, learned from any mix of requests, give the S of the next one. Invariants: every potential is finite and
positive; an advert cannot push S below a quarter of the candidates' median; after three answers adverts do not count.

Outlier ejection as Envoy does it: five failures in a row put a candidate out for 30 s, longer each time, and then the
first request decides whether it stays. The decision ignores ejection where it would leave nobody.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId
from atmo.mesh.capability import Load
from atmo.mesh.table import MAX_SERVICE_S, RoutingTable

Floats = NDArray[np.float64]

PREFILL_SHARE = 1 / 8  # work of a prompt token against an output token; a guess between 1/4 (two cores) and 1/50 (GPU)


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
        values: Floats = self.values[TERMS.index(name)]
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
        row = self.table.find(peer, capability_id)
        if row >= 0:
            self.table.rows.own[row] = own.fresh()

    def observe_first_token(
        self, peer: PeerId, capability_id: str, wait_s: float, now: float, prompt_tokens: int = 0
    ) -> None:
        """The first piece came `wait_s` after the start. What neither prefill nor known queueing explains raises L."""
        row = self.table.find(peer, capability_id)
        if row < 0 or not np.isfinite(wait_s):
            return
        rows = self.table.rows
        prefill_s = float(rows.unit_s[row]) * prompt_tokens * PREFILL_SHARE
        queue = max(0.0, float(rows.in_flight[row] + rows.own[row] - rows.slots[row])) / float(rows.slots[row])
        excess_s = max(0.0, wait_s - prefill_s - queue * float(rows.service_s[row]))
        level, at_s = float(rows.excess_s[row]), float(rows.excess_at_s[row])
        rows.excess_s[row] = peak_ewma(level, excess_s, now - at_s, self.settings.tau_s)
        rows.excess_at_s[row] = now

    def observe_finish(
        self, peer: PeerId, capability_id: str, service_s: float, prompt_tokens: int, output_tokens: int, now: float
    ) -> None:
        """The answer is complete. service_s: from the start to the last piece, as seen here, less the queueing that the
        peer admits to; a peer that hides its queue therefore looks slow."""
        row = self._end(peer, capability_id)
        if row < 0:
            return
        rows = self.table.rows
        rows.streak[row] = 0
        rows.ejections[row] = max(0, int(rows.ejections[row]) - 1)
        if not (np.isfinite(service_s) and service_s >= 0):
            return
        unit_s = min(max(service_s, self.settings.least_service_s), MAX_SERVICE_S) / work_units(
            prompt_tokens, output_tokens
        )
        rows.samples[row] += 1
        rate = max(self.settings.learning_rate, 1.0 / int(rows.samples[row]))  # the first samples average evenly
        rows.unit_s[row] += rate * (unit_s - float(rows.unit_s[row]))

    def observe_failure(self, peer: PeerId, capability_id: str, now: float) -> float:
        """The request failed there through the peer's or the path's fault. Not for a cancel or a caller's mistake.

        Returns for how many seconds the candidate is put out because of it, usually 0.
        """
        row = self._end(peer, capability_id)
        if row < 0:
            return 0.0
        rows, settings = self.table.rows, self.settings
        rows.failures[row] = float(self._failures(np.array([row]), now)[0]) + 1.0
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

    def terms(self, rows: NDArray[np.int32], units: float, local: PeerId, now: float) -> FieldTerms:
        """The field over candidates of one class. rows: (n,), n >= 1; units: of the request, see `work_units`."""
        columns = self.table.rows
        for row in rows[(columns.own[rows] > 0) & (columns.settled_s[rows] != columns.said_s[rows])].tolist():
            self._settle(row, float(columns.said_s[row]) - self.settings.gossip_delay_s)
        values = np.empty((len(TERMS), len(rows)))
        latency_s, service_s, in_flight, own, slots, age_s, weight, phi_s, p75_s, failures, potential_s = values
        latency_s[:] = self._latency(rows, local, now)
        service_s[:] = self._service(rows, units)
        in_flight[:], own[:], slots[:] = columns.in_flight[rows], columns.own[rows], columns.slots[rows]
        phi_s[:] = latency_s + service_s * (1.0 + np.maximum(0.0, in_flight + own + 1.0 - slots) / slots)
        age_s[:] = np.maximum(0.0, now - columns.said_s[rows])
        weight[:] = np.exp(age_s / -self.settings.tau_staleness_s)
        p75_s[:] = nearest_rank(phi_s, 0.75)
        failures[:] = self._failures(rows, now)
        potential_s[:] = weight * phi_s + (1.0 - weight) * p75_s
        potential_s *= 1.0 + self.settings.failure_weight * failures
        return FieldTerms(rows, values)

    def _latency(self, rows: NDArray[np.int32], local: PeerId, now: float) -> Floats:
        columns, peers = self.table.rows, self.table.peers
        index = columns.peer[rows]
        rtt_s = peers.rtt_s[index]
        path_s = np.where(rtt_s < 0, self.settings.unknown_rtt_s, rtt_s)
        path_s[index == self.table.find_peer(local)] = 0.0
        fading = np.exp((columns.excess_at_s[rows] - now) / self.settings.tau_s)
        worst: Floats = np.maximum(path_s, columns.excess_s[rows] * np.minimum(fading, 1.0))
        return worst

    def _service(self, rows: NDArray[np.int32], units: float) -> Floats:
        columns, settings = self.table.rows, self.settings
        decode_tps = columns.decode_tps[rows]
        by_rate = np.where(decode_tps > 0, np.minimum(units / np.maximum(decode_tps, 1e-6), MAX_SERVICE_S), 0.0)
        advert = np.where(columns.service_s[rows] > 0, columns.service_s[rows], by_rate)
        advert = np.where(advert > 0, np.maximum(advert, settings.least_service_s), settings.default_service_s)
        known = columns.samples[rows] >= settings.trusted_samples
        seen = columns.unit_s[rows] * units
        floor = settings.advert_floor * nearest_rank(np.where(known, seen, advert), 0.5)
        service_s: Floats = np.where(known, seen, np.maximum(advert, floor))
        return service_s

    def _failures(self, rows: NDArray[np.int32] | NDArray[np.intp], now: float) -> Floats:
        columns = self.table.rows
        past_s = np.maximum(0.0, now - columns.failed_at_s[rows])
        left: Floats = columns.failures[rows] * np.exp2(-past_s / self.settings.failure_half_life_s)
        return left

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

    def fresh(self) -> int:
        return len(self.starts) - self.counted

    def reflect(self, before_s: float) -> None:
        self.counted = sum(1 for start in self.starts if start <= before_s)

    def end_oldest(self) -> bool:
        """Which of several ended is not known and hardly matters: the oldest, most likely. Was it counted there?"""
        if self.starts:
            self.starts.popleft()
        if not self.counted:
            return False
        self.counted -= 1
        return True


def work_units(prompt_tokens: float, output_tokens: float) -> float:
    """The size of a request: output tokens, and prompt tokens at their share. At least 1."""
    return max(1.0, output_tokens + prompt_tokens * PREFILL_SHARE)


def peak_ewma(level: float, sample: float, elapsed_s: float, tau_s: float) -> float:
    """Up at once, down slowly. level < 0: no sample before."""
    if level < 0 or sample > level:
        return sample
    keep = float(np.exp(-max(0.0, elapsed_s) / tau_s))
    return level * keep + sample * (1.0 - keep)


def nearest_rank(values: Floats, share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed. values: (n,), n >= 1."""
    rank = max(0, int(np.ceil(share * len(values))) - 1)
    return float(np.partition(values, rank)[rank])
