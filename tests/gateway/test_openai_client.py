"""OpenAI's API as its own Python client uses it, over a node that plays recorded events."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from atmo.errors import (
    AtmoError,
    ContextOverflow,
    EngineUnavailable,
    NoRoute,
    Overloaded,
    RequestTimeout,
)
from atmo.generation import Task
from tests.gateway.support import HELLO, MESH_ID, Api, Json, done, route, serving, text, world

SAY_HI: Any = [{"role": "user", "content": "Say hi."}]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Api]:
    with world() as environ, serving(environ) as running:
        yield running


@pytest.fixture
def api(shared: Api) -> Api:
    shared.node.forget()
    return shared


@pytest.fixture
def client(api: Api) -> Iterator[openai.OpenAI]:
    with api.client() as made:
        yield made


def plays(api: Api, *events: Json | AtmoError) -> None:
    api.node.plays = list(events)


def test_a_chat_is_answered(api: Api, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="qwen", messages=SAY_HI)
    assert answer.choices[0].message.content == "Hello there."
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model, answer.id) == ("chat.completion", "qwen", f"chatcmpl-{MESH_ID}")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2


def test_a_chat_streams(api: Api, client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="auto", messages=SAY_HI, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["Hello", " there", "."]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{MESH_ID}"}
    assert all(chunk.usage is None for chunk in chunks)
    assert api.node.wishes[0].model == "", "auto leaves the choice to the mesh"
    assert api.node.wishes[0].type == "chat"


def test_usage_comes_at_the_end_of_a_stream_if_asked_for(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    *chunks, last = client.chat.completions.create(model="qwen", messages=SAY_HI, stream=True, stream_options=options)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)
    assert all(chunk.usage is None for chunk in chunks)


def test_what_is_asked_for_reaches_the_engine(api: Api, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="qwen",
        messages=[{"role": "developer", "content": "Be brief."}, *SAY_HI],
        max_completion_tokens=5,
        temperature=0.25,
        top_p=0.5,
        seed=42,
        stop=["\n", "END"],
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        logit_bias={"17": -100},
        extra_body={"top_k": 40, "min_p": 0.1},
    )
    task = api.node.tasks[0]
    assert [(turn.role, turn.content) for turn in task.turns] == [("system", "Be brief."), ("user", "Say hi.")]
    sampling = task.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (5, 0.25, 0.5, 42)
    assert (sampling.stop, sampling.top_k, sampling.min_p) == (("\n", "END"), 40, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (1.0, -1.0)
    assert sampling.logit_bias == ((17, -100.0),)


def test_left_out_means_what_it_means_at_openai(api: Api, client: openai.OpenAI) -> None:
    client.chat.completions.create(model="qwen", messages=SAY_HI, stop="\n")
    sampling = api.node.tasks[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.stop) == (1.0, 1.0, -1, ("\n",))
    assert api.node.tasks[0].form.logprobs == -1


def test_a_tool_is_called_and_its_answer_taken(api: Api, client: openai.OpenAI) -> None:
    call = {"index": 0, "id": "call_1", "name": "weather", "arguments": '{"town":'}
    rest = {"index": 0, "id": "", "name": "", "arguments": '"Bonn"}'}
    plays(api, route(), text("", calls=[call]), text("", calls=[rest]), done("tool_calls"))
    answer = client.chat.completions.create(model="qwen", messages=SAY_HI, tools=[TOOL], tool_choice="required")
    made = answer.choices[0].message.tool_calls
    assert made is not None
    assert made[0].type == "function"
    assert (made[0].id, made[0].function.name) == ("call_1", "weather")
    assert json.loads(made[0].function.arguments) == {"town": "Bonn"}
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == "tool_calls"
    form = api.node.tasks[0].form
    assert json.loads(form.tools) == [TOOL]
    assert form.tool_choice == "required"

    plays(api, *HELLO)
    spoken: Any = [*SAY_HI, answer.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."}]
    client.chat.completions.create(model="qwen", messages=spoken, tools=[TOOL])
    _, asked, told = api.node.tasks[1].turns
    assert (asked.role, asked.calls[0].name, json.loads(asked.calls[0].arguments)) == (
        "assistant", "weather", {"town": "Bonn"},
    )  # fmt: skip
    assert (told.role, told.call_id, told.content) == ("tool", "call_1", "Sunny.")


def test_tool_calls_stream_in_pieces(api: Api, client: openai.OpenAI) -> None:
    first = {"index": 0, "id": "call_1", "name": "weather", "arguments": ""}
    rest = {"index": 0, "id": "", "name": "", "arguments": "{}"}
    plays(api, route(), text("", calls=[first]), text("", calls=[rest]), done("tool_calls"))
    named: Any = {"type": "function", "function": {"name": "weather"}}
    chunks = list(
        client.chat.completions.create(model="qwen", messages=SAY_HI, tools=[TOOL], tool_choice=named, stream=True)
    )
    deltas = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    begun, more = deltas[0], deltas[1]
    assert begun is not None
    assert more is not None
    assert begun[0].function is not None
    assert more[0].function is not None
    assert (begun[0].id, begun[0].function.name, more[0].id, more[0].function.arguments) == (
        "call_1", "weather", None, "{}",
    )  # fmt: skip
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert api.node.tasks[0].form.tool_choice == "weather"


class Town(BaseModel):
    name: str
    people: int


def test_an_answer_has_the_shape_of_a_schema(api: Api, client: openai.OpenAI) -> None:
    plays(api, route(), text('{"name":"Bonn",'), text('"people":330000}'), done())
    answer = client.chat.completions.parse(model="qwen", messages=SAY_HI, response_format=Town)
    assert answer.choices[0].message.parsed == Town(name="Bonn", people=330000)
    schema = json.loads(api.node.tasks[0].form.schema)
    assert set(schema["properties"]) == {"name", "people"}
    client.chat.completions.create(model="qwen", messages=SAY_HI, response_format={"type": "json_object"})
    assert api.node.tasks[1].form.schema == "{}"


def test_the_probabilities_of_tokens_are_told(api: Api, client: openai.OpenAI) -> None:
    score = {"text": "Hé", "logprob": -0.5, "top": (("Hé", -0.5), ("Ho", -1.5))}
    plays(api, route(), text("Hé", scores=[score]), done())
    answer = client.chat.completions.create(model="qwen", messages=SAY_HI, logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert (told.content[0].token, told.content[0].logprob) == ("Hé", -0.5)
    assert told.content[0].bytes == list("Hé".encode())
    assert [one.token for one in told.content[0].top_logprobs] == ["Hé", "Ho"]
    assert api.node.tasks[0].form.logprobs == 2
    chunks = list(client.chat.completions.create(model="qwen", messages=SAY_HI, logprobs=True, stream=True))
    streamed = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert streamed[0].content is not None
    assert streamed[0].content[0].token == "Hé"
    assert api.node.tasks[1].form.logprobs == 0


def test_several_choices_have_seeds_of_their_own(api: Api, client: openai.OpenAI) -> None:
    async def by_seed(task: Task) -> AsyncIterator[Json]:
        yield route()
        yield text(f"seed {task.sampling.seed}")
        yield done()

    api.node.plays = by_seed
    answer = client.chat.completions.create(model="qwen", messages=SAY_HI, n=6, seed=10)
    said = [(choice.index, choice.message.content) for choice in answer.choices]
    assert said == [(at, f"seed {10 + at}") for at in range(6)]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 18), "the prompt counts once"
    heard: dict[int, str] = {}
    for chunk in client.chat.completions.create(model="qwen", messages=SAY_HI, n=3, seed=1, stream=True):
        choice = chunk.choices[0]
        heard[choice.index] = heard.get(choice.index, "") + (choice.delta.content or "")
    assert heard == {0: "seed 1", 1: "seed 2", 2: "seed 3"}


def test_one_of_several_choices_that_fails_fails_them_all_and_leaves_none_running(
    api: Api, client: openai.OpenAI
) -> None:
    async def third_fails(task: Task) -> AsyncIterator[Json]:
        yield route()
        if task.sampling.seed == 3:
            raise EngineUnavailable("The worker died.")
        yield text("fine")
        yield done()

    api.node.plays = third_fails
    with pytest.raises(openai.InternalServerError, match="The worker died"):
        client.chat.completions.create(model="qwen", messages=SAY_HI, n=4, seed=0)
    assert api.node.open == 0


def test_an_image_is_handed_over_and_only_nodes_that_see_are_asked(api: Api, client: openai.OpenAI) -> None:
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    parts: Any = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": parts}])
    turn = api.node.tasks[0].turns[0]
    assert (turn.content, turn.images) == ("What is this?", (PIXEL,))
    assert api.node.wishes[0].constraints == {"modality": "image"}
    assert api.node.wishes[0].text == "What is this?"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.org/cat.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("data:image/png;base64,%%%", "damaged"),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "neither PNG nor JPEG"),
        ("data:image/png,plain", "not base64"),
    ],
)
def test_an_image_from_elsewhere_or_of_another_kind_is_refused(client: openai.OpenAI, url: str, why: str) -> None:
    parts: Any = [{"type": "image_url", "image_url": {"url": url}}]
    with pytest.raises(openai.BadRequestError, match=why) as refused:
        client.chat.completions.create(model="qwen", messages=[{"role": "user", "content": parts}])
    assert refused.value.param == "messages[0].content[0].image_url.url"


def test_text_is_continued_without_a_chat_template(api: Api, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="qwen", prompt="Once", echo=True, max_tokens=9)
    assert answer.choices[0].text == "OnceHello there."
    task = api.node.tasks[0]
    assert (task.turns[0].content, task.form.raw, task.sampling.max_tokens) == ("Once", True, 9)
    streamed = client.completions.create(model="qwen", prompt="Once", stream=True, echo=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "OnceHello there."


def test_several_prompts_are_continued(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="qwen", prompt=["a", "b"], n=2, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (14, 12), "each prompt counts once"


def test_completions_tell_probabilities_in_their_own_shape(api: Api, client: openai.OpenAI) -> None:
    scores = [{"text": " a", "logprob": -0.1, "top": ((" a", -0.1),)}, {"text": "b", "logprob": -0.2, "top": ()}]
    plays(api, route(), text(" ab", scores=scores), done())
    told = client.completions.create(model="qwen", prompt="Once", echo=True, logprobs=1).choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.token_logprobs, told.text_offset) == ([" a", "b"], [-0.1, -0.2], [4, 6])
    assert told.top_logprobs == [{" a": -0.1}, {}]


def test_texts_become_vectors(api: Api, client: openai.OpenAI) -> None:
    minilm = "atmo:embedding:minilm"
    vectors = [{"event": "vector", "vector": [0.6, 0.8]}, {"event": "vector", "vector": [-1.0, 0.0]}]
    plays(api, route(capability=minilm), *vectors, done(capability=minilm, output_tokens=0))
    answer = client.embeddings.create(model="minilm", input=["one", "two"])
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx([0.6, 0.8])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (7, 7, "minilm")
    plain = client.embeddings.create(model="minilm", input="one", encoding_format="float")
    assert plain.data[0].embedding == [0.6, 0.8]
    assert [turn.content for turn in api.node.tasks[0].turns] == ["one", "two"]
    assert api.node.wishes[0].type == "embedding"
    with pytest.raises(openai.BadRequestError, match="2 dimensions"):
        client.embeddings.create(model="minilm", input="one", dimensions=1)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["auto", "qwen", "minilm"]
    assert client.models.retrieve("qwen").id == "qwen"
    assert client.models.retrieve("atmo:chat:qwen").id == "qwen"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def test_an_unknown_model_is_answered_with_what_comes_near(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"`qwn` does not exist.*Did you mean qwen\?") as refused:
        client.chat.completions.create(model="qwn", messages=SAY_HI)
    assert refused.value.code == "model_not_found"
    assert refused.value.type == "invalid_request_error"


def test_a_model_for_something_else_says_so(api: Api, client: openai.OpenAI) -> None:
    plays(api, NoRoute("No node can serve this."))
    with pytest.raises(openai.BadRequestError, match="`minilm` is for embedding, not for chat"):
        client.chat.completions.create(model="minilm", messages=SAY_HI)


def test_hints_for_the_mesh_go_in_the_body_or_in_headers(api: Api, client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="auto",
        messages=SAY_HI,
        extra_body={"atmo": {"constraints": {"min_tps": 20}, "timeout_s": 5}},
        extra_headers={"X-Atmo-Constraints": "residency=eu, min_tps=1", "X-Atmo-Type": "chat"},
    )
    assert api.node.wishes[0].constraints == {"residency": "eu", "min_tps": 20}, "the body wins"
    assert api.node.timeouts_s == [5.0]
    with pytest.raises(openai.BadRequestError, match="not a constraint"):
        client.chat.completions.create(model="auto", messages=SAY_HI, extra_headers={"X-Atmo-Constraints": "residency"})


def test_who_answered_is_told_in_headers_and_why_on_request(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="qwen", messages=SAY_HI, extra_headers={"X-Atmo-Explain": "1"}
    )
    assert raw.headers["x-atmo-node"] == "office"
    assert raw.headers["x-atmo-capability"] == "atmo:chat:qwen"
    assert raw.headers["x-atmo-request-id"] == raw.headers["x-request-id"] == MESH_ID
    told = raw.parse().model_extra
    assert told is not None
    assert told["atmo"]["decision"]["lines"] == ["office serves this."]
    plain = client.chat.completions.create(model="qwen", messages=SAY_HI)
    assert "atmo" not in (plain.model_extra or {})


def test_a_request_keeps_the_id_it_came_with_if_that_is_harmless(client: openai.OpenAI) -> None:
    for given, kept in (("my-trace.1", True), ("a" * 129, False), ("with space", False), ("", False)):
        raw = client.chat.completions.with_raw_response.create(
            model="qwen", messages=SAY_HI, extra_headers={"X-Request-Id": given}
        )
        assert (raw.headers["x-request-id"] == given) is kept
        assert raw.headers["x-atmo-request-id"] == MESH_ID


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (Overloaded("Busy.", retry_after_s=2.2), openai.RateLimitError, 429),
        (ContextOverflow("Too long."), openai.BadRequestError, 400),
        (NoRoute("Nobody can."), openai.InternalServerError, 503),
        (RequestTimeout("Too late."), openai.InternalServerError, 504),
        (EngineUnavailable("It died."), openai.InternalServerError, 503),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_word_has_its_own_status(
    api: Api, client: openai.OpenAI, error: AtmoError, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    plays(api, route(), error)
    with pytest.raises(kind, match=error.message) as refused:
        client.chat.completions.create(model="auto", messages=SAY_HI, stream=stream)
    assert refused.value.status_code == status
    assert refused.value.code == error.code
    if isinstance(error, Overloaded):
        assert (refused.value.response.headers["retry-after"], refused.value.response.headers["retry-after-ms"]) == (
            "3", "2200",
        )  # fmt: skip
    if isinstance(error, NoRoute):
        assert refused.value.response.headers["x-should-retry"] == "false"


def test_an_error_in_mid_stream_is_the_last_event(api: Api, client: openai.OpenAI) -> None:
    plays(api, route(), text("Hel"), EngineUnavailable("The node is gone."))
    stream = client.chat.completions.create(model="qwen", messages=SAY_HI, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Hel"]
    with pytest.raises(openai.APIError, match="The node is gone"):
        next(stream)


def test_an_answer_that_moved_to_another_node_is_whole(api: Api, client: openai.OpenAI) -> None:
    """And says so, in the last chunk or in the reply."""
    moved = {"event": "retry", "because": "office is gone.", "resumed": True, "other_model": True}
    plays(api, route(), text("Hel"), moved, route("cellar"), text("lo."), done(node="cellar"))
    chunks = list(client.chat.completions.create(model="qwen", messages=SAY_HI, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
    assert (chunks[-1].model_extra or {})["atmo"] == {"resumed": 1, "other_model": True}
    assert "atmo" not in (chunks[1].model_extra or {})
    whole = client.chat.completions.with_raw_response.create(model="qwen", messages=SAY_HI)
    assert whole.headers["x-atmo-node"] == "cellar"
    answer = whole.parse()
    assert answer.choices[0].message.content == "Hello."
    assert (answer.model_extra or {})["atmo"] == {"resumed": 1, "other_model": True}


def test_a_classifier_answers_with_its_likeliest_label(api: Api, client: openai.OpenAI) -> None:
    plays(api, route(), {"event": "labels", "labels": [("positive", 0.9), ("negative", 0.1)]}, done(output_tokens=0))
    hint = {"atmo": {"type": "classification"}}
    answer = client.chat.completions.create(model="auto", messages=SAY_HI, extra_body=hint)
    assert answer.choices[0].message.content == "positive"
    assert api.node.wishes[0].type == "classification"
    streamed = client.chat.completions.create(model="auto", messages=SAY_HI, extra_body=hint, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "positive"


def test_langchain_talks_to_it(api: Api) -> None:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import SecretStr

    chat = ChatOpenAI(model="qwen", base_url=api.gateway.url, api_key=SecretStr("none"), max_retries=0)
    assert chat.invoke("Say hi.").content == "Hello there."
    assert "".join(str(chunk.content) for chunk in chat.stream("Say hi.")) == "Hello there."
    minilm = "atmo:embedding:minilm"
    plays(api, route(capability=minilm), {"event": "vector", "vector": [0.6, 0.8]}, done(capability=minilm))
    embed = OpenAIEmbeddings(
        model="minilm", base_url=api.gateway.url, api_key=SecretStr("none"), check_embedding_ctx_length=False
    )
    assert embed.embed_query("one") == pytest.approx([0.6, 0.8])
    for made in (chat.root_client, embed.client._client):
        made.close()
