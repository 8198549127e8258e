"""Tutorials and how-tos as scripts. A shell or Python block under `<!-- MACHINE -->` is run on that machine, one of
TOML is its configuration, any other is for the reader.

    <!-- ward: exits 5, shows data_residency -->

says how it must end and what it must print; without, it must end well. Each machine is a home folder of its own.

    <!-- given ward: cp "$NANO" ~/Downloads/model.gguf -->

is what the reader has done before, and the page does not say: a shell command.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atmo.client import running_nodes
from atmo.config import load
from atmo.transport.neighbours import NodeCard
from tests.cluster import eventually
from tests.deploy.ports import Ports

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
_STEP = re.compile(
    r"<!-- (?P<machine>\w+)(?:: (?P<terms>[^\n]*?))? -->\n```(?P<language>sh|python|toml)\n(?P<script>.*?)```"
    r"|<!-- given (?P<owner>\w+): (?P<given>[^\n]*) -->",
    re.DOTALL,
)
_SHELL = ("bash", "-euo", "pipefail", "-c")
# What is configured is checked.
_RUN_BY = {
    "sh": _SHELL,
    "python": (sys.executable, "-c"),
    "toml": (*_SHELL, 'cat > ~/.atmo/config.toml <<< "$0"; atmo config check'),
}
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
    language: str = "sh"

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
        machine, script = match["machine"] or match["owner"], match["script"] or match["given"]
        exits, shows = int(terms.get("exits", 0)), terms.get("shows", "")
        found.append(Step(machine, script, exits, shows, line, match["language"] or "sh"))
    return found


@dataclass
class World:
    """The machines of one tutorial, in `place`."""

    place: Path
    machines: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    ports: Ports = field(default_factory=Ports)

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
            [*_RUN_BY[step.language], self._filled_in(step.script, environ)],
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
            "ATMO_HOME": str(home / ".atmo"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "NANO": str(ROOT / "atmo/assets/nano/atmo-nano.gguf"),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "200",
            "ATMO_DISCOVERY_LAN": "false",
            "ATMO_DISCOVERY_RUNTIMES": "false",
            "ATMO_GATEWAY_PORT": str(self.ports.one()),
        }

    def close(self) -> None:
        for card in self._running():
            os.kill(card.pid, signal.SIGTERM)
        eventually(lambda: not self._running(), "all nodes are gone", PATIENCE_S)
        self.ports.close()

    def _running(self) -> list[NodeCard]:
        return [card for environ in self.machines.values() for card in running_nodes(load(environ=environ))]
