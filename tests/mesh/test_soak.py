"""`make soak`, the mesh's part: fifty days of misfortunes, and a million frames that no honest peer would send."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from random import Random

import pytest

from atmo.mesh.sim.life import Life, Report
from tests.mesh.test_codec import good_frames, mutate, survive

SEEDS = range(50)
HOURS = 24.0


def live(seed: int) -> Report | str:
    """A report, or what went wrong: an exception of a worker would end all the others."""
    try:
        return Life(seed).run(HOURS)
    except AssertionError as exc:
        return str(exc)


@pytest.mark.soak
def test_fifty_days_of_random_faults_break_no_invariant_and_serve_999_of_1000_requests() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        days = []
        for day in pool.map(live, SEEDS):
            print(day, flush=True)
            days.append(day)

    assert [day for day in days if isinstance(day, str)] == []
    assert [str(day) for day in days if isinstance(day, Report) and day.availability < 0.999] == []


@pytest.mark.soak
def test_a_million_mutated_frames_do_no_harm() -> None:
    """No exception but the one for it, less than 200 us each, less than 64 MiB in all."""
    rng, good = Random(1_000_000), good_frames()
    slow, before_kib = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1_000_000):
        data = mutate(rng.choice(good), rng)
        began_ns = time.thread_time_ns()
        survive(data)
        slow += time.thread_time_ns() - began_ns > 200_000

    assert slow < 100  # a garbage collection now and then is not the frame's doing
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10
