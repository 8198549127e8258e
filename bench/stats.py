"""Percentiles with intervals, and the difference of two paired series.

Theory of operation. A percentile is a value that was measured: the k-th smallest of n samples with k = ceil(share * n)
(nearest rank). Its interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13): what the same
percentile would be in resamples of the same samples. A resample is n uniform draws mapped to the sorted samples by a
monotone function, so its k-th smallest is the image of the k-th smallest of n uniforms, which is Beta(k, n - k + 1)
distributed (Hutson and Ernst 2000, "The exact bootstrap mean and variance of an L-estimator"). Drawing that one number
instead of n gives the same interval in constant time for any n.

For two ways measured in turns, the pairs are resampled, not the values: whatever disturbed both at one moment stays
together. Samples of one run are not quite independent (a disturbance lasts), so true intervals are somewhat wider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 4000  # steadies both ends of a 95% interval to about a hundredth of its width; a guess
CONFIDENCE = 0.95
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A statistic with its 95% interval, in the unit of its samples."""

    value: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A series in numbers. A percentile is None where too few samples stand above it to know it (1 in 100 for p99)."""

    samples: int
    mean: float
    least: float
    most: float
    p50: Estimate
    p95: Estimate | None
    p99: Estimate | None


def percentile(values: Sequence[float] | Floats, share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed. Raises ValueError without values."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[rank(len(ordered), share)])


def rank(n: int, share: float) -> int:
    """The position, from 0, of the percentile among n sorted values."""
    if n < 1 or not 0 < share <= 1:
        raise ValueError(f"there is no percentile {share} of {n} values")
    return max(1, math.ceil(share * n - 1e-9)) - 1


def estimate(values: Sequence[float] | Floats, share: float, rng: np.random.Generator) -> Estimate:
    """A percentile with its bootstrap interval. values: (n,), n >= 1."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n, at = len(ordered), rank(len(values), share)
    drawn = rng.beta(at + 1, n - at, RESAMPLES)
    resampled = ordered[np.minimum((drawn * n).astype(np.intp), n - 1)]
    return Estimate(float(ordered[at]), *_interval(resampled))


def summarise(values: Sequence[float] | Floats, rng: np.random.Generator) -> Summary:
    """values: (n,), n >= 1 and finite, else ValueError."""
    samples = np.asarray(values, dtype=np.float64)
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"{len(samples)} samples, {int(np.isfinite(samples).sum())} of them finite")
    known = {
        name: estimate(samples, share, rng) if len(samples) * (1 - share) >= 1 - 1e-9 else None
        for name, share in SHARES.items()
    }
    median = known["p50"] or estimate(samples, 0.5, rng)
    return Summary(
        len(samples),
        float(samples.mean()),
        float(samples.min()),
        float(samples.max()),
        median,
        known["p95"],
        known["p99"],
    )


def median_difference(
    ours: Sequence[float] | Floats, baseline: Sequence[float] | Floats, rng: np.random.Generator
) -> Estimate:
    """median(ours) - median(baseline), the pairs resampled. Both (n,), the i-th of each measured side by side."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs are needed, not {len(a)} values against {len(b)}")
    drawn = rng.integers(len(a), size=(RESAMPLES, len(a)))
    resampled = _medians(a[drawn]) - _medians(b[drawn])
    return Estimate(percentile(a, 0.5) - percentile(b, 0.5), *_interval(resampled))


def _medians(samples: Floats) -> Floats:
    """samples: (resamples, n); the nearest-rank median of each row."""
    at = rank(samples.shape[1], 0.5)
    medians: Floats = np.partition(samples, at, axis=1)[:, at]
    return medians


def _interval(resampled: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    return percentile(resampled, tail), percentile(resampled, 1 - tail)
