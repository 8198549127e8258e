"""What is asked of llama.cpp's server for one answer, and what its events say: fields of its HTTP API."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from atmo.generation import Finish, Task, TokenScore
from atmo.inference.engines.chats import PENALTY_TOKENS, SCORE_CHARS, Writing

_RESULTS = ["stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"]  # all we want of the last event
_SURELY = 1e6  # added to a logit, so that its token is the one; scores are taken before


@dataclass(frozen=True, slots=True)
class Begun:
    """What the model is to go on with. max_tokens: that may follow, 0 for any number; tokens: how many at the end of
    `prompt` belong to the answer; end: why nothing may follow; text: what those tokens say; images: in the order of
    their marks in the prompt, as base64."""

    prompt: str | list[int]
    max_tokens: int
    tokens: int = 0
    prompt_tokens: int = 0
    end: str = ""
    text: str = ""
    images: tuple[str, ...] = ()


class Run:
    """The counts and times of one answer, from the server's events. begun: tokens of it that were there before;
    ids: of what was written since."""

    def __init__(self, queue_s: float, begun: int) -> None:
        self.ids: list[int] = []
        self._queue_s = queue_s
        self._begun = begun
        self._started_s = time.monotonic()
        self._first_s = 0.0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._output_tokens = 0
        self._named_tokens = 0
        self._last: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        return bool(self._last)

    def note(self, event: dict[str, Any]) -> None:
        self._prompt_tokens = event.get("tokens_evaluated", self._prompt_tokens)
        self._output_tokens = event.get("tokens_predicted", self._output_tokens)
        self._cached_tokens = event.get("prompt_progress", {}).get("cache", self._cached_tokens)
        if self._output_tokens and not self._first_s:
            self._first_s = time.monotonic()
        if "stop_type" in event:
            self._last = event

    def unnamed(self, event: dict[str, Any]) -> int:
        """How many tokens were predicted since the last event that named one."""
        before, self._named_tokens = self._named_tokens, event.get("tokens_predicted", self._named_tokens)
        return self._named_tokens - before

    def finish(self, writing: Writing) -> Finish:
        now_s = time.monotonic()
        first_s = self._first_s or now_s
        timings = self._last.get("timings", {})
        return Finish(
            reason=writing.reason("length" if self._last.get("stop_type") == "limit" else "stop"),
            prompt_tokens=max(0, self._prompt_tokens - self._begun),
            output_tokens=self._output_tokens,
            cached_tokens=timings.get("cache_n", self._cached_tokens),
            queue_s=self._queue_s,
            prefill_s=timings.get("prompt_ms", (first_s - self._started_s) * 1000) / 1000,
            decode_s=timings.get("predicted_ms", (now_s - first_s) * 1000) / 1000,
        )


def payload(task: Task, begun: Begun, grammar: str, mark: str) -> dict[str, Any]:
    """mark: what opens a call of a tool, to be shown even where the model has a control token for it."""
    prompt: Any = begun.prompt
    if begun.images:
        prompt = {"prompt_string": begun.prompt, "multimodal_data": list(begun.images)}
    sampling, asked = task.sampling, _always(prompt)
    asked |= {
        "stream": True,
        "return_progress": True,  # an event for each batch of the prompt: a closed connection is noticed there as well
        "response_fields": _RESULTS,
        "n_predict": begun.max_tokens or -1,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": [list(pair) for pair in sampling.logit_bias],
        # Only what the task names may change the distribution: llama.cpp's other samplers are off.
        "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
        "repeat_penalty": 1.0,
        "repeat_last_n": PENALTY_TOKENS,
    }
    if grammar:
        asked["grammar"] = grammar
    if task.form.logprobs >= 0:
        asked["n_probs"] = max(1, task.form.logprobs)  # 0 would mean no scores at all
    if mark:
        asked["preserved_tokens"] = [mark]
    return asked


def score_request(prompt: list[Any], written: int, count: int) -> dict[str, Any]:
    """Ask for the `count` likeliest tokens behind a prompt. written: a token that is written there in any case."""
    return {
        **_always(prompt),
        "n_predict": 1,
        "temperature": 0.0,
        "n_probs": count,
        "logit_bias": [[written, _SURELY]],
    }


def score_in(answer: dict[str, Any], token: int, count: int) -> TokenScore | None:
    """The score of a token among the likeliest of an answer's first place; its text is left empty."""
    likeliest: list[dict[str, Any]] = next(
        (each["top_logprobs"] for each in answer.get("completion_probabilities", ())), []
    )
    top = tuple((each["token"][:SCORE_CHARS], _bounded(each["logprob"])) for each in likeliest[:count])
    return next((TokenScore("", _bounded(each["logprob"]), top) for each in likeliest if each["id"] == token), None)


def _always(prompt: Any) -> dict[str, Any]:
    return {"prompt": prompt, "return_tokens": True, "cache_prompt": True}


def scores_of(event: dict[str, Any], count: int) -> tuple[TokenScore, ...]:
    """One for each token that the event names. count: how many of the likeliest are wanted."""
    return tuple(_score(each, count) for each in event.get("completion_probabilities", ()))


def _score(found: dict[str, Any], count: int) -> TokenScore:
    top = tuple((each["token"][:SCORE_CHARS], _bounded(each["logprob"])) for each in found["top_logprobs"][:count])
    return TokenScore(found["token"][:SCORE_CHARS], _bounded(found["logprob"]), top)


def _bounded(logprob: float) -> float:
    """llama.cpp writes the lowest float for what is impossible."""
    return max(-1e30, min(0.0, logprob))
