"""llama.cpp by way of llama-cpp-python: compiled for this machine, so often faster than a wheel. An optional extra.

Batching is in `llama_batch`; here are the chat template, the text of tokens and the bridge from its thread to the loop.
"""

from __future__ import annotations

import asyncio
import codecs
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from atmo.errors import InferenceError, ModelInvalid, UsageError
from atmo.generation import Finish, Piece, Task, TokenScore
from atmo.host import THIS
from atmo.inference.engine import Engine, EngineLoad, ModelFacts, ModelSpec
from atmo.inference.engines.chats import SCORE_CHARS, Plan, Writing, left_to_write, overflow, plan, stopped_already
from atmo.inference.engines.llama_batch import BatchLoop, Model, Run
from atmo.inference.engines.llama_sampling import Sampler
from atmo.inference.engines.memory import Free, address_space_left, check
from atmo.inference.engines.one_by_one import OneByOne
from atmo.inference.engines.sizing import size
from atmo.inference.engines.tools import with_objects
from atmo.models.gguf import read_gguf, read_text

# For models that bring no template: the plainest one that many models were trained on (ChatML).
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

News: TypeAlias = tuple[int, str, TokenScore | None] | str
"""(token, why the answer ends with it or "", its score), or what went wrong."""


def open_llama_py(spec: ModelSpec) -> Engine:
    """Load a GGUF model. Raises ModelNotFound, ModelInvalid."""
    path = Path(spec.path).resolve()
    info = read_gguf(path)
    sizing = size(spec, info)
    check(
        spec, info, sizing, Free(min(THIS.free_bytes(), address_space_left()))
    )  # what a GPU has free is not told here
    started_s = time.monotonic()
    try:
        model = Model(
            str(path), sizing.context, sizing.slots, sizing.batch, sizing.threads, spec.gpu_layers, embeds=info.embeds
        )
        template = _Template(model, read_text(path, "tokenizer.chat_template"))
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
    if info.embeds:
        return LlamaPyEmbedder(spec, facts, model)
    loop = BatchLoop(model, sizing.context, sizing.slots, sizing.batch)
    return LlamaPyEngine(spec, facts, model, loop, template)


class _Template:
    """The model's chat template, or one that many models were trained on. text: the model's own, "" for none."""

    def __init__(self, model: Model, text: str) -> None:
        self.text = text
        self._begin = model.special_text(model.begin_token) if model.adds_begin else ""
        self._format = Jinja2ChatFormatter(
            text or _CHATML,
            eos_token=model.special_text(model.end_token),
            bos_token=model.special_text(model.begin_token),
        )

    def prompt(self, planned: Plan) -> str:
        """Raises whatever the template does."""
        messages = [with_objects(message) for message in planned.messages]
        tools = [tool.definition for tool in planned.tools] or None
        prompt: str = self._format(messages=cast(Any, messages), tools=cast(Any, tools)).prompt
        # Tokenizing puts the begin token first where the model wants one; twice would be a different prompt.
        return prompt.removeprefix(self._begin)


@dataclass
class _Times:
    arrived_s: float
    started_s: float = 0.0
    first_s: float = 0.0
    output_tokens: int = 0
    marks: list[int] = field(default_factory=list)  # control tokens that are shown: they open calls of tools
    decoder: codecs.IncrementalDecoder = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class LlamaPyEngine:
    """An Engine."""

    def __init__(
        self,
        spec: ModelSpec,
        facts: ModelFacts,
        model: Model,
        loop: BatchLoop,
        template: _Template,
    ) -> None:
        self.facts = facts
        self._spec = spec
        self._model = model
        self._batches = loop
        self._template = template
        self._slots = asyncio.Semaphore(facts.slots)  # first come, first served
        self._outstanding = 0

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        planned = plan(task, self._spec.name, self._spec.system_prompt, self._template.text)
        prompt, begun = self._prompt(planned), self._begun(task)
        written = self._model.text_of(begun)
        left = left_to_write(task, len(begun))
        if left is None or stopped_already(task, written):
            yield Finish(reason="length" if left is None else "stop", prompt_tokens=len(prompt))
            return
        if len(prompt) + len(begun) >= self.facts.context:
            raise overflow(self._spec.name, len(prompt) + len(begun), self.facts.context)
        times = _Times(arrived_s=time.monotonic())
        writing = Writing(task, planned, written)
        times.marks = self._model.tokenize(planned.mark, special=True)[-1:] if planned.mark else []
        grammar = planned.grammar_after(written)
        self._outstanding += 1
        try:
            async with self._slots:
                times.started_s = time.monotonic()
                run, told = self._submit(task, [*prompt, *begun], left, grammar)
                try:
                    async for part in self._answer(run, told, times, len(begun), writing):
                        yield part
                finally:
                    self._batches.cancel(run)
        finally:
            self._outstanding -= 1

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} is a chat model and makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} is a chat model and has no labels.", hint="Ask a classification model.")

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} does not classify images.", hint="Ask a vision model.")

    async def count_tokens(self, text: str) -> int:
        return len(self._model.tokenize(text, special=False))

    def load(self) -> EngineLoad:
        busy = min(self._outstanding, self.facts.slots)
        return EngineLoad(self.facts.slots, busy, self._outstanding - busy, ready=True)

    async def close(self) -> None:
        self._batches.close()

    def _prompt(self, planned: Plan) -> list[int]:
        """The request's tokens. Raises UsageError, ContextOverflow."""
        try:
            text = planned.raw or self._template.prompt(planned)
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

    def _submit(self, task: Task, prompt: list[int], max_tokens: int, grammar: str) -> tuple[Run, asyncio.Queue[News]]:
        """Hand the prompt to the thread. Raises UsageError for a grammar that llama.cpp does not take."""
        told: asyncio.Queue[News] = asyncio.Queue()
        tell = asyncio.get_running_loop().call_soon_threadsafe
        try:
            sampler = Sampler(self._model.vocabulary, task.sampling, grammar, prompt)
        except ValueError as error:
            raise UsageError(f"{self._spec.name} refused the request: {error}.") from error
        run = Run(
            tokens=prompt,
            max_tokens=max_tokens,
            sampler=sampler,
            scores=task.form.logprobs,
            on_token=lambda token, end, scored: _quietly(tell, told.put_nowait, (token, end, scored)),
            on_error=lambda what: _quietly(tell, told.put_nowait, what),
        )
        self._batches.submit(run)
        return run, told

    async def _answer(
        self, run: Run, told: asyncio.Queue[News], times: _Times, begun: int, writing: Writing
    ) -> AsyncGenerator[Piece | Finish, None]:
        end = ""
        while not end and not writing.stopped:
            news = await told.get()
            if isinstance(news, str):
                raise InferenceError(f"{self._spec.name} failed on a request: {news}.")
            token, end, scored = news
            times.output_tokens += 1
            times.first_s = times.first_s or time.monotonic()
            if end != "stop":
                for part in writing.push(self._piece(token, scored, times)):
                    yield part
        for part in writing.flush():
            yield part
        yield _finish(writing.reason(end), run, times, begun)

    def _piece(self, token: int, scored: TokenScore | None, times: _Times) -> Piece:
        text = times.decoder.decode(self._model.bytes_of(token, special=token in times.marks))
        scores = (msgspec.structs.replace(scored, text=text[:SCORE_CHARS]),) if scored else ()
        return Piece(text, (token,), scores)


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


class LlamaPyEmbedder(OneByOne):
    """An Engine for GGUF models that make vectors."""

    def __init__(self, spec: ModelSpec, facts: ModelFacts, model: Model) -> None:
        super().__init__(spec, facts)
        self._model = model

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [await self._compute(self._vector, text) for text in texts]

    async def count_tokens(self, text: str) -> int:
        return len(self._model.tokenize(text, special=False))

    def _vector(self, text: str) -> list[float]:
        """Of unit length. Raises UsageError, ContextOverflow."""
        tokens = self._model.tokenize(text, special=True)
        if not tokens:
            raise UsageError("There is no text to embed.", hint="Send some.")
        if len(tokens) > self.facts.context:
            raise overflow(self._spec.name, len(tokens), self.facts.context)
        try:
            vector = self._model.vector_of(tokens)
        except ValueError as error:
            raise InferenceError(f"{self._spec.name} failed on a text: {error}.") from error
        length = math.hypot(*vector) or 1.0
        return [value / length for value in vector]
