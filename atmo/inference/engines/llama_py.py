"""llama.cpp by way of llama-cpp-python: compiled for this machine, so often faster than a wheel. An optional extra.

Batching is in `llama_batch`; here are the chat template, the text of tokens and the bridge from its thread to the loop.
"""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from atmo.errors import InferenceError, ModelInvalid, UsageError
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import Engine, EngineLoad, ModelFacts, ModelSpec
from atmo.inference.engines.chats import left_to_write, overflow, stopped_already, turns_of
from atmo.inference.engines.llama_batch import BatchLoop, Model, Run
from atmo.inference.engines.sizing import size
from atmo.inference.engines.stops import StopFilter
from atmo.models.gguf import read_gguf, read_text

# For models that bring no template: the plainest one that many models were trained on (ChatML).
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def open_llama_py(spec: ModelSpec) -> Engine:
    """Load a GGUF model. Raises ModelNotFound, ModelInvalid."""
    path = Path(spec.path).resolve()
    info = read_gguf(path)
    sizing = size(spec, info)
    started_s = time.monotonic()
    try:
        model = Model(str(path), sizing.context, sizing.slots, sizing.batch, sizing.threads, spec.gpu_layers)
        template = read_text(path, "tokenizer.chat_template") or _CHATML
        prompt_of = _template(model, template)
    except Exception as error:
        raise ModelInvalid(
            f"llama.cpp cannot load {path}: {error}.", hint="Its architecture may be too new, or the file damaged."
        ) from error
    facts = ModelFacts(
        engine="llama-cpp-python",
        context=sizing.context,
        slots=sizing.slots,
        parameters=info.parameters,
        vocabulary=info.vocabulary,
        load_s=time.monotonic() - started_s,
    )
    loop = BatchLoop(model, sizing.context, sizing.slots, sizing.batch)
    return LlamaPyEngine(spec, facts, model, loop, prompt_of)


def _template(model: Model, template: str) -> Callable[[list[dict[str, str]]], str]:
    begin, end = model.special_text(model.begin_token), model.special_text(model.end_token)
    formatter = Jinja2ChatFormatter(template, eos_token=end, bos_token=begin)

    def prompt_of(turns: list[dict[str, str]]) -> str:
        prompt: str = formatter(messages=cast(Any, turns)).prompt
        # Tokenizing puts the begin token first where the model wants one; twice would be a different prompt.
        return prompt.removeprefix(begin) if begin and model.adds_begin else prompt

    return prompt_of


@dataclass
class _Times:
    arrived_s: float
    started_s: float = 0.0
    first_s: float = 0.0
    output_tokens: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class LlamaPyEngine:
    """An Engine."""

    def __init__(
        self,
        spec: ModelSpec,
        facts: ModelFacts,
        model: Model,
        loop: BatchLoop,
        prompt_of: Callable[[list[dict[str, str]]], str],
    ) -> None:
        self.facts = facts
        self._spec = spec
        self._model = model
        self._batches = loop
        self._prompt_of = prompt_of
        self._slots = asyncio.Semaphore(facts.slots)  # first come, first served
        self._outstanding = 0

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        prompt = self._prompt(task)
        begun = self._begun(task)
        left = left_to_write(task, len(begun))
        if left is None or stopped_already(task, self._model.text_of(begun)):
            yield Finish(reason="length" if left is None else "stop", prompt_tokens=len(prompt))
            return
        if len(prompt) + len(begun) >= self.facts.context:
            raise overflow(self._spec.name, len(prompt) + len(begun), self.facts.context)
        times = _Times(arrived_s=time.monotonic())
        self._outstanding += 1
        try:
            async with self._slots:
                times.started_s = time.monotonic()
                run, told = self._submit(task, [*prompt, *begun], left)
                try:
                    async for part in self._answer(task, run, told, times, len(begun)):
                        yield part
                finally:
                    self._batches.cancel(run)
        finally:
            self._outstanding -= 1

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} is a chat model and makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} is a chat model and has no labels.", hint="Ask a classification model.")

    async def count_tokens(self, text: str) -> int:
        return len(self._model.tokenize(text, special=False))

    def load(self) -> EngineLoad:
        busy = min(self._outstanding, self.facts.slots)
        return EngineLoad(self.facts.slots, busy, self._outstanding - busy, ready=True)

    async def close(self) -> None:
        self._batches.close()

    def _prompt(self, task: Task) -> list[int]:
        """The task's tokens. Raises UsageError, ContextOverflow."""
        turns = turns_of(task, self._spec.system_prompt)
        try:
            text = self._prompt_of(turns)
        except Exception as error:  # a template is a program by a stranger: whatever it raises is the request's trouble
            said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise UsageError(f"{self._spec.name} refused the request: its chat template says: {said}") from error
        tokens = self._model.tokenize(text, special=True)
        if len(tokens) >= self.facts.context:
            raise overflow(self._spec.name, len(tokens), self.facts.context)
        return tokens

    def _begun(self, task: Task) -> list[int]:
        """What of the answer is there already."""
        prefix = task.prefix
        return list(prefix.token_ids) or (self._model.tokenize(prefix.text, special=False) if prefix.text else [])

    def _submit(
        self, task: Task, prompt: list[int], max_tokens: int
    ) -> tuple[Run, asyncio.Queue[tuple[int, str] | str]]:
        """Hand the prompt to the thread. The queue gets (token, end) for each token, or what went wrong."""
        told: asyncio.Queue[tuple[int, str] | str] = asyncio.Queue()
        tell = asyncio.get_running_loop().call_soon_threadsafe
        run = Run(
            tokens=prompt,
            max_tokens=max_tokens,
            temperature=task.sampling.temperature,
            top_p=task.sampling.top_p,
            seed=task.sampling.seed,
            on_token=lambda token, end: _quietly(tell, told.put_nowait, (token, end)),
            on_error=lambda what: _quietly(tell, told.put_nowait, what),
        )
        self._batches.submit(run)
        return run, told

    async def _answer(
        self, task: Task, run: Run, told: asyncio.Queue[tuple[int, str] | str], times: _Times, begun: int
    ) -> AsyncGenerator[Piece | Finish, None]:
        stops, end = StopFilter(task.sampling.stop), ""
        while not end and not stops.hit:
            news = await told.get()
            if isinstance(news, str):
                raise InferenceError(f"{self._spec.name} failed on a request: {news}.")
            token, end = news
            times.output_tokens += 1
            times.first_s = times.first_s or time.monotonic()
            if end != "stop":
                text = times.decoder.decode(self._model.bytes_of(token))
                for piece in stops.push(Piece(text, (token,))):
                    yield piece
        for piece in stops.flush():
            yield piece
        yield _finish("stop" if stops.hit else end, run, times, begun)


def _quietly(tell: Callable[..., object], *arguments: object) -> None:
    """Tell the loop, unless it is closed: then nobody listens any more."""
    try:
        tell(*arguments)
    except RuntimeError:
        pass


def _finish(reason: str, run: Run, times: _Times, begun: int) -> Finish:
    now_s = time.monotonic()
    first_s = times.first_s or now_s
    return Finish(
        reason=reason,
        prompt_tokens=run.prompt_tokens - begun,
        output_tokens=times.output_tokens,
        cached_tokens=run.cached_tokens,
        queue_s=times.started_s - times.arrived_s,
        prefill_s=first_s - times.started_s,
        decode_s=now_s - first_s,
    )
