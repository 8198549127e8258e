"""llama.cpp by way of xllamacpp: its C++ server inside this process, with continuous batching and a prompt cache.

Theory of operation. xllamacpp offers its server's handlers as Python calls and starts its HTTP listener in any case.
The calls give neither token ids nor a way to stop a request before its next token, the HTTP API gives both, so it is
spoken to over HTTP. It listens on a Unix socket in a private folder, and as soon as it does the socket's name is
taken away: this process goes on connecting through the descriptor it opened before (Linux; elsewhere the private
folder stays). So there is no port, nobody else can connect, and nothing is left behind however the process ends.

The server's stream names the last token of each piece only: where several tokens make up one character, the ids of the
first are missing. They are found again from the piece's text (`_piece`), which is exact whenever the model wrote the
character in the tokenizer's own way, and otherwise another spelling of exactly the same text. An answer about an image
that goes on where another engine broke off is begun with that engine's text for the same reason: such a prompt has no
ids.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from atmo.errors import AtmoError, InferenceError, ModelInvalid, UsageError
from atmo.generation import Finish, Piece, Task, TokenScore
from atmo.host import THIS
from atmo.inference.engine import EngineLoad, ModelFacts, ModelSpec
from atmo.inference.engines.chats import Plan, Writing, left_to_write, overflow, plan, stopped_already
from atmo.inference.engines.llama_http import HttpRefusal, LlamaHttp
from atmo.inference.engines.memory import Free, address_space_left, check
from atmo.inference.engines.pictures import base64_of
from atmo.inference.engines.sizing import Sizing, size
from atmo.inference.engines.xllama_run import Begun, Run, payload, score_in, score_request, scores_of
from atmo.inference.gpus import seen
from atmo.models.gguf import read_gguf, read_text

_SOCKET = "llama.sock"  # llama.cpp takes a host name that ends so for a Unix socket
_LIKELIEST = 40  # tokens among which one that was drawn is looked for first; a guess
# So ends what stands for an image in a prompt. With nothing behind it llama.cpp aborts its process.
_MARK_ENDS = "__>"
_SPARE_CONNECTIONS = 4  # for tokenizing and templates while all slots stream


def open_xllama(spec: ModelSpec, folder: Path) -> XllamaEngine:
    """Load a GGUF model. folder: private, for the socket. Raises ModelNotFound, ModelInvalid."""
    path = Path(spec.path).resolve()
    info = read_gguf(path)
    sizing = size(spec, info)
    weights = replace(info, size_bytes=info.size_bytes + (Path(spec.projector).stat().st_size if spec.projector else 0))
    check(spec, weights, sizing, Free(min(THIS.free_bytes(), address_space_left()), seen().free_bytes))
    started_s = time.monotonic()
    server = _start_server(spec, path, sizing, folder, embeds=info.embeds)
    connect = _hide_socket(folder)
    facts = ModelFacts(
        engine="xllamacpp",
        context=sizing.context,
        slots=sizing.slots,
        parameters=info.parameters,
        vocabulary=info.vocabulary,
        load_s=time.monotonic() - started_s,
    )
    kind = XllamaEmbedder if info.embeds else XllamaEngine
    return kind(spec, facts, server, LlamaHttp(connect), read_text(path, "tokenizer.chat_template"))


def _start_server(spec: ModelSpec, path: Path, sizing: Sizing, folder: Path, *, embeds: bool) -> Any:
    """Blocks while the model is loaded: the C++ side holds the interpreter until it is done."""
    import xllamacpp

    os.chdir(folder)  # a Unix socket's whole path must be under 108 bytes, and a temporary folder's may not be
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    if spec.projector:
        params.mmproj.path = str(Path(spec.projector).resolve())
        params.mmproj_use_gpu = spec.gpu_layers != 0
    params.hostnames = [_SOCKET]
    params.n_ctx = sizing.context * sizing.slots
    params.n_parallel = sizing.slots
    params.n_batch = params.n_ubatch = sizing.batch
    params.n_gpu_layers = spec.gpu_layers
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = sizing.threads
    params.n_threads_http = sizing.slots + _SPARE_CONNECTIONS
    params.verbosity = 0  # errors only: more would put prompts on stderr
    params.warmup = False  # the first request warms up as well, and start time counts
    params.fit_params = False  # `sizing` has decided
    params.cache_ram_mib = 0
    params.ui = False
    params.endpoint_slots = False
    params.use_jinja = True
    params.embedding = embeds
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelInvalid(
            f"llama.cpp cannot load {path}{f' with {Path(spec.projector).name}' if spec.projector else ''}.",
            hint="Its architecture may be too new, or a file damaged.",
        ) from error


def _hide_socket(folder: Path) -> Any:
    """A function that connects to the server, after its socket's name is gone from the file system."""
    address = _SOCKET
    if Path("/proc/self/fd").is_dir():
        descriptor = os.open(folder / _SOCKET, os.O_PATH)
        (folder / _SOCKET).unlink()
        address = f"/proc/self/fd/{descriptor}"

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(address)

    return connect


class XllamaEngine:
    """An Engine. Give it no more than this: a model's server, a client of it, and the model's own chat template."""

    def __init__(self, spec: ModelSpec, facts: ModelFacts, server: Any, http: LlamaHttp, template: str) -> None:
        self.facts = facts
        self._spec = spec
        self._server = server
        self._http = http
        self._template = template
        self._slots = asyncio.Semaphore(facts.slots)  # first come, first served
        self._waiting = 0
        self._busy = 0

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        planned = plan(task, self._spec.name, self._spec.system_prompt, self._template, sees=bool(self._spec.projector))
        if planned.images and task.form.logprobs >= 0:
            raise UsageError(f"{self._spec.name} tells no probabilities about images.", hint="Ask without logprobs.")
        arrived_s = time.monotonic()
        async with self._slot(), aclosing(self._answer(task, planned, time.monotonic() - arrived_s)) as parts:
            async for part in parts:
                yield part

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Hold one of the server's slots; what it refuses becomes an error of ours."""
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._busy += 1
        try:
            yield
        except HttpRefusal as refusal:
            raise self._translated(refusal) from refusal
        finally:
            self._busy -= 1
            self._slots.release()

    async def _answer(self, task: Task, planned: Plan, queue_s: float) -> AsyncGenerator[Piece | Finish, None]:
        begun = await self._begun(task, await self._prompt(planned), planned.images)
        if begun.end:
            yield Finish(reason=begun.end, prompt_tokens=begun.prompt_tokens, queue_s=queue_s)
            return
        writing, run = Writing(task, planned, begun.text), Run(queue_s, begun.tokens)
        asked = payload(task, begun, planned.grammar_after(begun.text), planned.mark)
        async with self._http.events("/completion", asked) as events:
            async for event in events:
                if "error" in event:
                    raise HttpRefusal(500, event)
                run.note(event)
                for part in writing.push(await self._piece(task, begun, event, run)):
                    if part.text or part.token_ids or part.calls:
                        yield part
                if writing.stopped or run.ended:
                    break
        for part in writing.flush():
            yield part
        yield run.finish(writing)

    async def _prompt(self, planned: Plan) -> str:
        if planned.raw:
            return planned.raw
        asked: dict[str, Any] = {"messages": planned.messages}
        if planned.tools:
            asked["tools"] = [tool.definition for tool in planned.tools]
        prompt: str = (await self._http.post("/apply-template", asked))["prompt"]
        return prompt

    async def _begun(self, task: Task, prompt: str, seen: tuple[bytes, ...]) -> Begun:
        """The prompt, and behind it what of the answer is there already."""
        prefix, images = task.prefix, tuple(base64_of(image) for image in seen)
        if not prefix.token_ids and not prefix.text:
            spare = "\n" if images and prompt.endswith(_MARK_ENDS) else ""
            return Begun(prompt + spare, task.sampling.max_tokens, images=images)
        ids = list(prefix.token_ids) or await self._tokens(prefix.text)
        asked = await self._tokens(prompt, whole=True)
        said = (await self._http.post("/detokenize", {"tokens": ids}))["content"]
        left = left_to_write(task, len(ids))
        end = "stop" if stopped_already(task, said) else "length" if left is None else ""
        whole = f"{prompt}{said}" if images else [*asked, *ids]
        return Begun(whole, left or 0, len(ids), len(asked), end, said, images)

    async def _tokens(self, text: str, *, whole: bool = False) -> list[int]:
        """whole: a begin token goes first where the model wants one."""
        found: list[int] = (await self._http.post("/tokenize", {"content": text, "add_special": whole}))["tokens"]
        return found

    async def _piece(self, task: Task, begun: Begun, event: dict[str, Any], run: Run) -> Piece:
        """What an event brings: its text, the ids of all tokens that make it up, and their scores."""
        last, text = event.get("tokens") or [], event.get("content", "")
        if not last or not text:
            return Piece(text)
        missing = run.unnamed(event) - len(last)
        ids = list(last)
        if missing > 0:  # tokenizers that put a space first add a token in front
            ids = (await self._tokens(text))[-missing - 1 :]
        scores = scores_of(event, task.form.logprobs)
        if scores and len(ids) > len(scores):
            silent = [await self._score(task, begun, run.ids + ids[:at], ids[at]) for at in range(len(ids) - 1)]
            scores = (*silent, *scores[-1:])
        run.ids += ids
        return Piece(text, tuple(ids), scores)

    async def _score(self, task: Task, begun: Begun, before: list[int], token: int) -> TokenScore:
        """The score of a token that the server kept to itself, as part of a character: ask for this one place again.

        It keeps such a token's score to itself then, too, so another token is written there and this one is looked up
        among the likeliest: first among few, where it nearly always is, then among all.
        """
        prompt = [*begun.prompt, *before] if isinstance(begun.prompt, list) else [begun.prompt, *before]
        other = (await self._tokens("a"))[-1]
        for count in (max(_LIKELIEST, task.form.logprobs), self.facts.vocabulary):
            answer = await self._http.post("/completion", score_request(prompt, other, count))
            found = score_in(answer, token, task.form.logprobs)
            if found is not None:
                return found
        raise InferenceError(f"llama.cpp did not tell the probability of a token of {self._spec.name}.")

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} is a chat model and makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} is a chat model and has no labels.", hint="Ask a classification model.")

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} does not classify images.", hint="Ask a vision model.")

    async def count_tokens(self, text: str) -> int:
        try:
            return len(await self._tokens(text))
        except HttpRefusal as refusal:
            raise self._translated(refusal) from refusal

    def load(self) -> EngineLoad:
        return EngineLoad(self.facts.slots, self._busy, self._waiting, ready=True)

    async def close(self) -> None:
        self._server = None

    def _translated(self, refusal: HttpRefusal) -> AtmoError:
        error = refusal.body.get("error", {})
        if error.get("type") == "exceed_context_size_error":
            return overflow(self._spec.name, error.get("n_prompt_tokens", 0), error.get("n_ctx", self.facts.context))
        said = str(error.get("message", f"status {refusal.status}")).splitlines()[0][:200]
        if error.get("type") == "invalid_request_error":
            return UsageError(f"{self._spec.name} refused the request: {said}")
        return InferenceError(f"llama.cpp failed on a request for {self._spec.name}: {said}")


class XllamaEmbedder(XllamaEngine):
    """An Engine for GGUF models that make vectors."""

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        raise UsageError(f"{self._spec.name} does not chat.", hint="Ask a chat model.")
        yield  # type: ignore[unreachable]  # makes this an async generator, as the interface wants

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Of unit length. Raises UsageError, ContextOverflow."""
        return [await self._vector(text) for text in texts]

    async def _vector(self, text: str) -> list[float]:
        if not text:
            raise UsageError("There is no text to embed.", hint="Send some.")
        async with self._slot():
            tokens = len(await self._tokens(text, whole=True))
            if tokens > self.facts.context:
                raise overflow(self._spec.name, tokens, self.facts.context)
            answer = await self._http.post("/v1/embeddings", {"input": text, "encoding_format": "float"})
            vector: list[float] = answer["data"][0]["embedding"]
            return vector
