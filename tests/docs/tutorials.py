"""Tutorials as scripts. A shell block under `<!-- MACHINE -->` is run on that machine, any other is for the reader.

    <!-- ward: exits 5, shows data_residency -->

says how it must end and what it must print; without, it must end well. Each machine is a home folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.ports import free_ports

PATIENCE_S = 60.0
_STEP = re.compile(r"<!-- (?P<machine>\w+)(?:: (?P<terms>.*?))? -->\n```sh\n(?P<script>.*?)```", re.DOTALL)
# What the reader puts in its place, and how it is known in what a machine printed.
_SECRETS = {"TOKEN": re.compile(r"atmo1-\S+"), "KEY": re.compile(r"sk-atmo-\S+")}


@dataclass(frozen=True)
class Step:
    """One block of a tutorial."""

    machine: str
    script: str
    exits: int
    shows: str
    line: int

    @property
    def changes_nothing(self) -> bool:
        """It may be asked again, as a person would who waits for the other machine."""
        return self.script.startswith(("atmo mesh\n", "atmo mesh members", "atmo route", "atmo ask", "curl"))


def steps(page: Path) -> list[Step]:
    text = page.read_text()
    found = []
    for match in _STEP.finditer(text):
        terms = dict(term.split(" ", 1) for term in (match["terms"] or "").split(", ") if term)
        line = text[: match.start()].count("\n") + 1
        found.append(Step(match["machine"], match["script"], int(terms.get("exits", 0)), terms.get("shows", ""), line))
    return found


@dataclass
class World:
    """The machines of one tutorial, in `place`."""

    place: Path
    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def play(self, story: Sequence[Step]) -> None:
        """Raises AssertionError with the step that did not go as it is written. What a step should show may take its
        time, so it is asked again until it does."""
        for step in story:
            ends_s = time.monotonic() + PATIENCE_S
            while wrong := self._wrong(step):
                assert step.changes_nothing, f"line {step.line}, {step.machine}$ {step.script}{wrong}"
                assert time.monotonic() < ends_s, f"never: line {step.line}, {step.machine}$ {step.script}{wrong}"

    def _wrong(self, step: Step) -> str:
        if step.machine not in self.machines:
            self.machines[step.machine] = self._machine(step.machine)
        environ = self.machines[step.machine]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._filled_in(step.script, environ)],
            cwd=environ["HOME"],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        said = done.stdout + done.stderr
        for name, pattern in _SECRETS.items():
            if secret := pattern.search(done.stdout):
                self.secrets[name] = secret[0]
        return "" if done.returncode == step.exits and step.shows in said else f"exit code {done.returncode}\n{said}"

    def _filled_in(self, script: str, environ: dict[str, str]) -> str:
        """As the reader would; and no machine of a test is open to others."""
        for name, secret in self.secrets.items():
            script = re.sub(rf"\b{name}\b", secret, script)
        return script.replace("0.0.0.0", "127.0.0.1").replace(":4680", f":{environ['ATMO_GATEWAY_PORT']}")

    def _machine(self, name: str) -> dict[str, str]:
        home = self.place / name
        (home / "run").mkdir(parents=True, mode=0o700)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ATMO_")}
        return kept | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "200",
            "ATMO_DISCOVERY_LAN": "false",
            "ATMO_DISCOVERY_RUNTIMES": "false",
            "ATMO_GATEWAY_PORT": str(free_ports(1)[0]),
        }

    def close(self) -> None:
        for environ in self.machines.values():
            subprocess.run(["atmo", "node", "stop", "--all"], env=environ, capture_output=True, check=False, timeout=60)
