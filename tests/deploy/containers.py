"""What an image would run, run as a process: its variables, its command, its health check."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import Outcome
from tests.deploy.recipes import image

PATIENCE_S = 120.0


class Container:
    """told: its variables, as the image or the compose file says them. swaps: what stands for the container's folders,
    addresses and ports. programs: where its commands are."""

    def __init__(self, told: Mapping[str, str], swaps: Mapping[str, str], programs: Path) -> None:
        self._swaps = swaps
        self.environ = {key: self.swapped(value) for key, value in told.items() if key.startswith("ATMO_")}
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    def swapped(self, text: str) -> str:
        return re.sub("|".join(map(re.escape, self._swaps)), lambda found: self._swaps[found[0]], text)

    def start(self) -> None:
        words = [*image().command("ENTRYPOINT"), *image().command("CMD")]
        self._process = subprocess.Popen(
            self._found(words),
            stdout=subprocess.DEVNULL,
            cwd="/",
            env=self._whole_environment(),
        )

    def run(self, *words: str) -> Outcome:
        """As `docker exec` does: another process with the same variables, to its end."""
        done = subprocess.run(
            self._found(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            cwd="/",
            env=self._whole_environment(),
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def healthy(self) -> bool:
        return self.run(*image().command("HEALTHCHECK")).code == 0

    def stop(self) -> int:
        """As `docker stop` does. Returns the exit code; may be called again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=PATIENCE_S)

    def _found(self, words: tuple[str, ...] | list[str]) -> list[str]:
        """Its program is looked for as the container would, not as this process would."""
        own = self._programs / words[0]
        return [str(own) if own.exists() else words[0], *words[1:]]

    def _whole_environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
        path = f"{self._programs}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", **self.environ}
