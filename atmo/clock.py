"""Time as an argument: whoever needs the time is handed a clock, so that tests and the simulator can own it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Moment(NamedTuple):
    """One instant on both clocks: `mono_s` orders and measures, `wall_s` is compared with other machines' dates."""

    mono_s: float
    wall_s: float


class Clock(Protocol):
    """`now()` in seconds, monotonic, of arbitrary origin; `wall()` in seconds since 1970, UTC."""

    def now(self) -> float: ...

    def wall(self) -> float: ...


def moment(clock: Clock) -> Moment:
    return Moment(clock.now(), clock.wall())


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass
class ManualClock:
    """A clock that moves only when told to. `skew_s` shifts the wall clock, as a badly set machine would."""

    time_s: float = 0.0
    epoch_s: float = 1_750_000_000.0
    skew_s: float = 0.0

    def now(self) -> float:
        return self.time_s

    def wall(self) -> float:
        return self.epoch_s + self.time_s + self.skew_s

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time does not run backwards ({seconds} s)")
        self.time_s += seconds
