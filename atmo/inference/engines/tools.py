"""Tools: how a model is told of them, how it writes a call, and how it is made to write one.

Models write calls in a few formats, which their chat templates show; `FORMATS` is the table of those that are read
here. A model whose template knows no tools is told of them in a system prompt, in the most common format. Where a call
is required, a grammar leaves the model nothing else to write, so even a small model gives a valid one.

Formats: the chat templates of Hermes 2 Pro and Qwen 2.5, Mistral 7B v0.3 and Llama 3.1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from atmo.errors import UsageError
from atmo.generation import Form, Turn
from atmo.inference.engines.pictures import content_of
from atmo.inference.engines.schema import SchemaRules, literal, read_json

Message = dict[str, Any]

_MAX_TOOLS = 128  # OpenAI's limit
_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class CallFormat:
    """How a model writes calls. shown_by: what its template holds; opens, closes: around one call, or a list of them;
    bare: a call is the whole answer, without anything around it; arguments: the name of that key."""

    name: str
    shown_by: str
    opens: str = ""
    closes: str = ""
    bare: bool = False
    arguments: str = "arguments"


HERMES = CallFormat("hermes", "<tool_call>", "<tool_call>", "</tool_call>")
MISTRAL = CallFormat("mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", "]")
LLAMA3 = CallFormat("llama3", '"parameters"', bare=True, arguments="parameters")
FORMATS = (HERMES, MISTRAL, LLAMA3)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: Any
    definition: dict[str, Any]


def format_of(template: str) -> CallFormat:
    """The format that a chat template shows."""
    return next((known for known in FORMATS if known.shown_by in template), HERMES)


def knows_tools(template: str) -> bool:
    return "tools" in template


def read_tools(form: Form) -> tuple[Tool, ...]:
    """The tools of a request that may call any. Raises UsageError when they or the choice are not right."""
    if not form.tools:
        return ()
    parsed = read_json(form.tools, "list of tools")
    if not isinstance(parsed, list) or len(parsed) > _MAX_TOOLS:
        raise UsageError(f"The tools must be a list of up to {_MAX_TOOLS}.")
    tools = tuple(_tool(each, at) for at, each in enumerate(parsed))
    names = [tool.name for tool in tools]
    if form.tool_choice not in (*_CHOICES, *names):
        raise UsageError(
            f"The tool choice is {form.tool_choice!r}, which is no tool.", hint=f"Known are: {', '.join(names)}."
        )
    return () if form.tool_choice == "none" else tools


def _tool(entry: Any, at: int) -> Tool:
    function = entry.get("function") if isinstance(entry, dict) and entry.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not 0 < len(name) <= 64:
        raise UsageError(f'Tool {at} is not of the form {{"type": "function", "function": {{"name": ...}}}}.')
    return Tool(name, function.get("parameters") or {"type": "object", "properties": {}}, entry)


def is_forced(form: Form) -> bool:
    """Must the answer be a call?"""
    return bool(form.tools) and form.tool_choice not in ("auto", "none")


def call_grammar(tools: tuple[Tool, ...], form: Form, known: CallFormat) -> str:
    """The grammar of one call of one of the tools that may be called, or of what fits the form's schema where no call
    is required. Raises UsageError for wrong parameters."""
    rules = SchemaRules()
    wanted = [tool for tool in tools if form.tool_choice in ("auto", "required", tool.name)]
    calls = " | ".join(_one_call(rules, tool, known) for tool in wanted)
    around = {
        "hermes": rf'"<tool_call>\n" ({calls}) "\n</tool_call>"',
        "mistral": f'"[TOOL_CALLS]" "[" ({calls}) "]"',
        "llama3": f"{calls}",
    }
    if is_forced(form):
        return rules.grammar(around[known.name])
    schema = read_json(form.schema, "schema")
    return rules.grammar(f"{around[known.name]} | {rules.rule(schema, schema, 'schema') if schema else 'object'}")


def _one_call(rules: SchemaRules, tool: Tool, known: CallFormat) -> str:
    """Written as templates show it: the name first, a blank behind colons and commas."""
    arguments = rules.rule(tool.parameters, tool.parameters, f"parameters of {tool.name}")
    begin = f'{{"name": {json.dumps(tool.name)}, "{known.arguments}": '
    return f'{literal(begin)} {arguments} "}}"'


# The conversation, for templates that know tools and for those that do not


def message_of(turn: Turn, *, as_text: bool) -> Message:
    """A turn as chat templates take it. as_text: the template knows no tools, so calls and results are written out."""
    if as_text and turn.role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{turn.content}\n</tool_response>"}
    if as_text and turn.calls:
        written = [_call_text(call.name, call.arguments) for call in turn.calls]
        return {"role": turn.role, "content": "\n".join([turn.content, *written]).strip()}
    message: Message = {"role": turn.role, "content": turn.content}
    if turn.images:
        message["content"] = content_of(turn.content, turn.images)
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.calls
        ]
    if turn.call_id:
        message["tool_call_id"] = turn.call_id
    if turn.name:
        message["name"] = turn.name
    return message


def with_objects(message: Message) -> Message:
    """The same with calls' arguments as objects, which templates write out as JSON; what does not parse stays text."""
    if "tool_calls" not in message:
        return message
    calls = [{**call, "function": _parsed(call["function"])} for call in message["tool_calls"]]
    return {**message, "tool_calls": calls}


def _parsed(function: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**function, "arguments": msgspec.json.decode(function["arguments"])}
    except msgspec.DecodeError:
        return function


def _call_text(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments or "{}"}}}\n</tool_call>'


def told_in_system(turns: tuple[Turn, ...], tools: tuple[Tool, ...]) -> tuple[Turn, ...]:
    """The conversation with the tools in its system prompt, for a model whose template has no place for them."""
    listed = "\n".join(json.dumps(tool.definition, ensure_ascii=False) for tool in tools)
    told = (
        f"You may call functions. These are there, one a line:\n{listed}\nTo call one, write its name and its "
        'arguments like this:\n<tool_call>\n{"name": "the name", "arguments": {}}\n</tool_call>'
    )
    if turns and turns[0].role == "system":
        return (Turn("system", f"{turns[0].content}\n\n{told}"), *turns[1:])
    return (Turn("system", told), *turns)
