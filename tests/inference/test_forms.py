"""Grammars, schemas and tool calls without any engine."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atmo.errors import UsageError
from atmo.generation import CallDelta, Form, Piece, TokenScore
from atmo.inference.engines.calls import CallFilter
from atmo.inference.engines.gbnf import read_grammar
from atmo.inference.engines.schema import schema_grammar
from atmo.inference.engines.tools import HERMES, LLAMA3, MISTRAL, CallFormat, call_grammar, format_of, read_tools
from atmo.inference.engines.xllama_run import score_in


def fits(grammar: str, text: str) -> bool:
    """Does the text fit as a whole?"""
    try:
        rest = read_grammar(grammar).after(text)
    except UsageError:
        return False
    return '""' in rest.splitlines()[0].partition("::=")[2].split(" | ")[0]


def schema_takes(schema: Any, value: Any) -> bool:
    grammar = schema_grammar(json.dumps(schema))
    return all(fits(grammar, text) for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)))


PERSON = {
    "type": "object",
    "properties": {
        "nick": {"type": "string", "maxLength": 4},
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"]},
        "mood": {"enum": ["good", "bad", 7]},
        "friends": {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "mood"],
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ann", "mood": "good"},
        {"nick": "A", "name": 'Ann "é" 😀\n', "age": None, "mood": 7},
        {"name": "", "age": -12, "mood": "bad", "friends": [{"name": "b", "mood": 7}]},
    ],
)
def test_a_schema_takes_what_fits(value: Any) -> None:
    assert schema_takes(PERSON, value)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ann"},
        {"mood": "good", "name": "Ann"},  # the schema's order is held
        {"name": "Ann", "mood": "angry"},
        {"name": 5, "mood": "good"},
        {"name": "Ann", "mood": "good", "friends": []},
        {"nick": "longer", "name": "Ann", "mood": "good"},
        {"name": "Ann", "mood": "good", "more": 1},
        ["Ann"],
        "Ann",
    ],
)
def test_a_schema_refuses_what_does_not(value: Any) -> None:
    assert not schema_takes(PERSON, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=3))
@settings(max_examples=30, deadline=None)
def test_no_schema_means_any_object(value: dict[str, Any]) -> None:
    """Whatever Python writes as a JSON object fits the grammar of `{}`."""
    assert schema_takes({}, value)
    assert not schema_takes({}, [value])


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"const": "x"}, "x", "y"),
        ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, True, "true"),
        ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}]}, {"a": 1}, {}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"x": 1}, {"x": "y"}),
        ({"type": "object", "properties": {}}, {}, {"x": 1}),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], ["a", 1]),
        ({"type": "number"}, -1.5e3, "1"),
        (
            {"properties": {"a/b": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"type": "null"}}},
            {"a/b": None},
            {"a/b": 1},
        ),
    ],
)
def test_keywords(schema: Any, good: Any, bad: Any) -> None:
    assert schema_takes(schema, good)
    assert not schema_takes(schema, bad)


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ('{"type": 5}', "schema.type is 5, which is no type"),
        ('{"properties": []}', "properties must be an object"),
        ('{"$ref": "http://example.com/x"}', "Only references into the schema itself"),
        ('{"$ref": "#/$defs/none"}', "which is not in it"),
        ('{"$ref": "#"}', "begins with itself"),
        ('{"enum": []}', "must be a list that is not empty"),
        ('{"minLength": -1, "type": "string"}', "minLength must be a count"),
        ("[" * 100_000, "not JSON|characters"),
        ('{"items":' * 200 + "{}" + "}" * 200, "nested deeper"),
        ("5", "an object is needed"),
    ],
)
def test_what_is_no_schema_is_refused(schema: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_grammar(schema_grammar(schema))


@given(st.text(alphabet='root:= "ab[]()|*+?{1,}\\\n#.x-^', max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_breaks_the_reader_of_grammars(text: str) -> None:
    """Any text is a grammar or a UsageError, in bounded time."""
    try:
        grammar = read_grammar("root ::= " + text)
        grammar.after("ab")
    except UsageError:
        pass


def test_what_is_left_of_a_grammar_takes_what_the_whole_would() -> None:
    grammar = 'root ::= word ("," ws word)* end?\nword ::= [a-z]+\nws ::= " "?\nend ::= "." root "!" | "\\u00e9"'
    text = "abc, de,f.gh, ié!"
    assert fits(grammar, text)
    for at in range(len(text)):
        rest = read_grammar(grammar).after(text[:at])
        assert fits(rest, text[at:]), f"after {text[:at]!r}"
        assert not fits(rest, text[at:] + "!!")


@pytest.mark.parametrize(
    ("grammar", "what"),
    [
        ("root ::= " + "(" * 5000, "nested deeper than 64"),
        ('root ::= "a"{1,99999}', "up to 1000 times"),
        ("root ::= " + "([a]? [b]{0,900})" * 100, "too many repetitions"),
        ('root ::= a\na ::= b? c\nc ::= b? root\nb ::= "x"', "begins with itself"),
        ("root ::= <[1]>", "tokens are not supported"),
        ("x" * 300_000, "has 300000 characters"),
    ],
)
def test_hostile_grammars_are_refused_before_llama_cpp_sees_them(grammar: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_grammar(grammar)


WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def read(
    known: CallFormat, text: str, cuts: list[int], begun: int = 0
) -> tuple[str, list[tuple[str, str]], list[Piece]]:
    """(text shown, calls, pieces) of an answer cut into pieces; `begun` characters of it were told before."""
    found = CallFilter(known, ["get_weather", "stop"], lambda: "id")
    found.begin(text[:begun])
    places = sorted({begun, len(text), *(begun + cut % (len(text) - begun + 1) for cut in cuts)})
    pieces: list[Piece] = []
    for at, end in itertools.pairwise(places):
        pieces += found.push(Piece(text[at:end], (at,)))
    pieces += found.flush()
    assert "".join(piece.raw or piece.text for piece in pieces) == text[begun:]
    assert [token for piece in pieces for token in piece.token_ids] == places[:-1]
    return "".join(piece.text for piece in pieces), _joined([d for piece in pieces for d in piece.calls]), pieces


def _joined(deltas: list[CallDelta]) -> list[tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for delta in deltas:
        name, arguments = found.get(delta.index, ("", ""))
        found[delta.index] = (name + delta.name, arguments + delta.arguments)
    return [found[index] for index in sorted(found)]


ANSWERS = [
    (
        HERMES,
        'Let me see. <tool_call>\n{"name": "get_weather", "arguments": {"city": "}\\"]"}}\n</tool_call>',
        "Let me see. ",
    ),
    (HERMES, '<tool_call>{"name":"stop"}</tool_call>\n<tool_call>{"name": "stop", "arguments": {}}</tool_call>', ""),
    (HERMES, 'a <tool_call> b <tool_call>{"name": "unknown", "arguments": {}}</tool_call>', None),
    (HERMES, "1 < 2 <tool", None),
    (MISTRAL, '[TOOL_CALLS] [{"name": "stop", "arguments": {}}, {"name": "get_weather", "arguments": {"a": [1]}}]', ""),
    (LLAMA3, '{"name": "get_weather", "parameters": {"city": "Rome"}}', ""),
    (LLAMA3, '{"answer": 42}', None),
    (LLAMA3, 'It is {"name": "stop", "parameters": {}}', None),
]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 200), max_size=8))
@settings(max_examples=200, deadline=None)
def test_calls_are_found_however_the_answer_is_cut(story: tuple[CallFormat, str, str | None], cuts: list[int]) -> None:
    """Pieces of any size give the same text and the same calls, and lose no token and no character."""
    known, text, shown = story
    whole = read(known, text, [])
    said, calls, _ = read(known, text, cuts)
    assert (said, calls) == whole[:2]
    assert said == (text if shown is None else shown)
    for _, arguments in calls:
        json.loads(arguments)


@given(st.sampled_from(ANSWERS), st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_an_answer_read_in_two_engines_gives_the_same_calls(story: tuple[CallFormat, str, str | None], at: int) -> None:
    """What the first engine had told, and what the second tells after it, make up the whole."""
    known, text, _ = story
    first = CallFilter(known, ["get_weather", "stop"], lambda: "id")
    told = [piece for place, char in enumerate(text[: at % len(text)]) for piece in first.push(Piece(char, (place,)))]
    begun = sum(len(piece.raw or piece.text) for piece in told)
    said, _, rest = read(known, text, list(range(len(text))), begun)
    whole_text, whole_calls, _ = read(known, text, [])
    assert "".join(piece.text for piece in told) + said == whole_text
    assert _joined([delta for piece in [*told, *rest] for delta in piece.calls]) == whole_calls


@pytest.mark.parametrize("known", [HERMES, MISTRAL, LLAMA3], ids=lambda known: known.name)
def test_a_required_call_is_written_so_that_it_is_read(known: CallFormat) -> None:
    form = Form(tools=json.dumps([WEATHER]), tool_choice="required")
    grammar = call_grammar(read_tools(form), form, known)
    call = f'{{"name": "get_weather", "{known.arguments}": {{"city": "Rome"}}}}'
    written = {"hermes": f"<tool_call>\n{call}\n</tool_call>", "mistral": f"[TOOL_CALLS][{call}]", "llama3": call}
    assert fits(grammar, written[known.name])
    assert not fits(grammar, "no")
    assert read(known, written[known.name], [5, 9])[:2] == ("", [("get_weather", '{"city": "Rome"}')])


def test_a_score_is_found_among_the_likeliest_or_not_at_all() -> None:
    likeliest = [{"id": 7, "token": "a", "logprob": -0.5}, {"id": 195, "token": "\ufffd", "logprob": -1.0}]
    answer = {"completion_probabilities": [{"id": 97, "token": "a", "logprob": -9.0, "top_logprobs": likeliest}]}
    assert score_in(answer, 195, 1) == TokenScore("", -1.0, (("a", -0.5),))
    assert score_in(answer, 8, 1) is None
    assert score_in({}, 195, 1) is None


def test_formats_are_told_from_templates() -> None:
    assert format_of("... <tool_call> {{ tools }}") is HERMES
    assert format_of("[AVAILABLE_TOOLS] [TOOL_CALLS]") is MISTRAL
    assert format_of('respond with {"name": x, "parameters": y}') is LLAMA3
    assert format_of("") is HERMES
