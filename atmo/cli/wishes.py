"""From options to what is wished of a request; light, because `atmo ask` waits for it."""

from __future__ import annotations

from typing import Any


def wishes(
    model: str,
    kind: str,
    where: list[str] | None,
    system: str,
    max_tokens: int,
    temperature: float,
    seed: int,
    timeout: float,
) -> dict[str, Any]:
    """Raises ConfigError for a condition that is none."""
    return {
        "model": model,
        "type": kind,
        "constraints": pairs(where, "--where"),
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "timeout_s": timeout,
    }


def pairs(given: list[str] | None, option: str) -> dict[str, Any]:
    """`["residency=eu"]` -> `{"residency": "eu"}`. Raises ConfigError."""
    if not given:
        return {}
    from atmo.environment import parse_labels

    return dict(parse_labels(given, option))
