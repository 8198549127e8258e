"""What both llama.cpp engines do alike with a chat before and after the model."""

from __future__ import annotations

from atmo.errors import ContextOverflow, UsageError
from atmo.generation import Task, Turn


def turns_of(task: Task, system_prompt: str) -> list[dict[str, str]]:
    """The conversation as chat templates take it, the served model's own system prompt first when there is no other.

    Raises UsageError when there is nothing to answer.
    """
    turns = task.turns
    if not any(turn.content.strip() for turn in turns):
        raise UsageError("The prompt is empty.", hint="Say something.")
    if system_prompt and turns[0].role != "system":
        turns = (Turn("system", system_prompt), *turns)
    return [{"role": turn.role, "content": turn.content} for turn in turns]


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
