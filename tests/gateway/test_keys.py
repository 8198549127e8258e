"""API keys: made once, stored as digests, limited, and gone within a second."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.config import load
from atmo.errors import ConfigError, RateLimited, UsageError
from atmo.gateway.api_keys import ApiKey, KeyFile
from atmo.gateway.quotas import Quotas
from atmo.generation import Task
from tests.cluster import atmo, eventually
from tests.gateway.support import CHAT, Api, Json, PlayedNode, done, http, route, serving, text, world


@pytest.fixture
def api(environ: dict[str, str]) -> Iterator[Api]:
    with serving(environ) as running:
        yield running


def make(api: Api, name: str = "", per_minute: int = 0, at_once: int = 0, models: tuple[str, ...] = ()) -> str:
    secret, _ = api.keys.create(1e9, name, per_minute, at_once, models)
    return secret


def asked(api: Api, key: str = "") -> int:
    return http(api, "POST", "/v1/chat/completions", CHAT, key=key).status


def test_from_the_first_key_on_one_is_needed_and_the_owners_socket_stays_open(api: Api) -> None:
    assert asked(api) == 200
    good = make(api)
    eventually(lambda: asked(api) == 401, "the node has seen the key")
    assert asked(api, good) == 200
    wrong = http(api, "POST", "/v1/chat/completions", CHAT, key=good[:-1] + "x")
    assert (wrong.status, wrong.error["code"], wrong.error["type"]) == (401, "invalid_api_key", "authentication_error")
    assert wrong.headers["www-authenticate"] == "Bearer"
    assert http(api, "GET", "/api/status").status == 401
    assert http(api, "GET", "/metrics").status == 401
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        assert http(api, "GET", path).status == 200
    assert http(api, "POST", "/v1/chat/completions", CHAT, unix=True).status == 200
    with api.client(key="sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_revoked_key_is_refused_and_the_door_stays_shut(api: Api) -> None:
    key = make(api, "app")
    eventually(lambda: asked(api, key) == 200 and asked(api) == 401, "the key is known")
    api.keys.revoke("app", 2e9)
    eventually(lambda: asked(api, key) == 401, "the key is gone")
    assert asked(api) == 401, "revoking the last key opens nothing"


def test_a_key_asks_as_often_as_it_may_and_is_told_when_to_come_again(api: Api) -> None:
    key = make(api, per_minute=2)
    eventually(lambda: asked(api) == 401, "the key is known")
    first = http(api, "POST", "/v1/chat/completions", CHAT, key=key)
    assert (first.status, first.headers["x-ratelimit-limit-requests"]) == (200, "2")
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert asked(api, key) == 200
    refused = http(api, "POST", "/v1/chat/completions", CHAT, key=key)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert http(api, "POST", "/v1/chat/completions", CHAT, unix=True).status == 200


def test_a_key_asks_as_much_at_once_as_it_may(environ: dict[str, str]) -> None:
    go_on = asyncio.Event()

    async def waits(task: Task) -> AsyncIterator[Json]:
        yield route()
        yield text("Hel")
        await go_on.wait()
        yield done()

    with serving(environ, PlayedNode(waits)) as api:
        key = make(api, at_once=1)
        eventually(lambda: http(api, "GET", "/v1/models").status == 401, "the key is known")
        with api.client(key) as client:
            messages: Any = [{"role": "user", "content": "x"}]
            stream = client.chat.completions.create(model="qwen", messages=messages, stream=True)
            next(stream)
            with pytest.raises(openai.RateLimitError, match="may ask 1 at once"):
                client.models.list()
            api.loop.call_soon_threadsafe(go_on.set)
            list(stream)
            assert client.models.list().data


def test_a_key_for_some_models_gets_no_other(api: Api) -> None:
    one = make(api, models=("qwen",))
    two = make(api, models=("qwen", "minilm"))
    eventually(lambda: asked(api) == 401, "the keys are known")
    assert asked(api, one) == 200
    auto = http(api, "POST", "/v1/chat/completions", {**CHAT, "model": "auto"}, key=one)
    assert auto.status == 200
    assert api.node.wishes[-1].model == "qwen", "auto means the one it may use"
    assert http(api, "POST", "/v1/chat/completions", {**CHAT, "model": "auto"}, key=two).status == 403
    assert http(api, "POST", "/v1/chat/completions", {**CHAT, "model": "minilm"}, key=one).status == 403
    assert http(api, "POST", "/api/ask", {"text": "x"}, key=one).status == 403
    listed = http(api, "GET", "/v1/models", key=one).json["data"]
    assert [model["id"] for model in listed] == ["qwen"]


def test_the_command_line_makes_lists_and_revokes_keys(environ: dict[str, str]) -> None:
    made = atmo("keys", "create", "--name", "app", "--per-minute", "60", "--model", "qwen", "--json").json
    assert made["key"].startswith("sk-atmo-")
    file = Path(environ["ATMO_HOME"]) / "api-keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made["key"] not in file.read_text()
    listed = atmo("keys", "list")
    assert "app" in listed.out
    assert made["key"] not in listed.out
    again = atmo("keys", "create", "--name", "app")
    assert (again.code, "another name" in again.err) == (2, True)
    assert atmo("keys", "revoke", "app").code == 0
    unknown = atmo("keys", "revoke", "app")
    assert (unknown.code, "atmo keys list" in unknown.err) == (2, True)
    plain = atmo("keys", "create")
    assert plain.out.strip().startswith("sk-atmo-")
    assert len(plain.out.strip().split()) == 1, "the key alone is on standard output"


def test_a_damaged_key_file_stops_the_start_and_opens_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with world() as environ:
        file = KeyFile(load(environ=environ).api_keys)
        file.create(1e9, "", 0, 0, ())
        with serving(environ) as api:
            secret = make(api)
            eventually(lambda: asked(api, secret) == 200, "the key is known")
            file.path.write_text("{")
            noticed = "the API keys could not be read"
            eventually(lambda: asked(api) and noticed in capsys.readouterr().out, "the damage is noticed")
            assert (asked(api), asked(api, secret)) == (401, 200), "what was known still holds"
        with pytest.raises(ConfigError, match="damaged"), serving(environ):
            pass


def test_two_writers_lose_no_key(environ: dict[str, str]) -> None:
    file = KeyFile(Path(environ["ATMO_HOME"]) / "api-keys.json")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: file.create(1e9, f"key-{number}", 0, 0, ()), range(20)))
    assert {key.name for key in file.all()} == {f"key-{number}" for number in range(20)}
    with pytest.raises(UsageError):
        file.create(1e9, "key-3", 0, 0, ())


@given(
    per_minute=st.integers(1, 100),
    at_once=st.integers(0, 5),
    steps=st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200),
)
def test_no_key_gets_more_than_its_share(per_minute: int, at_once: int, steps: list[tuple[float, bool]]) -> None:
    """In any time t at most per_minute * (1 + t / 60 s) requests are let in, and at_once run at once."""
    key = ApiKey(id="k", digest="", created_s=0.0, per_minute=per_minute, at_once=at_once)
    quotas, now_s, let_in, running = Quotas(), 0.0, 0, 0
    for wait_s, leaves in steps:
        now_s += wait_s
        if leaves and running:
            quotas.leave(key)
            running -= 1
        with suppress(RateLimited):
            quotas.enter(key, now_s)
            let_in, running = let_in + 1, running + 1
        assert let_in <= per_minute * (1 + now_s / 60) + 1e-6
        assert not at_once or running <= at_once
        quotas.validate()
