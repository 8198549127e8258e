"""The rest of the llama.cpp engines' contract: samplers, plain completions, scores, grammars, tools, embeddings. One
suite for each engine that is installed, through a real worker process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from atmo.errors import ContextOverflow, UsageError
from atmo.generation import Form, Piece, Prefix, Sampling, Task, ToolCall, Turn
from atmo.inference.supervisor import Supervisor
from tests.inference.gguf_maker import TEMPLATE, song, write_parrot
from tests.inference.running import LLAMA_ENGINES, answer, gguf_spec, ids_of, job, running, skip_reason, text_of

NANO = Path(__file__).parents[2] / "atmo" / "assets" / "nano" / "atmo-nano.gguf"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Rome", "Oslo"]},
                "days": {"$ref": "#/$defs/days"},
            },
            "required": ["city", "days"],
            "$defs": {"days": {"type": "integer"}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
TOOLS = json.dumps([WEATHER, CLOCK])
# As Qwen and Hermes write it: tools in the system prompt, calls and results in their tags.
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<tool_call><|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function.name }}"
    "{{ call.function.arguments | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(params=LLAMA_ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if reason := skip_reason(name):
        pytest.skip(reason)
    return name


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    return write_parrot(tmp_path / "parrot.gguf")


def formed(form: Form, text: str = "sing", **sampling: Any) -> Task:
    return Task((Turn("user", text),), Sampling(**{"max_tokens": 1500, **sampling}), form)


def sampled(**sampling: Any) -> Task:
    return formed(Form(), **sampling)


@pytest.mark.asyncio
async def test_every_sampler_does_what_it_is_named_for(engine: str, tmp_path: Path) -> None:
    unsure = write_parrot(tmp_path / "unsure.gguf", sharpness=3.0)
    async with running(gguf_spec(unsure, engine)) as supervisor:

        async def said(**sampling: Any) -> str:
            return text_of((await answer(supervisor, sampled(max_tokens=20, seed=5, **sampling)))[0])

        assert await said(temperature=1.0) != song(20), "left alone, it errs"
        assert await said(temperature=1.0, top_k=1) == song(20)
        assert await said(temperature=1.0, min_p=0.9) == song(20)
        assert (await said(logit_bias=((ord("q"), 50.0),)))[:5] == "qqqqq"
        assert "c" not in await said(logit_bias=((ord("c"), -50.0),))
    async with running(gguf_spec(write_parrot(tmp_path / "loop.gguf", sharpness=1.0), engine)) as supervisor:
        twice = text_of((await answer(supervisor, sampled(max_tokens=60)))[0])
        once = text_of((await answer(supervisor, sampled(max_tokens=60, presence_penalty=2.0)))[0])
        less = text_of((await answer(supervisor, sampled(max_tokens=60, frequency_penalty=2.0)))[0])
    assert twice.count("a") == 2
    assert once.count("a") <= 1
    assert less.count("a") <= 1


@pytest.mark.asyncio
async def test_a_plain_completion_goes_on_with_the_text_itself(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine, system="You are a parrot.")) as supervisor:
        pieces, finish = await answer(supervisor, formed(Form(raw=True), "xabc", max_tokens=5))
    assert text_of(pieces) == "defgh"
    assert finish.prompt_tokens == 4, "no template, no system prompt"


@pytest.mark.asyncio
async def test_each_token_has_its_score_also_inside_a_character(engine: str, parrot: Path) -> None:
    length = len("abcdefghijklmnopqrstuvwxyzé€".encode())
    async with running(gguf_spec(parrot, engine, slots=1)) as supervisor:
        pieces, _ = await answer(supervisor, formed(Form(logprobs=2), max_tokens=length))
        bare, _ = await answer(supervisor, formed(Form(logprobs=0), max_tokens=3))
        without, _ = await answer(supervisor, formed(Form(), max_tokens=3))
    scores = [score for piece in pieces for score in piece.scores]
    # One logit of 9 and 258 of 0: the chosen token's share, and what any other has.
    likely, other = -math.log1p(258 * math.exp(-9)), -9 - math.log1p(258 * math.exp(-9))
    assert [len(piece.scores) for piece in pieces] == [len(piece.token_ids) for piece in pieces]
    assert len(scores) == len(ids_of(pieces)) == length
    assert "".join(score.text for score in scores) == text_of(pieces)
    for score in scores:
        assert score.logprob == pytest.approx(likely, abs=0.03)
        assert [logprob for _, logprob in score.top] == pytest.approx([likely, other], abs=0.03)
    assert [(score.text, score.top) for piece in bare for score in piece.scores] == [("a", ()), ("b", ()), ("c", ())]
    assert [piece.scores for piece in without] == [(), (), ()]


@pytest.mark.asyncio
async def test_a_grammar_and_a_schema_leave_no_choice(engine: str, parrot: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "sum": {"type": "integer"},
            "words": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        },
        "required": ["sum", "words"],
        "additionalProperties": False,
    }
    async with running(gguf_spec(parrot, engine)) as supervisor:
        pieces, finish = await answer(supervisor, formed(Form(grammar='root ::= "yes" | "no"')))
        assert (text_of(pieces), finish.reason) in (("yes", "stop"), ("no", "stop"))
        for seed in range(3):
            asked = formed(Form(schema=json.dumps(schema)), temperature=2.0, seed=seed)
            pieces, finish = await answer(supervisor, asked)
            if finish.reason == "stop":
                found = json.loads(text_of(pieces))
                assert isinstance(found["sum"], int)
                assert len(found["words"]) <= 2
        pieces, _ = await answer(supervisor, formed(Form(schema="{}"), max_tokens=1))
        assert text_of(pieces) == "{"


@pytest.mark.asyncio
async def test_what_is_no_grammar_schema_or_tool_is_refused_with_the_reason(engine: str, parrot: Path) -> None:
    async with running(gguf_spec(parrot, engine)) as supervisor:
        for form, what in (
            (Form(grammar='root ::= "a'), "not right in line 1: a literal does not end"),
            (Form(grammar="root ::= root | x"), "names 'x', which is no rule"),
            (Form(schema='{"type": "fish"}'), 'schema.type is "fish", which is no type'),
            (Form(schema="{"), "The schema is not JSON"),
            (Form(tools="[1]"), "Tool 0 is not of the form"),
            (Form(tools=TOOLS, tool_choice="get_lost"), "'get_lost', which is no tool"),
            (Form(schema="{}", grammar='root ::= "a"'), "goes neither with a schema"),
        ):
            with pytest.raises(UsageError, match=what):
                await answer(supervisor, formed(form))
        seen = Task((Turn("user", "what is this?", images=(b"png",)),))
        with pytest.raises(UsageError, match="parrot cannot see images"):
            await answer(supervisor, seen)
        assert text_of((await answer(supervisor, job(max_tokens=3)))[0]) == "abc", "the engine goes on"


@pytest.mark.asyncio
async def test_a_held_answer_is_gone_on_with_from_any_token(engine: str, parrot: Path) -> None:
    form = Form(grammar='root ::= "abc" [x-z]{3} ("é" | "€") "!"')
    async with running(gguf_spec(parrot, engine)) as supervisor:
        whole, _ = await answer(supervisor, formed(form))
        ids = ids_of(whole)
        assert text_of(whole) in ("abcxyzé!", "abcxyz€!")
        for at in range(1, len(ids)):
            said = bytes(ids[:at]).decode("utf-8", "ignore")
            if bytes(ids[:at]) != said.encode():
                continue  # an answer is never told up to the middle of a character
            rest, finish = await answer(supervisor, structs.replace(formed(form), prefix=Prefix("", tuple(ids[:at]))))
            assert (said + text_of(rest), finish.reason) == (text_of(whole), "stop")


def calls_of(pieces: list[Piece]) -> list[tuple[str, str, str]]:
    """(id, name, arguments) of each call that the deltas make up."""
    found: dict[int, tuple[str, str, str]] = {}
    for delta in (delta for piece in pieces for delta in piece.calls):
        ours = found.get(delta.index, ("", "", ""))
        found[delta.index] = (ours[0] + delta.id, ours[1] + delta.name, ours[2] + delta.arguments)
    return [found[index] for index in sorted(found)]


@pytest.mark.asyncio
@pytest.mark.parametrize("template", [TEMPLATE, TOOL_TEMPLATE], ids=["template without tools", "template with tools"])
async def test_a_required_call_is_valid_whatever_the_model(engine: str, template: str, tmp_path: Path) -> None:
    parrot = write_parrot(tmp_path / "tools.gguf", template=template)
    async with running(gguf_spec(parrot, engine)) as supervisor:
        await _calls_as_it_must(supervisor)
        free, finish = await answer(supervisor, formed(Form(tools=TOOLS), max_tokens=10))
        assert (text_of(free), calls_of(free), finish.reason) == (song(10), [], "length")
        _, plain = await answer(supervisor, formed(Form(), max_tokens=1))
        _, none = await answer(supervisor, formed(Form(tools=TOOLS, tool_choice="none"), max_tokens=1))
        assert finish.prompt_tokens > plain.prompt_tokens + 100, "the model is told of the tools"
        assert none.prompt_tokens == plain.prompt_tokens


async def _calls_as_it_must(supervisor: Supervisor) -> None:
    for choice, names in (("required", ("get_weather", "get_time")), ("get_weather", ("get_weather",))):
        pieces, finish = await answer(supervisor, formed(Form(tools=TOOLS, tool_choice=choice)))
        ((call_id, name, arguments),) = calls_of(pieces)
        assert finish.reason == "tool_calls"
        assert name in names
        assert call_id.startswith("call_")
        assert text_of(pieces) == ""
        written = "".join(piece.raw or piece.text for piece in pieces)
        assert json.loads(written.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))["name"] == name
        if name == "get_weather":
            assert json.loads(arguments)["city"] in ("Rome", "Oslo")


@pytest.mark.asyncio
async def test_the_shipped_model_calls_when_it_must(engine: str) -> None:
    async with running(gguf_spec(NANO, engine)) as supervisor:
        await _calls_as_it_must(supervisor)


@pytest.mark.asyncio
async def test_a_call_is_gone_on_with_in_the_middle(engine: str, parrot: Path) -> None:
    form = Form(tools=TOOLS, tool_choice="get_weather")
    async with running(gguf_spec(parrot, engine)) as supervisor:
        whole, _ = await answer(supervisor, formed(form))
        written, ids = "", list[int]()
        for piece in whole[:-12]:
            written, ids = written + (piece.raw or piece.text), [*ids, *piece.token_ids]
        begun = structs.replace(formed(form), prefix=Prefix("", tuple(ids), written))
        rest, finish = await answer(supervisor, begun)
    assert finish.reason == "tool_calls"
    assert ids + ids_of(rest) == ids_of(whole)
    joined = calls_of([*whole[:-12], *rest])
    assert joined == calls_of(whole), "one call, with one id"


@pytest.mark.asyncio
async def test_earlier_calls_and_their_results_reach_the_model(engine: str, tmp_path: Path) -> None:
    told = (
        Turn("user", "How is Rome?"),
        Turn("assistant", "", calls=(ToolCall("call_1", "get_weather", '{"city": "Rome", "days": 1}'),)),
        Turn("tool", "sunny", call_id="call_1", name="get_weather"),
    )
    for at, template in enumerate((TEMPLATE, TOOL_TEMPLATE)):
        parrot = write_parrot(tmp_path / f"{at}.gguf", template=template)
        async with running(gguf_spec(parrot, engine)) as supervisor:
            pieces, finish = await answer(supervisor, Task(told, Sampling(max_tokens=3), Form(tools=TOOLS)))
            _, without = await answer(supervisor, Task(told[:1], Sampling(max_tokens=3), Form(tools=TOOLS)))
        assert text_of(pieces) == "abc"
        assert finish.prompt_tokens > without.prompt_tokens + len('get_weather{"city": "Rome", "days": 1}sunny')


@pytest.mark.asyncio
async def test_an_embedding_model_makes_unit_vectors_and_does_not_chat(engine: str, tmp_path: Path) -> None:
    model = write_parrot(tmp_path / "vectors.gguf", embeds=True, context=512)
    async with running(gguf_spec(model, engine, slots=2)) as supervisor:
        one, same, other = await supervisor.embed(["abcabc", "abcabc", "xyz"])
        assert await supervisor.count_tokens("abc") == 3
        with pytest.raises(UsageError, match="does not chat"):
            await answer(supervisor, job())
        with pytest.raises(ContextOverflow, match="takes 512"):
            await supervisor.embed(["x" * 600])
        with pytest.raises(UsageError, match="no text to embed"):
            await supervisor.embed([""])
        assert len((await supervisor.embed(["still there"]))[0]) == 320
    assert math.isclose(math.hypot(*one), 1.0, abs_tol=1e-4)
    assert one == pytest.approx(same, abs=1e-6)
    # The parrot's vectors are one-hot: texts of other letters have nothing in common.
    assert [at for at, share in enumerate(one) if abs(share) > 0.1] == [ord("a"), ord("b"), ord("c")]
    assert sum(a * b for a, b in zip(one, other, strict=True)) == pytest.approx(0.0, abs=1e-6)
