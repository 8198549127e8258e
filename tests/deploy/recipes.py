"""What the Dockerfile and the compose file say, read the way that Docker reads them, for tests that have no Docker."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"


@dataclass(frozen=True)
class Stage:
    """The instructions between one FROM and the next, in their order: `("ENV", "A=b C=d")`."""

    instructions: tuple[tuple[str, str], ...]

    def all(self, word: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == word]

    def last(self, word: str) -> str:
        return self.all(word)[-1]

    def command(self, word: str) -> list[str]:
        """Of ENTRYPOINT, CMD or HEALTHCHECK in their JSON form."""
        return [str(part) for part in json.loads(self.last(word)[self.last(word).index("[") :])]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (pair for line in self.all("ENV") for pair in shlex.split(line))
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    found: list[list[tuple[str, str]]] = []
    for line in logical:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest.strip()))
    return [Stage(tuple(stage)) for stage in found]


def image() -> Stage:
    """What the image is told at its end."""
    return stages(DOCKERFILE.read_text())[-1]


def compose() -> dict[str, Any]:
    whole: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return whole
