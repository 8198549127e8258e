"""The dialects of model servers: recorded wire formats, real servers, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from atmo.errors import (
    AtmoError,
    ConfigError,
    ContextOverflow,
    EngineUnavailable,
    ModelNotFound,
    Overloaded,
    UsageError,
)
from atmo.generation import Finish, Form, Piece, Prefix, Sampling, Task, ToolCall, Turn
from atmo.inference.engines.http_model import Dialect, FoundModel, open_dialect
from atmo.inference.engines.http_upstream import Access
from tests.inference.http_servers import (
    LISTS,
    OLLAMA_SHOW,
    OLLAMA_TAGS,
    OPENAI_MODELS,
    FakeServer,
    Reply,
    Request,
    as_events,
    as_json,
    as_lines,
    fake,
)

HELLO = Task((Turn("system", "Be brief."), Turn("user", "Hi")), Sampling(max_tokens=9, temperature=0.5, seed=3))
TOOL = {"type": "function", "function": {"name": "get", "description": "gets", "parameters": {"type": "object"}}}
CALLED = Task(
    (
        Turn("user", "get it", images=(b"\x89PNG",)),
        Turn("assistant", "", calls=(ToolCall("c1", "get", '{"a": 1}'),)),
        Turn("tool", "got", call_id="c1", name="get"),
    ),
    form=Form(tools=json.dumps([TOOL])),
)


async def heard(dialect: Dialect, task: Task = HELLO, model: str = "m") -> tuple[list[Piece], Finish]:
    pieces: list[Piece] = []
    try:
        async with aclosing(dialect.chat(model, task)) as parts:
            async for part in parts:
                if isinstance(part, Finish):
                    return pieces, part
                pieces.append(part)
    finally:
        await dialect.close()
    raise AssertionError("the answer has no end")


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


OPENAI_HELLO = as_events(
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    {
        "object": "chat.completion.chunk",
        "choices": [],
        "usage": {"prompt_tokens": 11, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
    },
)
OLLAMA_HELLO = as_lines(
    {
        "model": "m",
        "created_at": "2026-08-04T08:52:19Z",
        "message": {"role": "assistant", "content": "Hel"},
        "done": False,
    },
    {"model": "m", "message": {"role": "assistant", "content": "lo"}, "done": False},
    {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "total_duration": 4883583458,
        "load_duration": 1334875,
        "prompt_eval_count": 11,
        "prompt_eval_duration": 342546000,
        "eval_count": 2,
        "eval_duration": 4535599000,
    },
)
ANTHROPIC_HELLO = as_events(
    {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 8, "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
    done=False,
)
HELLOS = {"openai": OPENAI_HELLO, "ollama": OLLAMA_HELLO, "anthropic": ANTHROPIC_HELLO}


@pytest.fixture(params=sorted(HELLOS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(kind: str, server: FakeServer, **access: Any) -> Dialect:
    return open_dialect(kind, Access(server.url, **access))


@pytest.mark.asyncio
async def test_an_answer_is_streamed_counted_and_ended(kind: str) -> None:
    async with fake(lambda _: HELLOS[kind]) as server:
        pieces, finish = await heard(opened(kind, server))
    assert [piece.text for piece in pieces if piece.text] == ["Hel", "lo"]
    assert (finish.reason, finish.prompt_tokens, finish.output_tokens) == ("stop", 11, 2)
    if kind != "ollama":
        assert finish.cached_tokens == 8
    else:
        assert finish.decode_s == pytest.approx(4.535599)


@pytest.mark.asyncio
async def test_what_is_asked_reaches_each_server_in_its_own_words() -> None:
    held = Task((Turn("user", "x"),), Sampling(9, 0.5, 0.9, 3, ("end",), 40, 0.1, 1.0, 0.5), Form(schema='{"a": 1}'))
    async with fake(lambda request: HELLOS["ollama" if "/api/" in request.path else "openai"]) as server:
        await heard(opened("openai", server), held, "model-a")
        await heard(opened("ollama", server), held, "model-b")
    openai, ollama = (request.body for request in server.asked)
    assert openai["response_format"]["json_schema"]["schema"] == ollama["format"] == {"a": 1}
    assert (openai["model"], ollama["model"]) == ("model-a", "model-b")
    for name, value in (("temperature", 0.5), ("top_p", 0.9), ("seed", 3), ("top_k", 40), ("min_p", 0.1)):
        assert openai[name] == ollama["options"][name] == value
    assert openai["max_tokens"] == ollama["options"]["num_predict"] == 9
    assert openai["stop"] == ollama["options"]["stop"] == ["end"]
    assert openai["stream_options"] == {"include_usage": True}


@pytest.mark.asyncio
async def test_tools_images_and_earlier_calls_are_told_in_each_servers_words(kind: str) -> None:
    async with fake(lambda _: HELLOS[kind]) as server:
        await heard(opened(kind, server), CALLED)
    body = server.asked[0].body
    told = json.dumps(body["messages"])
    assert "iVBORw==" in told or "iVBORw" in told
    assert "got" in told
    assert "get" in json.dumps(body["tools"])
    assert ("input_schema" in body["tools"][0]) == (kind == "anthropic")
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant", "user" if kind == "anthropic" else "tool"]


CALLS = {
    "openai": as_events(
        chunk(
            {
                "tool_calls": [
                    {"index": 0, "id": "call_9", "type": "function", "function": {"name": "get", "arguments": ""}}
                ]
            }
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({}, "tool_calls"),
    ),
    "ollama": as_lines(
        {
            "message": {"content": "", "tool_calls": [{"function": {"name": "get", "arguments": {"a": 1}}}]},
            "done": False,
        },
        {"message": {"content": ""}, "done": True, "done_reason": "stop", "eval_count": 5},
    ),
    "anthropic": as_events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "get"},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
        done=False,
    ),
}


@pytest.mark.asyncio
async def test_calls_of_tools_come_as_deltas(kind: str) -> None:
    async with fake(lambda _: CALLS[kind]) as server:
        pieces, finish = await heard(opened(kind, server), CALLED)
    deltas = [delta for piece in pieces for delta in piece.calls]
    assert finish.reason == "tool_calls"
    assert [delta.name for delta in deltas if delta.name] == ["get"]
    assert json.loads("".join(delta.arguments for delta in deltas)) == {"a": 1}
    assert len([delta.id for delta in deltas if delta.id]) == 1


BEGUN = Task(HELLO.turns, HELLO.sampling, prefix=Prefix("", (), "Hel"))


def owned_by(owner: str) -> Callable[[Request], Reply]:
    listed = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}
    return lambda request: as_json(listed) if request.path == "/v1/models" else HELLOS["openai"]


@pytest.mark.asyncio
@pytest.mark.parametrize("owner", ["vllm", "sglang", "llamacpp", "ollama"])
async def test_an_answer_that_was_begun_goes_on(owner: str) -> None:
    async with fake(owned_by(owner) if owner != "ollama" else lambda _: HELLOS["ollama"]) as server:
        await heard(opened("ollama" if owner == "ollama" else "openai", server), BEGUN)
    assert server.asked[-1].body["messages"][-1] == {"role": "assistant", "content": "Hel"}


@pytest.mark.asyncio
@pytest.mark.parametrize("owner", ["me", "organization_owner", "lemonade", "anthropic"])
async def test_who_would_begin_an_answer_anew_is_not_asked_to_go_on(owner: str) -> None:
    """Those take what was begun for a finished turn, or refuse it as a mistake of the caller."""
    async with fake(owned_by(owner)) as server:
        with pytest.raises(EngineUnavailable, match="cannot go on"):
            await heard(opened("anthropic" if owner == "anthropic" else "openai", server), BEGUN)
    assert [request for request in server.asked if request.body] == []


@pytest.mark.asyncio
async def test_a_plain_completion_takes_another_path() -> None:
    raw = Task((Turn("user", "Once"),), Sampling(max_tokens=5), Form(raw=True))
    answers = {
        "/v1/completions": as_events({"choices": [{"text": " upon", "finish_reason": "length"}]}),
        "/api/generate": as_lines({"response": " upon"}, {"response": "", "done": True, "done_reason": "length"}),
    }
    async with fake(lambda request: answers[request.path]) as server:
        for dialect in ("openai", "ollama"):
            pieces, finish = await heard(opened(dialect, server), raw)
            assert (text_of(pieces), finish.reason) == (" upon", "length")
    assert [request.body["prompt"] for request in server.asked] == ["Once", "Once"]


@pytest.mark.asyncio
async def test_scores_come_from_openais_format() -> None:
    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}
    event = {"choices": [{"delta": {"content": "Hi"}, "logprobs": {"content": [entry]}, "finish_reason": "stop"}]}
    async with fake(lambda _: as_events(event)) as server:
        pieces, _ = await heard(opened("openai", server), Task(HELLO.turns, form=Form(logprobs=1)))
    (score,) = pieces[0].scores
    assert (score.text, score.logprob, score.top) == ("Hi", -0.5, (("Hi", -0.5),))
    assert server.asked[0].body["top_logprobs"] == 1


@pytest.mark.asyncio
async def test_what_a_server_cannot_do_is_refused_and_not_left_out(kind: str) -> None:
    async with fake(lambda _: HELLOS[kind]) as server:
        with pytest.raises(UsageError, match="cannot do this: a grammar"):
            await heard(opened(kind, server), Task(HELLO.turns, form=Form(grammar='root ::= "a"')))
    assert server.asked == []


@pytest.mark.asyncio
async def test_models_say_what_they_can() -> None:
    def ollama(request: Request) -> Reply:
        return as_json(OLLAMA_TAGS) if request.path == "/api/tags" else as_json(OLLAMA_SHOW[request.body["model"]])

    async with fake(ollama) as server:
        dialect = opened("ollama", server)
        assert (
            await dialect.models()
            == await dialect.models()
            == [
                FoundModel("llama3.2:3b", "chat", 131072, True, 3212749888, "Q4_K_M"),
                FoundModel("all-minilm:latest", "embedding", 512),
            ]
        )
        await dialect.close()
    assert len(server.asked) == 4, "a model is asked about once"
    async with fake(lambda _: as_json(OPENAI_MODELS)) as server:
        dialect = opened("openai", server)
        assert await dialect.models() == [
            FoundModel("qwen2.5-7b-instruct", "chat", 32768),
            FoundModel("nomic-embed-text", "embedding"),
        ]
        await dialect.close()


SAID: dict[str, list[FoundModel]] = {
    "llama.cpp": [FoundModel("models/qwen2.5-0.5b-instruct-q8_0.gguf", "chat", 32768, parameters=630167424)],
    "LocalAI": [FoundModel("hermes-2-theta-llama-3-8b")],
    "LM Studio": [FoundModel("qwen2-vl-7b-instruct"), FoundModel("text-embedding-nomic-embed-text-v1.5", "embedding")],
    "Lemonade": [FoundModel("Gemma-3-4b-it-GGUF", "chat", 8192, vision=True), FoundModel("bge-m3-GGUF", "embedding")],
}


@pytest.mark.asyncio
@pytest.mark.parametrize("server_name", SAID)
async def test_each_server_s_list_of_models_is_understood(server_name: str) -> None:
    async with fake(lambda _: as_json({"object": "list", "data": LISTS[server_name]})) as server:
        dialect = opened("openai", server)
        assert await dialect.models() == SAID[server_name]
        await dialect.close()


@pytest.mark.asyncio
async def test_a_mesh_does_not_find_itself() -> None:
    ours = {"data": [{"id": "auto", "owned_by": "atmosphere"}, {"id": "atmo-nano", "owned_by": "atmosphere"}]}
    async with fake(lambda _: as_json(ours)) as server:
        dialect = opened("openai", server)
        assert await dialect.models() == []
        await dialect.close()


@pytest.mark.asyncio
async def test_vectors_come_in_the_order_of_the_texts() -> None:
    openai = as_json({"data": [{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}]})
    ollama = as_json({"model": "m", "embeddings": [[1, 0], [0, 1]], "prompt_eval_count": 8})
    for name, reply in (("openai", openai), ("ollama", ollama)):
        async with fake(lambda _, reply=reply: reply) as server:  # type: ignore[misc]
            dialect = opened(name, server)
            assert await dialect.embed("m", ["a", "b"]) == [[1.0, 0.0], [0.0, 1.0]]
            await dialect.close()


def failing(status: int, body: Any = None, **headers: str) -> Callable[[Request], Reply]:
    return lambda _: as_json(body if body is not None else {"error": {"message": "no"}}, status, **headers)


def parts(*parts: bytes, cut: bool = False) -> Callable[[Request], Reply]:
    return lambda _: Reply(parts=list(parts), cut=cut)


TROUBLE: dict[str, tuple[Callable[[Request], Reply], type[AtmoError], str]] = {
    "500": (failing(500), EngineUnavailable, "answered with status 500"),
    "502 with a page": (lambda _: Reply(502, parts=[b"<html>"]), EngineUnavailable, "status 502"),
    "503": (failing(503), EngineUnavailable, "status 503"),
    "503 with a pause": (failing(503, **{"retry-after": "7"}), Overloaded, "is busy"),
    "429": (failing(429, **{"retry-after": "7"}), Overloaded, "is busy"),
    "429 with nonsense": (failing(429, **{"retry-after": "soon"}), Overloaded, "is busy"),
    "529": (failing(529), EngineUnavailable, "status 529"),
    "401": (failing(401), EngineUnavailable, "does not accept the key"),
    "404": (failing(404, {"error": "model 'm' not found"}), ModelNotFound, "model 'm' not found"),
    "400": (failing(400, {"error": {"message": "bad role"}}), UsageError, "bad role"),
    "422": (failing(422, {"detail": "bad field"}), UsageError, "bad field"),
    "too long": (
        failing(400, {"error": {"message": "too long", "code": "context_length_exceeded"}}),
        ContextOverflow,
        "too long",
    ),
    "garbage": (parts(b"data: {\xff\n\n", b"{nonsense\n"), EngineUnavailable, "no JSON object|broke off"),
    "wrong shapes": (
        parts(b'data: {"choices": 5, "type": "content_block_delta"}\n\n', b'{"message": 5}\n'),
        EngineUnavailable,
        "no JSON|is none|broke off",
    ),
    "nothing": (parts(), EngineUnavailable, "broke off"),
    "cut": (parts(b"\n", cut=True), EngineUnavailable, "broke off"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_becomes_an_error_of_ours(kind: str, trouble: str) -> None:
    answer, error, what = TROUBLE[trouble]
    async with fake(answer) as server:
        with pytest.raises(error, match=what) as caught:
            await heard(opened(kind, server))
    assert "\n" not in str(caught.value)
    if isinstance(caught.value, Overloaded):
        assert caught.value.retry_after_s == (1.0 if "nonsense" in trouble else 7.0)


@pytest.mark.asyncio
async def test_half_a_stream_is_told_and_then_an_error(kind: str) -> None:
    half = Reply(200, {}, HELLOS[kind].parts[:-3] if kind != "ollama" else HELLOS[kind].parts[:1], cut=True)
    async with fake(lambda _: half) as server:
        dialect, said = opened(kind, server), list[str]()
        with pytest.raises(EngineUnavailable, match="broke off in the middle"):
            await _listen(dialect, said)
        await dialect.close()
    assert "".join(said).startswith("Hel")


async def _listen(dialect: Dialect, said: list[str]) -> None:
    async with aclosing(dialect.chat("m", HELLO)) as pieces:
        async for piece in pieces:
            said.append(piece.text if isinstance(piece, Piece) else "")


@pytest.mark.asyncio
async def test_an_error_inside_a_stream_is_an_error(kind: str) -> None:
    event = {"type": "error", "error": {"type": "api_error", "message": "out of memory"}}
    reply = as_lines({"error": "out of memory"}) if kind == "ollama" else as_events(event)
    async with fake(lambda _: reply) as server:
        with pytest.raises(EngineUnavailable, match=r"failed on a request: .*out of memory"):
            await heard(opened(kind, server))


@pytest.mark.asyncio
async def test_silence_and_absence_end_in_time(kind: str) -> None:
    async with fake(lambda _: Reply(hang=True)) as server:
        with pytest.raises(EngineUnavailable, match="does not answer in time"):
            await heard(opened(kind, server, silence_s=0.1))
        gone = opened(kind, server)
    with pytest.raises(EngineUnavailable, match="takes no connections"):
        await heard(gone)


@pytest.mark.asyncio
async def test_leaving_an_answer_closes_the_connection(kind: str) -> None:
    endless = Reply(200, {}, HELLOS[kind].parts[: 4 if kind == "anthropic" else 2], hang=True)
    async with fake(lambda _: endless) as server:
        dialect = opened(kind, server)
        async with aclosing(dialect.chat("m", HELLO)) as pieces:
            await anext(pieces)
        async with asyncio.timeout(5.0):
            await server.left.wait()
        await dialect.close()


CANARY = "sk-canary-0123456789"


@pytest.mark.asyncio
async def test_a_key_goes_into_one_header_and_into_no_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATMO_TEST_KEY", CANARY)
    file = tmp_path / "key"
    file.write_text(f"{CANARY}\n")
    file.chmod(0o600)
    name = "x-api-key" if kind == "anthropic" else "authorization"
    for key in ("env:ATMO_TEST_KEY", f"file:{file}"):
        for status in (200, 400, 401, 404, 429, 500):
            echo = as_json({"error": {"message": f"Incorrect API key provided: {CANARY}"}}, status)
            async with fake(lambda _, echo=echo: echo) as server:  # type: ignore[misc]
                with pytest.raises(AtmoError) as caught:
                    await heard(opened(kind, server, key=key))
            assert CANARY in server.asked[0].headers[name]
            assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.hint}"


@pytest.mark.asyncio
async def test_a_key_that_others_can_read_or_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(CANARY)
    file.chmod(0o644)
    async with fake(lambda _: OPENAI_HELLO) as server:
        for key, what in (
            (f"file:{file}", "can be read by others"),
            (f"file:{tmp_path / 'none'}", "cannot be read: No such file"),
            ("env:ATMO_NO_SUCH_KEY", "ATMO_NO_SUCH_KEY is not set"),
        ):
            with pytest.raises(ConfigError, match=what):
                await heard(opened("openai", server, key=key))
    assert server.asked == []
