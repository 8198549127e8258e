"""Every example does what it says, against a real node with real models, and so does what docs/client.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster

ROOT = Path(__file__).parents[1]
ALL = """
[gateway]
port = -1
[[serve]]
model = "atmo-nano"
[[serve]]
model = "atmo-encoder"
[[serve]]
model = "atmo-tone"
"""
# What each has to print. Those not here have tests of their own.
PRINTED = {
    "ask": [r"by default with atmo:chat:atmo-nano, \d+ tokens in", r"finished: (stop|length)", r"What is 2\+2\?"],
    "concurrent": [r"What is 2\+2\?\n  .*4", r"It began with "],
    "embed": [r"384 numbers for each text, by atmo-encoder on default\n\+0\.\d+  Tax return"],
    "execute": [
        r"negative  \{'negative': .* by default",
        r"a waste\. +negative\nI love it.* positive\nWorks.* positive\nNever again.* negative\n",
        r"Too expensive\. +nobody: .*residency",
        r"\n\n.*(tokens a second|tokens/s|min_tps)",
    ],
    "look": [r"default +self", r"atmo:chat:atmo-nano +atmo-nano +at default", r"It would go to default", "answered"],
}
ELSEWHERE = {"__init__", "demo", "hospital", "partition"}


@pytest.fixture(scope="module")
def home() -> Iterator[dict[str, str]]:
    """A node that serves all three models that come along."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="atmo-test-") as folder, pytest.MonkeyPatch.context() as patch:
        own = {"ATMO_HOME": f"{folder}/home", "ATMO_RUNTIME": f"{folder}/run", "ATMO_DISCOVERY_LAN": "false"}
        for name, value in {**own, "ATMO_DISCOVERY_RUNTIMES": "false"}.items():
            patch.setenv(name, value)
        cluster = Cluster(Path(folder))
        cluster.start("default", ALL)
        yield dict(os.environ)
        cluster.stop_all()


# What the page leaves to its reader, before it and in the place of a name.
BEFORE = """
import asyncio, ssl
from atmo import Client, SyncClient
client, context, key = SyncClient(), ssl.create_default_context(), "sk-atmo-0"
reviews = ["It broke after a day.", "Great!"]
"""
READER = {
    'SyncClient(node="desk")': "client",
    "key=...": "key=key",
    "client.events()": "client.events(follow=False)",
    '"qwen"': '"atmo-nano"',
    '"minilm"': '"atmo-encoder"',
}


def test_the_page_about_the_client_works_as_it_is_written(home: dict[str, str]) -> None:
    """All blocks down to the tables, as one program."""
    page = (ROOT / "docs" / "client.md").read_text().partition("## Options")[0]
    program = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    for said, meant in READER.items():
        assert said in program
        program = program.replace(said, meant)
    done = subprocess.run(
        [sys.executable, "-c", BEFORE + program],
        capture_output=True, text=True, check=False, timeout=100, env=home, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for wanted in ("Atmosphere turns the machines", "data_residency eu", "answered default"):
        assert wanted in done.stdout


def test_every_example_is_tried() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == PRINTED.keys() | ELSEWHERE


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_does_what_it_says(home: dict[str, str], name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        capture_output=True, text=True, check=False, timeout=100, env=home, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for wanted in PRINTED[name]:
        assert re.search(wanted, done.stdout), f"{wanted!r} in\n{done.stdout}"
