"""Real nodes with real engines behind the API, and the README's section on it, run as it is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from atmo.client import SyncClient
from tests.cluster import Cluster, atmo, eventually
from tests.gateway.support import free_port
from tests.inference.gguf_maker import song, write_parrot

ROOT = Path(__file__).parents[2]
ALL = """
[[serve]]
model = "atmo-nano"
[[serve]]
model = "atmo-encoder"
[[serve]]
model = "atmo-tone"
"""
SUNG = 1500  # tokens of a song that lasts long enough to lose its singer
ASK: Any = [{"role": "user", "content": "What is Atmosphere?"}]


@pytest.fixture
def cluster(environ: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(Path(environ["ATMO_HOME"]).parent)
    yield cluster
    cluster.stop_all()


def listening(port: int) -> str:
    return f"{ALL}\n[gateway]\nport = {port}\n"


def test_openais_client_gets_real_answers(cluster: Cluster) -> None:
    """Whole and streamed, stopped, repeated, counted, embedded, refused: what the engines can do today."""
    native = cluster.start("default", listening(free_port()))
    url = native.status()["node"]["api"]
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30) as client:
        whole = client.chat.completions.create(model="atmo-nano", messages=ASK, temperature=0)
        said = whole.choices[0].message.content
        assert said
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.prompt_tokens > 5
        assert _native(native) == said, "the same question by the other door has the same answer"

        options: Any = {"include_usage": True}
        chunks = list(
            client.chat.completions.create(
                model="auto", messages=ASK, temperature=0, stream=True, stream_options=options
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == said
        counted = chunks[-1].usage
        assert counted is not None
        assert counted.completion_tokens == whole.usage.completion_tokens

        short = client.chat.completions.create(model="atmo-nano", messages=ASK, temperature=0, max_tokens=3)
        assert (short.choices[0].finish_reason, short.usage and short.usage.completion_tokens) == ("length", 3)
        word = said.split()[3]
        stopped = client.chat.completions.create(model="atmo-nano", messages=ASK, temperature=0, stop=word)
        assert stopped.choices[0].message.content == said[: said.index(word)]
        seeded = [
            client.chat.completions.create(model="atmo-nano", messages=ASK, temperature=1.5, seed=7) for _ in range(2)
        ]
        assert len({answer.choices[0].message.content for answer in seeded}) == 1

        colour: Any = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
        colour["additionalProperties"] = False
        tool: Any = {"type": "function", "function": {"name": "paint", "parameters": colour}}
        called = client.chat.completions.create(model="atmo-nano", messages=ASK, tools=[tool], tool_choice="required")
        (call,) = called.choices[0].message.tool_calls or []
        assert (called.choices[0].finish_reason, call.type) == ("tool_calls", "function")
        assert json.loads(call.function.arguments)["colour"] in ("red", "blue")  # type: ignore[union-attr]
        shaped: Any = {"type": "json_schema", "json_schema": {"name": "paint", "schema": colour}}
        held = client.chat.completions.create(model="atmo-nano", messages=ASK, response_format=shaped)
        assert json.loads(held.choices[0].message.content or "")["colour"] in ("red", "blue")
        scored = client.chat.completions.create(
            model="atmo-nano", messages=ASK, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2, n=2
        )
        for choice in scored.choices:
            tokens = (choice.logprobs and choice.logprobs.content) or []
            assert "".join(each.token for each in tokens) == choice.message.content
            assert [len(each.top_logprobs) for each in tokens] == [2, 2, 2]
            assert all(each.logprob <= 0 for each in tokens)

        vectors = client.embeddings.create(model="atmo-encoder", input=["a cat", "a kitten", "a tax return"])
        cat, kitten, tax = (item.embedding for item in vectors.data)
        assert len(cat) == 384
        assert _dot(cat, kitten) > _dot(cat, tax)
        label = client.chat.completions.create(
            model="atmo-tone",
            messages=[{"role": "user", "content": "It broke after a day, what a waste."}],
            extra_body={"atmo": {"type": "classification"}},
        )
        assert label.choices[0].message.content == "negative"

        with pytest.raises(openai.NotFoundError, match=r"Did you mean .*atmo-nano"):
            client.chat.completions.create(model="atmo-nona", messages=ASK)
        long: Any = [{"role": "user", "content": "word " * 20_000}]
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model="atmo-nano", messages=long)
        assert refused.value.status_code in (400, 503)

        explained = client.chat.completions.with_raw_response.create(
            model="auto", messages=ASK, extra_body={"atmo": {"explain": True}}
        )
        told = explained.parse().model_extra
        assert told is not None
        assert any("default serves this" in line for line in told["atmo"]["decision"]["lines"])
        assert "atmo-nano" in atmo("explain", explained.headers["x-atmo-request-id"]).out


def _native(client: SyncClient) -> str:
    return client.ask(ASK[0]["content"], timeout_s=30).text


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_another_node_answers_and_is_named(cluster: Cluster) -> None:
    """A laptop without a model, and the machine that serves it."""
    cluster.start("server", '[[serve]]\nmodel = "atmo-nano"\n')
    laptop = cluster.start("laptop", f"serve = []\n[gateway]\nport = {free_port()}\n")
    cluster_sees = lambda: any(entry["nodes"] == ["server"] for entry in laptop.models()["served"])  # noqa: E731
    eventually(cluster_sees, "the laptop knows the model")
    with openai.OpenAI(base_url=laptop.status()["node"]["api"], api_key="none", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="atmo-nano", messages=ASK)
        assert raw.headers["x-atmo-node"] == "server"
        assert raw.parse().choices[0].message.content


def test_a_stream_goes_on_when_the_node_that_writes_it_is_killed(cluster: Cluster) -> None:
    """Not a token is lost or doubled, and the usage is right."""
    parrot = write_parrot(cluster.folder / "parrot.gguf")
    serve = f'[[serve]]\nmodel = "{parrot}"\n'
    cluster.start("first", serve)
    cluster.start("second", serve)
    asker = cluster.start("asker", f'[[serve]]\nmodel = "atmo-tone"\n[gateway]\nport = {free_port()}\n')
    cluster.together()
    with openai.OpenAI(base_url=asker.status()["node"]["api"], api_key="none", max_retries=0) as client:
        options: Any = {"include_usage": True}
        stream = client.chat.completions.create(
            model="parrot", messages=ASK, temperature=0, max_tokens=SUNG, stream=True, stream_options=options
        )
        text = ""
        for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if len(text) > 100 and len(cluster.pids) == 3:
                cluster.kill(stream.response.headers["x-atmo-node"])
            if chunk.choices and chunk.choices[0].finish_reason:
                assert (chunk.model_extra or {})["atmo"] == {"resumed": 1, "other_model": False}
    assert text == song(SUNG)
    assert chunk.usage is not None
    assert chunk.usage.completion_tokens == SUNG


def audited_codes(cluster: Cluster) -> list[str]:
    file = cluster.folder / "home/nodes/default/audit.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return [row[0] for row in database.execute("select code from requests")]


def test_a_client_that_leaves_frees_the_engines_slot(cluster: Cluster) -> None:
    """It leaves in the middle of a long song; bench/gateway.py has the time that takes."""
    parrot = write_parrot(cluster.folder / "parrot.gguf")
    native = cluster.start("default", f'[[serve]]\nmodel = "{parrot}"\n[gateway]\nport = {free_port()}\n')
    with openai.OpenAI(base_url=native.status()["node"]["api"], api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model="parrot", messages=ASK, temperature=0, stream=True)
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        stream.close()
        eventually(lambda: native.status()["capabilities"][0]["in_flight"] == 0, "the slot is free")
        assert eventually(lambda: audited_codes(cluster), "it is in the audit trail") == ["cancelled"], "not by its end"
        again = client.chat.completions.create(model="parrot", messages=ASK, temperature=0, max_tokens=3)
        assert again.choices[0].message.content == song(3)


def test_the_command_line_says_where_the_api_is(cluster: Cluster, environ: dict[str, str]) -> None:
    port = free_port()
    cluster.start("default", f"serve = []\n[gateway]\nport = {port}\n")
    assert f"http://127.0.0.1:{port}/v1" in atmo("node", "status").out
    taken = atmo("node", "start", "--name", "second", ATMO_GATEWAY_PORT=str(port))
    assert taken.code == 4
    assert f"Port {port}" in taken.err
    assert "ATMO_GATEWAY_PORT" in taken.err
    assert "Traceback" not in taken.err
    open_to_all = atmo("node", "start", "--name", "second", ATMO_GATEWAY_HOST="0.0.0.0")
    assert open_to_all.code == 2
    assert "no API key" in open_to_all.err


def section(title: str) -> str:
    readme = (ROOT / "README.md").read_text()
    found = re.search(rf"^## {re.escape(title)}\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    assert found, f"the README has a section {title!r}"
    return found[1]


def blocks(text: str) -> list[str]:
    """Indented code, block by block."""
    found: list[list[str]] = []
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (not line and found and found[-1]):
            if not found:
                found.append([])
            found[-1].append(line[4:])
        elif found and found[-1]:
            found.append([])
    return ["\n".join(block).strip() for block in found if any(block)]


def test_the_readmes_section_on_apps_works_as_written(cluster: Cluster, environ: dict[str, str]) -> None:
    """Every block is run; only the port is another one where the usual one is taken."""
    written = blocks(section("Use it from your app"))
    programs = [block for block in written if "import" in block.split("\n")[0]]
    shells = [block for block in written if block.startswith("curl ")]
    assert len(programs) >= 2
    assert shells
    url = cluster.start("default", ALL).status()["node"]["api"].removesuffix("/v1")
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program.replace("http://127.0.0.1:4680", url)],
            capture_output=True, text=True, timeout=60, check=False, cwd=environ["ATMO_HOME"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    if shutil.which("curl"):
        for shell in shells:
            done = subprocess.run(
                ["bash", "-c", shell.replace("http://127.0.0.1:4680", url)],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
