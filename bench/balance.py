"""What the choice of node is worth: many routers, many servers, reports of several ages, against the usual ways.

One sample of each series is one request; several seeds follow each other. Useful work is what was answered within
`DEADLINE_S`, as a share of what was asked; efficiency is that over what an omniscient scheduler reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from bench.fleet import Mishap, Run, Setting, new_fleet, simulate
from bench.harness import Context, Outcome, Series
from bench.policies import POLICIES

DEADLINE_S = 5.0  # mean requests of a slow server
OURS = "this"


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """requests: of each run; report_every: staleness, in mean requests of a slow server; wrong: servers of a mishap."""

    routers: int
    servers: int
    requests: int
    load: float
    report_every: tuple[float, ...]
    seeds: int
    wrong: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    found: list[Outcome] = []
    worst: list[float] = []
    efficiency: list[float] = []
    for mixed in (True, False):
        p99: dict[tuple[str, float], float] = {}
        for every in sizes.report_every:
            runs = {name: _runs(sizes, name, context.seed, mixed=mixed, every=every) for name in POLICIES}
            for name, done in runs.items():
                series = _times(done, f"{name}, {'mixed' if mixed else 'alike'}, reports every {every:g}")
                found.append(series)
                p99[name, every] = float(np.percentile(series.samples, 99))
            efficiency += _efficiency(runs[OURS], runs["omniscient"])
            worst.append(_mean(runs[OURS]) / _mean(runs["power of two"]))
            context.say(f"{'mixed' if mixed else 'alike'} speeds, reports every {every:g}: done")
        fresh, old = p99[OURS, min(sizes.report_every)], p99[OURS, max(sizes.report_every)]
        found.append(Series(f"p99 of old over fresh, {'mixed' if mixed else 'alike'}", "ratio", [old / fresh]))
    found.append(Series("mean time over power of two's", "ratio", worst, "one sample for each place of the grid"))
    found.append(Series("work lost against omniscient", "share", [1 - each for each in efficiency], "1 - efficiency"))
    return [*found, *_mishaps(context, sizes)]


def _mishaps(context: Context, sizes: Sizes) -> Iterator[Series]:
    for mishap in (Mishap.LIAR, Mishap.SLOW, Mishap.DEAD):
        runs = _runs(sizes, OURS, context.seed, mixed=True, every=sizes.report_every[0], mishap=mishap)
        lost = sum(each.lost for each in runs)
        yield _times(runs, f"{mishap.value} servers", f"{sizes.wrong} of {sizes.servers}; {lost} attempts lost")

        if mishap is Mishap.LIAR:
            setting = _setting(sizes, context.seed, mixed=True, every=1.0, mishap=mishap)
            yield Series("a liar's share over its fair one", "ratio", [liars_share(setting, each) for each in runs])
        context.say(f"{mishap.value}: done")


def liars_share(setting: Setting, done: Run, learnt: int = 3) -> float:
    """What liars got over their share of the fleet's speed, counting for each router and liar the requests that were
    routed after so many outcomes."""
    speeds = setting.speeds
    wrong = [server for server in range(setting.servers) if setting.is_wrong(server)]
    outcomes = np.zeros((setting.routers, setting.servers), dtype=np.int64)
    got, fair = 0, 0.0
    for router, server, sent in done.log:
        if sent:
            fair += sum(speeds[liar] for liar in wrong if outcomes[router, liar] >= learnt) / sum(speeds)
            got += setting.is_wrong(server) and outcomes[router, server] >= learnt
        else:
            outcomes[router, server] += 1
    return got / fair if fair else 0.0


def _setting(sizes: Sizes, seed: int, *, mixed: bool, every: float, mishap: Mishap = Mishap.NONE) -> Setting:
    wrong = 0 if mishap is Mishap.NONE else sizes.wrong
    return Setting(
        sizes.routers,
        sizes.servers,
        sizes.requests,
        sizes.load,
        every,
        mixed=mixed,
        mishap=mishap,
        wrong=wrong,
        seed=seed,
    )


def _runs(sizes: Sizes, name: str, seed: int, *, mixed: bool, every: float, mishap: Mishap = Mishap.NONE) -> list[Run]:
    runs = []
    for number in range(sizes.seeds):
        setting = _setting(sizes, seed + number, mixed=mixed, every=every, mishap=mishap)
        fleet = new_fleet(setting)
        runs.append(simulate(setting, fleet, POLICIES[name](setting, fleet)))
    return runs


def _times(runs: Sequence[Run], name: str, note: str = "") -> Series:
    return Series(name, "mean requests", [time_s for each in runs for time_s in each.settled()], note)


def _mean(runs: Sequence[Run]) -> float:
    return float(np.mean([np.mean(each.settled()) for each in runs]))


def _efficiency(ours: Sequence[Run], best: Sequence[Run]) -> list[float]:
    return [one.useful(DEADLINE_S) / other.useful(DEADLINE_S) for one, other in zip(ours, best, strict=True)]
