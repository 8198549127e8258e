"""API keys: made and revoked by the command line, looked up by the gateway.

A key is 256 random bits, so its SHA-256 keeps it as well as any slow hash: there is nothing to guess. Only the digest
is stored. A revoked key stays in the file, marked: were it gone, revoking the last one would open the gateway
to everybody.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from atmo.errors import ConfigError, UsageError

PREFIX = "sk-atmo-"
SECRET_BYTES = 32
# How old what a running node knows of the file may be, in seconds: a revoked key is refused after this at the latest.
RELOAD_S = 0.5

Limit = Annotated[int, Meta(ge=0, le=1_000_000)]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is stored of a key. per_minute, at_once: requests, 0 for no limit; models: names it may use, none for all;
    times in seconds since 1970, revoked_s 0 for one that is good."""

    id: str
    digest: str
    created_s: float
    name: str = ""
    per_minute: Limit = 0
    at_once: Limit = 0
    models: tuple[str, ...] = ()
    revoked_s: float = 0.0


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: tuple[ApiKey, ...]


class KeyFile:
    """The keys of a user's nodes on this machine, in one file of mode 600. All raise ConfigError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> tuple[ApiKey, ...]:
        """All keys, revoked ones included, in the order they were made."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_File).keys
        except FileNotFoundError:
            return ()
        except OSError as exc:
            raise ConfigError(f"The API keys in {self.path} cannot be read: {exc.strerror}.") from exc
        except msgspec.MsgspecError as exc:
            raise ConfigError(
                f"The API keys in {self.path} are damaged.", hint="Delete the file and make new keys."
            ) from exc

    def create(
        self, wall_s: float, name: str, per_minute: int, at_once: int, models: tuple[str, ...]
    ) -> tuple[str, ApiKey]:
        """A new key's secret, which is nowhere afterwards, and what is stored of it. Raises UsageError."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        made = ApiKey(
            id=secrets.token_hex(4),
            digest=digest_of(secret),
            created_s=round(wall_s, 3),
            name=name,
            per_minute=per_minute,
            at_once=at_once,
            models=models,
        )
        with self._changing() as keys:
            if name and any(key.name == name and not key.revoked_s for key in keys):
                raise UsageError(f"There is a key named {name!r}.", hint="Take another name, or revoke that one.")
            self._write((*keys, made))
        return secret, made

    def revoke(self, which: str, wall_s: float) -> ApiKey:
        """By id or name. Raises UsageError for one that is not there."""
        with self._changing() as keys:
            found = next((key for key in keys if which in (key.id, key.name) and not key.revoked_s), None)
            if found is None:
                raise UsageError(f"There is no key {which!r}.", hint="See: atmo keys list")
            gone = msgspec.structs.replace(found, revoked_s=round(wall_s, 3))
            self._write(tuple(gone if key is found else key for key in keys))
        return gone

    @contextmanager
    def _changing(self) -> Iterator[tuple[ApiKey, ...]]:
        """One writer at a time, on this machine."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ConfigError(
                f"The API keys cannot be kept in {self.path.parent}: {exc.strerror}.",
                hint="Set ATMO_HOME or --home to a folder that you may write to.",
            ) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.all()
        finally:
            os.close(lock)

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        """So that a crash at any moment leaves the old file or the new one."""
        fresh = self.path.with_suffix(".new")
        data = msgspec.json.format(msgspec.json.encode(_File(1, keys)), indent=1)
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError as exc:
            raise ConfigError(f"The API keys in {self.path} cannot be written: {exc.strerror}.") from exc


class KeyRing:
    """The keys as a running node knows them. Changes of the file are seen within RELOAD_S."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        self._good: dict[str, ApiKey] = {}
        self._seen: tuple[int, int, int] | None = None
        self._due_s = float("-inf")
        self.any = False  # keys were made at some time: from then on one is needed

    def load(self) -> None:
        """Raises ConfigError."""
        self._seen = self._stamp()
        keys = self._file.all()
        self._good = {key.digest: key for key in keys if not key.revoked_s}
        self.any = bool(keys)

    def find(self, secret: str) -> ApiKey | None:
        return self._good.get(digest_of(secret))

    def refresh(self, now_s: float) -> None:
        """Look whether the file has changed, if that was not done just now. A damaged file changes nothing and raises
        ConfigError."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + RELOAD_S
        if self._stamp() != self._seen:
            self.load()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def __repr__(self) -> str:
        return f"<KeyRing {len(self._good)} keys>"


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
