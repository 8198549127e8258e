"""Real nodes as real processes for tests: started by the command line, stopped or killed, gone at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atmo.client import SyncClient, running_nodes
from atmo.config import load

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def atmo(*arguments: str, given: str | None = None, **environ: str) -> Outcome:
    """Run `atmo` as a person would, in the test's environment. `given` is standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "atmo", *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environ},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def eventually(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Wait until it is so; returns what made it so. Fails with `what` when it never is."""
    ends_s = time.monotonic() + patience_s
    while not (value := true()):
        assert time.monotonic() < ends_s, f"waited {patience_s:g} s in vain: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Cluster:
    """Nodes of one user on this machine. Use the `cluster` fixture, which ends them all."""

    folder: Path
    pids: dict[str, int] = field(default_factory=dict)

    def start(self, name: str, serve: str = "", *flags: str) -> SyncClient:
        """Start a node with these `[[serve]]` tables (none: the embedded model) and return a client to it."""
        arguments = ["node", "start", "--name", name, *flags]
        if serve:
            file = self.folder / f"{name}.toml"
            file.write_text(serve)
            arguments += ["--config", str(file)]
        outcome = atmo(*arguments, "--json")
        assert outcome.code == 0, outcome.err + outcome.out
        self.pids[name] = outcome.json["node"]["pid"]
        return self.client(name)

    def client(self, name: str) -> SyncClient:
        return SyncClient(load(), node=name)

    def together(self) -> None:
        """Wait until every node sees every other with all that it offers."""
        for name in self.pids:
            eventually(lambda name=name: self._sees_all(name), f"{name} sees all nodes")  # type: ignore[misc]

    def _sees_all(self, name: str) -> bool:
        nodes = self.client(name).mesh()["nodes"]
        return len(nodes) == len(self.pids) and all(
            (node["linked"] or node["self"]) and node["capabilities"] for node in nodes
        )

    def kill(self, name: str) -> None:
        os.kill(self.pids.pop(name), signal.SIGKILL)

    def stop_all(self) -> None:
        pids = {card.pid for card in running_nodes(load())} | set(self.pids.values())
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not any(map(alive, pids)), "all nodes are gone")
        eventually(lambda: not _workers(), "all workers are gone")


def alive(pid: int) -> bool:
    """A zombie is as good as gone: nobody looks after it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _workers() -> list[int]:
    """Worker processes whose parent was one of ours and is gone."""
    orphans = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # a glob would look into processes that end meanwhile
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if b"atmo.inference.worker" in command and parent == 1:
            orphans.append(int(pid))
    return orphans
