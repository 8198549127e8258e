"""The audit trail: who asked which model when, where it was answered, and how it ended. Never what was said.

Rows are written by a thread of their own, many in one transaction, so that no request waits for a disk; a crash loses
the last moments at most. SQLite in WAL mode: others may read while the node writes. Bounded by age and by rows.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from atmo.errors import ConfigError
from atmo.gateway.trace import Trace

log = structlog.get_logger("atmo.audit")

# Rows that may wait for the disk; beyond that they are dropped, and the log says how many. A guess: seconds of traffic.
MAX_WAITING = 20_000
# Rows in one transaction. A guess: some milliseconds of disk.
BATCH_ROWS = 500
# How often old rows are looked for, in seconds.
PRUNE_S = 600.0
DAY_S = 86_400.0

_SCHEMA = """
create table if not exists requests (
  id text not null, at_s real not null, door text not null, key text not null, endpoint text not null,
  asked text not null, capability text not null, node text not null, mesh_id text not null, decision text not null,
  retries integer not null, resumed integer not null, status integer not null, code text not null,
  prompt_tokens integer not null, output_tokens integer not null, cached_tokens integer not null,
  first_s real not null, total_s real not null);
create index if not exists requests_at on requests (at_s);
"""
_INSERT = f"insert into requests values ({', '.join('?' * 19)})"  # noqa: S608 - only question marks
Row = tuple[Any, ...]


class Audit:
    """path: the database, made if it is not there. max_days, max_rows: what is kept. `start` raises ConfigError."""

    def __init__(self, path: Path, *, max_days: float, max_rows: int, wall: Callable[[], float]) -> None:
        self.path = path
        self._max_days, self._max_rows = max_days, max_rows
        self._wall = wall
        self._waiting: queue.SimpleQueue[Row | threading.Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def start(self) -> None:
        try:
            self.path.touch(mode=0o600)
            with sqlite3.connect(self.path) as database:
                database.execute("pragma journal_mode = wal")
                database.executescript(_SCHEMA)
            database.close()
        except (sqlite3.Error, OSError) as exc:
            raise ConfigError(
                f"The audit trail {self.path} cannot be used: {exc}.", hint="Move it away; a new one is begun."
            ) from exc
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def record(self, trace: Trace) -> None:
        """Does not wait."""
        if self._waiting.qsize() >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.put(
            (
                trace.id, self._wall() - trace.total_s, trace.door, trace.key, trace.endpoint, trace.asked[:200],
                trace.capability, trace.node, trace.mesh_id, trace.why, trace.retries, trace.resumed, trace.status,
                trace.code, trace.prompt_tokens, trace.output_tokens, trace.cached_tokens, trace.first_s, trace.total_s,
            )
        )  # fmt: skip

    def flush(self) -> None:
        """Return when everything recorded so far is on disk."""
        if self._thread is not None:
            done = threading.Event()
            self._waiting.put(done)
            done.wait()

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _write(self) -> None:
        database = sqlite3.connect(self.path)
        prune_due_s = 0.0
        try:
            while True:
                rows, flushed, ended = self._batch()
                self._store(database, rows)
                if time.monotonic() >= prune_due_s:
                    prune_due_s = time.monotonic() + PRUNE_S
                    self._prune(database)
                for done in flushed:
                    done.set()
                if ended:
                    return
        finally:
            database.close()

    def _batch(self) -> tuple[list[Row], list[threading.Event], bool]:
        """Wait for something to do, then take what is there: rows, who waits for them, and whether it is the end."""
        rows: list[Row] = []
        flushed: list[threading.Event] = []
        item = self._waiting.get()
        while True:
            if item is None:
                return rows, flushed, True
            if isinstance(item, threading.Event):
                flushed.append(item)
            else:
                rows.append(item)
            if len(rows) >= BATCH_ROWS:
                return rows, flushed, False
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return rows, flushed, False

    def _store(self, database: sqlite3.Connection, rows: list[Row]) -> None:
        if self._dropped:
            log.warning("audit rows dropped", rows=self._dropped)
            self._dropped = 0
        if not rows:
            return
        try:
            with database:
                database.executemany(_INSERT, rows)
        except sqlite3.Error as exc:  # a full disk must not end the node; the log says what is missing
            log.warning("the audit trail could not be written", rows=len(rows), why=str(exc))

    def _prune(self, database: sqlite3.Connection) -> None:
        """Forget what is too old, and the oldest of what is too much."""
        try:
            with database:
                database.execute("delete from requests where at_s < ?", (self._wall() - self._max_days * DAY_S,))
                database.execute(
                    "delete from requests where rowid <= (select max(rowid) from requests) - ?", (self._max_rows,)
                )
        except sqlite3.Error as exc:
            log.warning("old audit rows could not be deleted", why=str(exc))
