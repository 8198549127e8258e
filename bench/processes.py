"""Processes of a benchmark: `atmo` commands in a world of their own, and the promise that nothing stays behind.

A world is a temporary folder with its own ATMO_HOME and ATMO_RUNTIME. Every process started for a scenario has it in
its environment, and by that it is found and ended, however it was started and whoever adopted it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from atmo.client import SyncClient
from atmo.config import load
from atmo.errors import AtmoError

ATMO = (sys.executable, "-m", "atmo")
MARK = "ATMO_HOME"
# A command that takes longer is stuck: the slowest, `node start`, gives up by itself after 30 s.
COMMAND_LIMIT_S = 60.0
# How long a process may take to end when asked before it is killed.
GRACE_S = 5.0
# One computing thread, as a started node has it: the machine is shared with what is measured.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class World:
    """Nodes of one user on one machine, apart from all others."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.runtime = folder / "run"
        self.home.mkdir(parents=True, exist_ok=True)
        self.environment = environment({"ATMO_HOME": str(self.home), "ATMO_RUNTIME": str(self.runtime)})

    def command(self, *words: str) -> str:
        """Run `atmo WORDS` to its end; its output. Raises AtmoError with its last words when it fails."""
        done = subprocess.run(
            [*ATMO, *words], env=self.environment, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False
        )
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout or "It said nothing.").split())
            raise AtmoError(f"`atmo {' '.join(words)}` failed ({done.returncode}): {said}")
        return done.stdout

    def client(self, node: str) -> SyncClient:
        return SyncClient(load(environ=self.environment), node=node)


def environment(more: dict[str, str]) -> dict[str, str]:
    """This process's environment without its own `ATMO_*` settings, and as Python is where somebody installed it: it
    keeps what it compiled."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, **ONE_THREAD, **more}


def of_world(folder: Path) -> list[psutil.Process]:
    """Processes of this user that belong to a world in `folder`, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(folder: Path) -> int:
    """End what is left of the worlds in `folder`, first asking, then by force. How many there were."""
    left = of_world(folder)
    for process in left:
        _try(process.terminate)
    _, stubborn = psutil.wait_procs(left, timeout=GRACE_S)
    for process in stubborn:
        _try(process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE_S)
    return len(left)


def _try(act: Callable[[], None]) -> None:
    try:
        act()
    except psutil.Error:
        pass


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Look every 20 ms. Raises AtmoError when it takes longer than `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AtmoError(f"After {limit_s:.0f} s still not: {what}.")
        time.sleep(0.02)
