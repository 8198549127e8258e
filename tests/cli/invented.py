"""A node that says what one in a mesh of any size would say, as a process that can die (bench/invented.py)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class InventedNode:
    """A process that says what a node of a mesh of any size would say."""

    def __init__(self, count: int) -> None:
        self._words = [sys.executable, "-m", "bench.invented", str(count)]
        self.start()

    def start(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self._words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.close()

    def close(self) -> None:
        """It ends when its input does."""
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.communicate(timeout=20)
