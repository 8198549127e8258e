"""A scenario, from its file to its result.

A scenario is `scenarios/NAME.toml` (what, seed, sizes, targets) and a module `bench.NAME` with `run(context)`, which
measures and returns series of samples. Everything else happens here: the seed becomes every source of chance, samples
become percentiles with intervals (stats.py), targets become verdicts, and all of it one `Result`, the schema of the
committed files in `results/`.

Invariant: a result is made of samples that were measured in this run, and a target without enough samples is not met.
"""

from __future__ import annotations

import datetime
import importlib
import random
import sys
import time
import tomllib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import msgspec
import numpy as np

from atmo.errors import UsageError
from bench import machine, stats
from bench.machine import Conditions, Machine

FOLDER = Path(__file__).parent
SCENARIOS = FOLDER / "scenarios"
RESULTS = FOLDER / "results"
SCHEMA = 1

Statistic = Literal["p50", "p95", "p99", "mean", "most", "difference"]
S = TypeVar("S", bound=msgspec.Struct)


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """measure: the name of a series, or of a pair for `difference`; the statistic must lie below the limit."""

    measure: str
    statistic: Statistic
    below: float
    unit: str
    says: str


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of `scenarios/`. limit_s: when the run is given up; full, quick: sizes, whose names the module
    knows."""

    what: str
    seed: int
    limit_s: float
    full: dict[str, Any]
    quick: dict[str, Any]
    target: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """Samples of one thing, in `unit`. note: what a reader of the number must know."""

    name: str
    unit: str
    samples: Sequence[float]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ways measured in turns: the i-th samples of both belong together."""

    name: str
    ours: Series
    baseline: Series


Outcome = Series | Pair


@dataclass
class Context:
    """What a scenario's `run` is given. folder: empty, removed afterwards; all chance comes from `rng` and `chance`."""

    seed: int
    settings: dict[str, Any]
    folder: Path
    rng: np.random.Generator = field(init=False)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.chance = random.Random(self.seed)

    def sizes(self, kind: type[S]) -> S:
        """The sizes as the scenario's own type. Raises UsageError for a missing or unknown one."""
        try:
            return msgspec.convert(self.settings, kind)
        except msgspec.ValidationError as exc:
            raise UsageError(f"The scenario's sizes do not fit: {exc}.", hint="Correct its file.") from exc

    def say(self, text: str) -> None:
        """Progress, for people."""
        print(f"  {text}", file=sys.stderr, flush=True)


class Runner(Protocol):
    """What a scenario's module is."""

    def run(self, context: Context) -> list[Outcome]: ...


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    unit: str
    summary: stats.Summary
    note: str = ""


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ours, baseline: names of measures; difference: of their medians; ratio: the same as a quotient."""

    name: str
    unit: str
    ours: str
    baseline: str
    difference: stats.Estimate
    ratio: float


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A target and what was measured. estimate: None where the samples were too few; met: by the estimate's value."""

    target: Target
    estimate: stats.Estimate | None
    met: bool


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run of one scenario: the schema of `results/NAME.json`. quick: small sizes, not to be cited."""

    schema: int
    scenario: str
    what: str
    quick: bool
    measured_on: str
    wall_s: float
    seed: int
    sizes: dict[str, Any]
    machine: Machine
    conditions: Conditions
    measures: tuple[Measure, ...]
    comparisons: tuple[Comparison, ...]
    verdicts: tuple[Verdict, ...]
    met: bool


def names() -> list[str]:
    """Every scenario, in the order in which `all` runs them."""
    return sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def load(name: str) -> Scenario:
    """Raises UsageError for a scenario that is not there or not well-formed."""
    if name not in names():
        raise UsageError(f"There is no scenario {name!r}.", hint=f"There are: {', '.join(names())}.")
    try:
        return msgspec.convert(tomllib.loads((SCENARIOS / f"{name}.toml").read_text()), Scenario)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise UsageError(f"The scenario file {name}.toml is not right: {exc}.") from exc


def measure(
    name: str,
    scenario: Scenario,
    folder: Path,
    *,
    quick: bool,
    runner: Runner | None = None,
    watch_s: float = machine.WATCH_S,
) -> Result:
    """Run a scenario in this process.

    folder: empty, for whatever it writes; runner: `bench.NAME` if not given; watch_s: how long to see first whether the
    machine is quiet.
    """
    module = runner or cast(Runner, importlib.import_module(f"bench.{name}"))
    settings = scenario.quick if quick else scenario.full
    conditions = machine.watch(watch_s)
    begun_s = time.monotonic()
    outcomes = module.run(Context(scenario.seed, settings, folder))
    return assess(name, scenario, outcomes, conditions, wall_s=time.monotonic() - begun_s, quick=quick)


def assess(
    name: str,
    scenario: Scenario,
    outcomes: Sequence[Outcome],
    conditions: Conditions,
    *,
    wall_s: float,
    quick: bool,
) -> Result:
    """Turn samples into a result. Raises ValueError for a target that nothing was measured for."""
    distinct = {id(one): one for outcome in outcomes for one in _series_of(outcome)}  # pairs may share a series
    series = list(distinct.values())
    measures = {one.name: _summary(one, scenario.seed) for one in series}
    if len(measures) < len(series):
        raise ValueError(f"two series of {name} have one name: {[one.name for one in series]}")
    comparisons = {pair.name: _comparison(pair, measures, scenario.seed) for pair in outcomes if isinstance(pair, Pair)}
    verdicts = tuple(_judge(target, measures, comparisons) for target in scenario.target)
    return Result(
        schema=SCHEMA,
        scenario=name,
        what=scenario.what,
        quick=quick,
        measured_on=datetime.datetime.now(datetime.UTC).date().isoformat(),
        wall_s=round(wall_s, 1),
        seed=scenario.seed,
        sizes=scenario.quick if quick else scenario.full,
        machine=machine.describe(),
        conditions=conditions,
        measures=tuple(measures.values()),
        comparisons=tuple(comparisons.values()),
        verdicts=verdicts,
        met=all(verdict.met for verdict in verdicts),
    )


def write(result: Result, folder: Path, *, beside: str = "") -> Path:
    """Store a result as `folder/NAME.json`, or as `folder/NAME_BESIDE.json` when something else was measured beside it.

    Raises UsageError when that cannot be done.
    """
    file = folder / f"{result.scenario}{beside and '_'}{beside}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    except OSError as exc:
        raise UsageError(f"The result {file} cannot be written: {exc.strerror}.") from exc
    return file


def read(file: Path) -> Result:
    """Raises UsageError for a file that is not a result of this schema."""
    try:
        result = msgspec.json.decode(file.read_bytes(), type=Result)
    except msgspec.MsgspecError as exc:
        raise UsageError(f"{file} is not a result: {exc}.") from exc
    if result.schema != SCHEMA:
        raise UsageError(f"{file} has schema {result.schema}, this is {SCHEMA}.", hint="Measure it again.")
    return result


def _series_of(outcome: Outcome) -> list[Series]:
    return [outcome.ours, outcome.baseline] if isinstance(outcome, Pair) else [outcome]


def _summary(series: Series, seed: int) -> Measure:
    summary = stats.summarise(series.samples, _chance_for(series.name, seed))
    return Measure(series.name, series.unit, summary, series.note)


def _comparison(pair: Pair, measures: dict[str, Measure], seed: int) -> Comparison:
    ours, baseline = measures[pair.ours.name], measures[pair.baseline.name]
    if ours.unit != baseline.unit:
        raise ValueError(f"{ours.unit} cannot be compared with {baseline.unit}")
    difference = stats.median_difference(pair.ours.samples, pair.baseline.samples, _chance_for(pair.name, seed))
    ratio = ours.summary.p50.value / baseline.summary.p50.value
    return Comparison(pair.name, ours.unit, ours.name, baseline.name, difference, ratio)


def _judge(target: Target, measures: dict[str, Measure], comparisons: dict[str, Comparison]) -> Verdict:
    known: dict[str, Any] = comparisons if target.statistic == "difference" else measures
    found = known.get(target.measure)
    if found is None or found.unit != target.unit:
        raise ValueError(f"{target.measure!r} in {target.unit} was not measured, only {list(known)}")
    estimate = found.difference if isinstance(found, Comparison) else _statistic(found.summary, target.statistic)
    return Verdict(target, estimate, estimate is not None and estimate.value < target.below)


def _statistic(summary: stats.Summary, name: Statistic) -> stats.Estimate | None:
    value = getattr(summary, name)
    return stats.Estimate(value, value, value) if isinstance(value, float) else value


def _chance_for(name: str, seed: int) -> np.random.Generator:
    """Equal samples give equal intervals, in whatever order series are summarised."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
