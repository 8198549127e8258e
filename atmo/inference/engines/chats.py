"""What both llama.cpp engines do alike with a request before and after the model."""

from __future__ import annotations

from dataclasses import dataclass

from atmo.errors import ContextOverflow, UsageError
from atmo.generation import Form, Piece, Task, Turn
from atmo.inference.engines.calls import CallFilter
from atmo.inference.engines.gbnf import read_grammar
from atmo.inference.engines.schema import schema_grammar
from atmo.inference.engines.stops import StopFilter
from atmo.inference.engines.tools import (
    CallFormat,
    Message,
    Tool,
    call_grammar,
    format_of,
    is_forced,
    knows_tools,
    message_of,
    read_tools,
    told_in_system,
)

PENALTY_TOKENS = 4096  # the last so many are counted; OpenAI counts all, llama.cpp's own default is 64
SCORE_CHARS = 200  # of a token's text in its score, as `atmo.generation` bounds it


@dataclass(frozen=True, slots=True)
class Plan:
    """A request as an engine takes it. messages: for the chat template, or raw: the prompt itself; tools: for the
    template, empty where it has no place for them; grammar: that the answer is held to, "" for none; images: of
    all turns, in their order."""

    messages: list[Message]
    raw: str
    tools: tuple[Tool, ...]
    called: tuple[str, ...]
    format: CallFormat
    grammar: str
    images: tuple[bytes, ...] = ()

    @property
    def mark(self) -> str:
        """What opens a call of a tool; some models have a control token for it, which is not text otherwise."""
        return self.format.opens if self.called else ""

    def grammar_after(self, begun: str) -> str:
        """The grammar for the rest of the answer. Raises UsageError when it is not right or the beginning not in it."""
        if not self.grammar:
            return ""
        grammar = read_grammar(self.grammar)
        return grammar.after(begun) if begun else self.grammar


class Writing:
    """What becomes of the pieces that a model writes: an end at a stop string, and calls of tools found in them.

    begun: what of the answer was written before, by another engine.
    """

    def __init__(self, task: Task, planned: Plan, begun: str) -> None:
        self._stops = StopFilter(task.sampling.stop)
        self._calls = CallFilter(planned.format, planned.called) if planned.called else None
        if self._calls is not None:
            self._calls.begin(begun)

    @property
    def stopped(self) -> bool:
        """A stop string is complete: nothing more is shown."""
        return self._stops.hit

    def push(self, piece: Piece) -> list[Piece]:
        """The pieces that may be told now."""
        return self._called(self._stops.push(piece))

    def flush(self) -> list[Piece]:
        """What is held when the model ends."""
        return [*self._called(self._stops.flush()), *(self._calls.flush() if self._calls else [])]

    def reason(self, end: str) -> str:
        """Why the answer ends. end: `stop` or `length`, as the model's own end was."""
        reason = "stop" if self._stops.hit else end
        return "tool_calls" if reason == "stop" and self._calls is not None and self._calls.calls else reason

    def _called(self, pieces: list[Piece]) -> list[Piece]:
        return pieces if self._calls is None else [part for piece in pieces for part in self._calls.push(piece)]


def plan(task: Task, model: str, system_prompt: str, template: str, *, sees: bool = False) -> Plan:
    """Raises UsageError for what makes no sense and for what the model cannot do. template: the model's own, or "";
    sees: it takes images."""
    turns = task.turns
    images = tuple(image for turn in turns for image in turn.images)
    if not images and not any(turn.content.strip() or turn.calls for turn in turns):
        raise UsageError("The prompt is empty.", hint="Say something.")
    if images and not sees:
        raise UsageError(f"{model} cannot see images.", hint="Ask a model with vision, or describe the image.")
    if task.form.raw and task.form.tools:
        raise UsageError("Tools need a chat, and this is a plain completion.", hint="Leave one of them away.")
    known, tools = format_of(template), read_tools(task.form)
    as_text = not knows_tools(template)
    if system_prompt and turns[0].role != "system":
        turns = (Turn("system", system_prompt), *turns)
    if tools and as_text:
        turns = told_in_system(turns, tools)
    return Plan(
        messages=[message_of(turn, as_text=as_text) for turn in turns],
        raw=task.turns[-1].content if task.form.raw else "",
        tools=() if as_text else tools,
        called=tuple(tool.name for tool in tools),
        format=known,
        grammar=_grammar(task.form, tools, known),
        images=images,
    )


def _grammar(form: Form, tools: tuple[Tool, ...], known: CallFormat) -> str:
    if form.grammar and (form.schema or tools):
        raise UsageError("A grammar goes neither with a schema nor with tools.", hint="Leave one of them away.")
    if is_forced(form) or (tools and form.schema):
        return call_grammar(tools, form, known)
    return form.grammar or (schema_grammar(form.schema) if form.schema else "")


def left_to_write(task: Task, begun_tokens: int) -> int | None:
    """How many tokens may follow those that a prefix holds already: 0 for any number, None for no more."""
    most = task.sampling.max_tokens
    if not most:
        return 0
    return most - begun_tokens if most > begun_tokens else None


def stopped_already(task: Task, begun: str) -> bool:
    """Is there a stop string in what a prefix's tokens say?"""
    return any(stop and stop in begun for stop in task.sampling.stop)


def overflow(model: str, prompt_tokens: int, context: int) -> ContextOverflow:
    return ContextOverflow(
        f"The prompt has {prompt_tokens} tokens, and {model} takes {context} with its answer.",
        hint="Shorten the prompt, or serve the model with a larger context.",
    )
