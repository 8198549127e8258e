"""What takes too long, or needs the network, for every run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import openai
import psutil
import pytest

from tests.cluster import Cluster

IDLE = 10_000


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


@pytest.mark.soak
def test_ten_thousand_idle_connections_disturb_nobody(cluster: Cluster) -> None:
    """They cost a node less than 200 MB, and a request beside them is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = int(IDLE / 0.75) + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this process may open {hard} files, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    client = cluster.start("default")
    node = psutil.Process(cluster.pids["default"])
    url = client.status()["node"]["api"]
    port = urlsplit(url).port
    before = node.memory_info().rss
    with ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30.0))
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as asker:
            answer = asker.chat.completions.create(
                model="atmo-nano", messages=[{"role": "user", "content": "What is 2+2?"}]
            )
        assert answer.choices[0].message.content
        assert node.memory_info().rss - before < 200 << 20


SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.API, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is Atmosphere?" }];
const whole = await client.chat.completions.create({ model: "atmo-nano", messages, temperature: 0 });
let streamed = "";
let used = null;
const stream = await client.chat.completions.create({
  model: "auto", messages, temperature: 0, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  used = chunk.usage ?? used;
}
const vectors = await client.embeddings.create({ model: "atmo-encoder", input: ["a", "b"] });
let refused = 0;
try { await client.chat.completions.create({ model: "gpt-5", messages }); } catch (error) { refused = error.status; }
console.log(JSON.stringify({
  whole: whole.choices[0].message.content, streamed, used, width: vectors.data[0].embedding.length, refused,
}));
"""


@pytest.mark.soak
def test_the_npm_client_talks_to_it(cluster: Cluster, tmp_path: Path) -> None:
    """OpenAI's JavaScript client, installed for the test."""
    if not shutil.which("npm"):
        pytest.skip("npm is not here")
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip(f"the npm package cannot be installed: {installed.stderr.strip()[:200]}")
    serve = '[[serve]]\nmodel = "atmo-nano"\n[[serve]]\nmodel = "atmo-encoder"\n'
    url = cluster.start("default", serve).status()["node"]["api"]
    (tmp_path / "talk.mjs").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "talk.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "API": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["whole"] == told["streamed"]
    assert told["used"]["completion_tokens"] > 0
    assert (told["width"], told["refused"]) == (384, 404)
