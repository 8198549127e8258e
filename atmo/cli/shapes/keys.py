"""Keys of the API."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Key(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key without its secret. per_minute, at_once: 0 for no limit; models: empty for all; revoked_s: null while
    it is good."""

    id: str
    name: str
    created_s: float
    per_minute: int
    at_once: int
    models: list[str]
    revoked_s: float | None


class NewKey(Key, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """key: the secret, which is shown this once."""

    key: str


class Keys(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Revoked ones included."""

    keys: list[Key]


class RevokedKey(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key as it is now."""

    revoked: Key
