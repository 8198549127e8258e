"""What is refused, with which status and in which shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from atmo.errors import ConfigError, PortInUse
from tests.gateway.support import CHAT, Api, free_port, http, serving, world

MANY = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with world() as environ, serving(environ, max_body_bytes=100_000) as running:
        yield running


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{", None, "could not parse the JSON"),
        (b"\xff\xfe", None, "could not parse the JSON"),
        (b"", None, "could not parse the JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None, "could not parse the JSON"),
        (b"[1]", None, "body"),
        (b"[" * 50_000, None, "body"),
        (
            b'{"messages": [{"role": "user", "content": "x"}], "metadata": {"a":' + b"[" * 50_000,
            None,
            "nested too deeply",
        ),
        ({}, "messages", "Missing required parameter: 'messages'"),
        ({"messages": []}, "messages", "messages"),
        ({"messages": "hi"}, "messages", "expected `array`"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "wizard"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Missing required parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "needs content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "which call"),
        ({"messages": MANY, "temperature": "hot"}, "temperature", "expected `float"),
        ({"messages": MANY, "temperature": 3}, "temperature", "<= 2"),
        ({"messages": MANY, "max_tokens": 0}, "max_tokens", ">= 1"),
        ({"messages": MANY, "n": 99}, "n", "<= 16"),
        ({"messages": MANY, "wings": 2}, "wings", "Unrecognized request argument supplied: wings"),
        ({"messages": MANY, "audio": {}}, "audio", "Unrecognized request argument supplied: audio"),
        ({"messages": MANY, "functions": []}, "functions", "Unrecognized request argument supplied: functions"),
        ({"messages": MANY, "modalities": ["audio"]}, "modalities[0]", "audio"),
        ({"messages": MANY, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"messages": MANY, "tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"messages": MANY, "stream_options": {}}, "stream_options", "streams only"),
        ({"messages": MANY, "logit_bias": {"word": 1}}, "logit_bias", "token ids"),
        ({"messages": MANY, "response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", "a s"),
        ({"messages": MANY, "atmo": {"timeout_s": 0}}, "atmo.timeout_s", "> 0"),
        ({"messages": MANY, "atmo": {"color": 0}}, "atmo.color", "Unrecognized"),
    ],
)
def test_a_wrong_body_is_answered_with_what_is_wrong(api: Api, body: Any, param: str | None, words: str) -> None:
    answer = http(api, "POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)
    assert words in answer.error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": [1, 2, 3]}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": ["x"] * 100, "n": 2}, "n"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x", "best_of": 3}, "best_of"),
        ("/v1/embeddings", {"input": [[1, 2]]}, "input"),
        ("/v1/embeddings", {"input": ["x"] * 3000}, "input"),
        ("/v1/embeddings", {"input": ["x", ""]}, "input[1]"),
        ("/v1/embeddings", {"input": "x", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_the_other_endpoints_do_not_take_is_named(api: Api, path: str, body: Any, param: str) -> None:
    answer = http(api, "POST", path, body)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_unknown_paths_and_methods_have_the_shape_of_the_api_they_missed(api: Api) -> None:
    missed = http(api, "GET", "/v1/assistants")
    assert (missed.status, missed.error["code"], missed.error["type"]) == (404, "unknown_url", "invalid_request_error")
    wrong = http(api, "GET", "/v1/chat/completions")
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_allowed")
    native = http(api, "GET", "/api/nothing")
    assert (native.status, native.error["code"], native.error["hint"]) == (404, "unknown_url", "See /docs.")
    assert http(api, "POST", "/api/route", {"no": "text"}).status == 400


def test_a_body_has_to_say_that_it_is_json_which_no_web_page_can_say_unasked(api: Api) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = http(api, "POST", "/v1/chat/completions", json.dumps(CHAT).encode(), Content_Type=kind)
        assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
    assert http(api, "POST", "/v1/chat/completions", CHAT, Content_Type="application/json; charset=utf-8").status == 200


def test_a_name_that_is_not_this_nodes_is_refused_so_no_page_can_rebind_its_own(api: Api) -> None:
    for host, status in (
        ("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1", 200), ("localhost:1", 200), ("[::1]:4680", 200),
    ):  # fmt: skip
        assert http(api, "GET", "/v1/models", Host=host).status == status, host


def test_what_ends_the_node_or_names_its_members_is_for_the_owners_socket_only(api: Api) -> None:
    for method, path, body in (
        ("POST", "/api/stop", {}), ("POST", "/api/revoke", {"whom": "x"}), ("GET", "/api/members", None),
    ):  # fmt: skip
        answer = http(api, method, path, body)
        assert (answer.status, answer.error["code"]) == (403, "forbidden")
        assert http(api, method, path, body, unix=True).status == 200
    assert api.node.stopped


def test_too_much_is_refused_whether_it_is_announced_or_not(api: Api) -> None:
    large = {"model": "qwen", "messages": [{"role": "user", "content": "x" * 200_000}]}
    for path in ("/v1/chat/completions", "/api/ask"):
        assert http(api, "POST", path, large).status == 413
        in_chunks = iter([json.dumps(large).encode()])  # of a length that is not announced
        assert http(api, "POST", path, in_chunks).status == 413
    assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200


def test_bugs_are_answered_and_logged_and_nothing_else_suffers(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(task: Any) -> Any:
        raise ZeroDivisionError("the secret canary")

    api.node.plays = broken
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/chat/completions", {**CHAT, "stream": True})):
        answer = http(api, "POST", path, body)
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "canary" not in answer.body.decode()
    api.node.forget()
    assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200


def test_a_gateway_that_others_reach_without_a_key_does_not_start_unless_that_is_wanted(
    environ: dict[str, str],
) -> None:
    with pytest.raises(ConfigError, match="no API key") as refused, serving(environ, host="0.0.0.0"):
        pass
    assert "atmo keys create" in refused.value.hint
    with serving(environ, host="0.0.0.0", allow_open=True) as api:
        assert http(api, "GET", "/v1/models", Host="office.lan:4680").status == 200, "others know it by its name"
    with serving(environ, host="0.0.0.0", auth=True) as api:
        assert http(api, "GET", "/v1/models").status == 401


def test_a_configured_port_that_is_taken_is_one_clear_error(environ: dict[str, str], api: Api) -> None:
    with pytest.raises(PortInUse, match=f"Port {api.port} .* is taken") as refused, serving(environ, port=api.port):
        pass
    assert "ATMO_GATEWAY_PORT" in refused.value.hint


def test_when_the_default_port_is_taken_the_next_free_one_is_and_that_is_said(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    default = free_port()
    monkeypatch.setattr("atmo.gateway.server.DEFAULT_PORT", default)
    monkeypatch.setattr("atmo.gateway.gateway.DEFAULT_PORT", default)
    with world() as other, serving(environ, port=0) as first, serving(other, port=0) as second:
        assert (first.port, first.gateway.note) == (default, "")
        assert second.port > default
        assert second.gateway.note == f"Port {default} is taken, so the API listens on port {second.port}."
        assert http(second, "GET", "/v1/models").status == 200


def test_a_standalone_node_opens_no_port_unless_one_is_named(environ: dict[str, str]) -> None:
    with serving(environ, mode="standalone", port=0) as api:
        assert api.gateway.url == ""
    with serving(environ, mode="standalone") as api:
        assert http(api, "GET", "/v1/models").status == 200
    with serving(environ, port=-1) as api:
        assert api.gateway.url == ""
