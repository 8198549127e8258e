"""How often and how many at once a key may ask.

A token bucket for each key: it holds as many requests as the key may make in a minute and refills evenly, so a burst of
a minute's worth is let through and the mean is kept. Invariant: in any time t at most per_minute * (1 + t / 60 s)
requests are let in. Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from atmo.errors import RateLimited
from atmo.gateway.api_keys import ApiKey

Header = tuple[bytes, bytes]
# A hint for those who ask too much at once; nobody knows when a request will end. A guess.
AT_ONCE_RETRY_S = 1.0


@dataclass(slots=True)
class _Account:
    tokens: float
    at_s: float
    running: int = 0


class Quotas:
    """Accounts of all keys that were used. Bounded by the number of keys."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def enter(self, key: ApiKey, now_s: float) -> list[Header]:
        """Let a request in; each needs its `leave`. Returns headers on what is left. Raises RateLimited."""
        account = self._accounts.setdefault(key.id, _Account(float(key.per_minute), now_s))
        if key.at_once and account.running >= key.at_once:
            raise RateLimited(
                f"The API key asks {account.running} things already, and may ask {key.at_once} at once.",
                retry_after_s=AT_ONCE_RETRY_S,
            )
        headers = self._take(account, key.per_minute, now_s) if key.per_minute else []
        account.running += 1
        return headers

    def leave(self, key: ApiKey) -> None:
        self._accounts[key.id].running -= 1

    def _take(self, account: _Account, per_minute: int, now_s: float) -> list[Header]:
        rate = per_minute / 60.0
        account.tokens = min(float(per_minute), account.tokens + rate * max(0.0, now_s - account.at_s))
        account.at_s = now_s
        if account.tokens < 1.0:
            wait_s = (1.0 - account.tokens) / rate
            raise RateLimited(f"The API key may ask {per_minute} times a minute.", retry_after_s=wait_s)
        account.tokens -= 1.0
        return [
            (b"x-ratelimit-limit-requests", b"%d" % per_minute),
            (b"x-ratelimit-remaining-requests", b"%d" % account.tokens),
            (b"x-ratelimit-reset-requests", b"%.3fs" % ((per_minute - account.tokens) / rate)),
        ]

    def validate(self) -> None:
        assert all(account.running >= 0 and account.tokens >= 0 for account in self._accounts.values())
