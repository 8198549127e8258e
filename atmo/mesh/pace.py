"""How long work takes at one place, learned from what was asked of it: seconds a prompt token and an output token.

A graphics card reads a prompt two hundred times as fast as it writes, a small processor four times; so the time of a
long prompt with a short answer says little about the opposite, unless both rates are told apart. For each outcome with
x prompt tokens, y output tokens and t seconds, in units of work u = s x + y (s: the share of a prompt token), let
x' = x/u, y' = y/u, t' = t/u: every request counts alike, however long. The rates p and o minimise

    E[(p x' + o y' - t')^2] + K (p - s o)^2

where E is an average that forgets. The second term holds the usual ratio while all requests are of one shape: there p
and o cannot be told apart, and p x + o y is the mean of t' times u. It yields as soon as shapes differ. Least squares
with a ridge, five averages for each place, solved in closed form. Invariant: rates are finite and not negative, and
not both zero unless all times were.
"""

from __future__ import annotations

from typing import NamedTuple

PREFILL_SHARE = 1 / 8  # work of a prompt token against an output token; a guess between 1/4 (two cores) and 1/50 (GPU)
# K: (0.3 / share)^2 / 19 samples: times scatter by 0.3, an average of rate 0.1 holds 19 samples, and the ratio of a
# place is off the usual one by about as much as itself.
RIDGE = 0.3
PROMPT_PROMPT, PROMPT_OUTPUT, OUTPUT_OUTPUT, PROMPT_TIME, OUTPUT_TIME = range(5)


class Size(NamedTuple):
    """Of a request, in tokens. Without any it counts as one output token."""

    prompt: float
    output: float

    @property
    def units(self) -> float:
        """Output tokens, and prompt tokens at their share; at least 1."""
        return max(1.0, self.output + self.prompt * PREFILL_SHARE)


def size_of(prompt_tokens: float, output_tokens: float) -> Size:
    """The size with at least one unit of work in it."""
    prompt, output = max(0.0, prompt_tokens), max(0.0, output_tokens)
    return Size(prompt, output + max(0.0, 1.0 - output - prompt * PREFILL_SHARE))


def remember(means: list[float], size: Size, time_s: float, rate: float) -> list[float]:
    """The five averages with one more outcome. rate: its weight, 1 for the first."""
    units = size.units
    x, y, t = size.prompt / units, size.output / units, time_s / units
    return [
        mean + rate * (value - mean) for mean, value in zip(means, (x * x, x * y, y * y, x * t, y * t), strict=True)
    ]


def rates(means: list[float]) -> tuple[float, float]:
    """Seconds a prompt token and an output token."""
    a = means[PROMPT_PROMPT] + RIDGE
    b = means[PROMPT_OUTPUT] - RIDGE * PREFILL_SHARE
    c = means[OUTPUT_OUTPUT] + RIDGE * PREFILL_SHARE**2
    p_time, o_time = means[PROMPT_TIME], means[OUTPUT_TIME]
    determinant = a * c - b * b  # at least RIDGE, because s x' + y' = 1
    prompt_s = (c * p_time - b * o_time) / determinant
    output_s = (a * o_time - b * p_time) / determinant
    if prompt_s < 0:
        return 0.0, o_time / c
    if output_s < 0:
        return p_time / a, 0.0
    return prompt_s, output_s
