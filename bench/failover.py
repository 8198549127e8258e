"""Serving nodes killed with SIGKILL at a random token: is every answer whole, and how long is the reader kept waiting?

The model is a parrot (tests/inference/gguf_maker.py): it sings one known song, so that a token which is lost, doubled
or changed shows. Nodes that were killed are started again while the next answers are given by others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from atmo.client import SyncClient
from atmo.errors import AtmoError
from bench import processes
from bench.harness import Context, Outcome, Series
from tests.inference.gguf_maker import song, write_parrot

ASKING = "asking"
READY_LIMIT_S = 40.0


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """nodes: that serve; kills: answers, each with one; tokens: of each answer."""

    nodes: int
    kills: int
    tokens: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    singers = _Singers(context.folder, sizes.nodes)
    broken, gaps_s = [], []
    try:
        asker = singers.asker()
        for number in range(sizes.kills):
            processes.wait_until(lambda: len(_ready(asker)) >= 2, READY_LIMIT_S, "two nodes that sing")
            whole, gap_s = _one(context, sizes, singers, asker)
            broken.append(0.0 if whole else 1.0)
            gaps_s.append(gap_s)
            if (number + 1) % 20 == 0:
                context.say(f"{number + 1} answers, {sum(broken):.0f} not whole")
    finally:
        singers.end()
    return [
        Series("answers not whole", "answers", broken, "0 or 1 for each answer"),
        Series("gap", "s", gaps_s, "the longest silence in the answer, at the API socket"),
    ]


def _one(context: Context, sizes: Sizes, singers: _Singers, asker: SyncClient) -> tuple[bool, float]:
    """One answer with a kill in it: is it whole, and its longest silence in seconds after the first word."""
    at_token = context.chance.randrange(1, sizes.tokens // 2)
    text, count, node, killed = "", 0, "", False
    gap_s, last_s = 0.0, 0.0
    try:
        for event in asker.stream("sing", model="parrot", max_tokens=sizes.tokens, timeout_s=60).steps():
            if event["event"] == "route":
                node = event["chosen"]["node"]
            elif event["event"] == "text":
                now_s = time.monotonic()
                gap_s = max(gap_s, now_s - last_s) if last_s else 0.0
                last_s = now_s
                text += event["text"]
                count += len(event["token_ids"])
                if count >= at_token and not killed:
                    killed = True
                    singers.replace(node)
    except AtmoError as error:
        context.say(f"broken at token {count}: {error.message}")
    return killed and text == song(sizes.tokens), gap_s


def _ready(asker: SyncClient) -> list[str]:
    """The nodes that sing now, as the asking node knows."""
    return [
        node["name"]
        for node in asker.mesh()["nodes"]
        if node["linked"] and any(offer["ready"] for offer in node["capabilities"])
    ]


class _Singers:
    """Nodes that serve the parrot."""

    def __init__(self, folder: Path, count: int) -> None:
        self._world = processes.World(folder)
        self._config = folder / "singer.toml"
        self._config.write_text(f'[[serve]]\nmodel = "{write_parrot(folder / "parrot.gguf")}"\n')
        self._bare = folder / "bare.toml"
        self._bare.write_text("serve = []\n")
        self._starting: list[subprocess.Popen[bytes]] = []
        for number in range(count):
            self._start(f"singer{number}")

    def asker(self) -> SyncClient:
        self._world.command("node", "start", "--name", ASKING, "--config", str(self._bare))
        return self._world.client(ASKING)

    def replace(self, name: str) -> None:
        """Kill it, and start it again without waiting."""
        os.kill(self._world.client(name).status()["node"]["pid"], signal.SIGKILL)
        self._start(name)

    def end(self) -> None:
        for process in self._starting:
            process.wait(processes.COMMAND_LIMIT_S)
        self._world.command("node", "stop", "--all")

    def _start(self, name: str) -> None:
        self._starting = [process for process in self._starting if process.poll() is None]
        words = ("node", "start", "--name", name, "--config", str(self._config))
        self._starting.append(
            subprocess.Popen(
                [*processes.ATMO, *words],
                env=self._world.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
