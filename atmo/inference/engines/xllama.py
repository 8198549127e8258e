"""llama.cpp by way of xllamacpp: its C++ server inside this process, with continuous batching and a prompt cache.

Theory of operation. xllamacpp offers its server's handlers as Python calls and starts its HTTP listener in any case.
The calls give neither token ids nor a way to stop a request before its next token, the HTTP API gives both, so it is
spoken to over HTTP. It listens on a Unix socket in a private folder, and as soon as it does the socket's name is
taken away: this process goes on connecting through the descriptor it opened before (Linux; elsewhere the private
folder stays). So there is no port, nobody else can connect, and nothing is left behind however the process ends.

The server's stream names the last token of each piece only: where several tokens make up one character, the ids of the
first are missing. They are found again from the piece's text (`_ids`), which is exact whenever the model wrote the
character in the tokenizer's own way, and otherwise another spelling of exactly the same text.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmo.errors import AtmoError, InferenceError, ModelInvalid, UsageError
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import EngineLoad, ModelFacts, ModelSpec
from atmo.inference.engines.chats import left_to_write, overflow, stopped_already, turns_of
from atmo.inference.engines.llama_http import HttpRefusal, LlamaHttp
from atmo.inference.engines.sizing import Sizing, size
from atmo.inference.engines.stops import StopFilter
from atmo.models.gguf import read_gguf

_SOCKET = "llama.sock"  # llama.cpp takes a host name that ends so for a Unix socket
_SPARE_CONNECTIONS = 4  # for tokenizing and templates while all slots stream
_RESULTS = ["stop", "stop_type", "tokens_predicted", "tokens_evaluated", "timings"]  # all we want of the last event


def open_xllama(spec: ModelSpec, folder: Path) -> XllamaEngine:
    """Load a GGUF model. folder: private, for the socket. Raises ModelNotFound, ModelInvalid."""
    path = Path(spec.path).resolve()
    info = read_gguf(path)
    sizing = size(spec, info)
    started_s = time.monotonic()
    server = _start_server(spec, path, sizing, folder)
    connect = _hide_socket(folder)
    facts = ModelFacts(
        engine="xllamacpp",
        context=sizing.context,
        slots=sizing.slots,
        parameters=info.parameters,
        vocabulary=info.vocabulary,
        load_s=time.monotonic() - started_s,
    )
    return XllamaEngine(spec, facts, server, LlamaHttp(connect))


def _start_server(spec: ModelSpec, path: Path, sizing: Sizing, folder: Path) -> Any:
    """Blocks while the model is loaded: the C++ side holds the interpreter until it is done."""
    import xllamacpp

    os.chdir(folder)  # a Unix socket's whole path must be under 108 bytes, and a temporary folder's may not be
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
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
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelInvalid(
            f"llama.cpp cannot load {path}.", hint="Its architecture may be too new, or the file damaged."
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
    """An Engine. Give it no more than this: a model's server and a client of it."""

    def __init__(self, spec: ModelSpec, facts: ModelFacts, server: Any, http: LlamaHttp) -> None:
        self.facts = facts
        self._spec = spec
        self._server = server
        self._http = http
        self._slots = asyncio.Semaphore(facts.slots)  # first come, first served
        self._waiting = 0
        self._busy = 0

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        turns = turns_of(task, self._spec.system_prompt)
        arrived_s = time.monotonic()
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._busy += 1
        try:
            async with aclosing(self._answer(task, turns, time.monotonic() - arrived_s)) as parts:
                async for part in parts:
                    yield part
        except HttpRefusal as refusal:
            raise self._translated(refusal) from refusal
        finally:
            self._busy -= 1
            self._slots.release()

    async def _answer(
        self, task: Task, turns: list[dict[str, str]], queue_s: float
    ) -> AsyncGenerator[Piece | Finish, None]:
        prompt = (await self._http.post("/apply-template", {"messages": turns}))["prompt"]
        begun = await self._begun(task, prompt)
        stops, run = StopFilter(task.sampling.stop), _Run(queue_s, begun.tokens)
        if begun.end:
            yield Finish(reason=begun.end, prompt_tokens=begun.prompt_tokens, queue_s=queue_s)
            return
        async with self._http.events("/completion", _payload(task, begun)) as events:
            async for event in events:
                if "error" in event:
                    raise HttpRefusal(500, event)
                run.note(event)
                for piece in stops.push(Piece(event.get("content", ""), await self._ids(event, run))):
                    if piece.text or piece.token_ids:
                        yield piece
                if stops.hit or run.ended:
                    break
        for piece in stops.flush():
            yield piece
        yield run.finish(stopped=stops.hit)

    async def _begun(self, task: Task, prompt: str) -> _Begun:
        """The prompt, and behind it what of the answer is there already."""
        prefix = task.prefix
        if not prefix.token_ids and not prefix.text:
            return _Begun(prompt, task.sampling.max_tokens)
        ids = list(prefix.token_ids)
        if not ids:
            ids = (await self._http.post("/tokenize", {"content": prefix.text, "add_special": False}))["tokens"]
        asked = (await self._http.post("/tokenize", {"content": prompt, "add_special": True}))["tokens"]
        said = (await self._http.post("/detokenize", {"tokens": ids}))["content"] if task.sampling.stop else ""
        left = left_to_write(task, len(ids))
        end = "stop" if stopped_already(task, said) else "length" if left is None else ""
        return _Begun([*asked, *ids], left or 0, len(ids), len(asked), end)

    async def _ids(self, event: dict[str, Any], run: _Run) -> tuple[int, ...]:
        """The ids of all tokens whose text this event brings."""
        last, text = event.get("tokens") or [], event.get("content", "")
        if not last or not text:
            return ()
        missing = run.unnamed(event) - len(last)
        if missing <= 0:
            return tuple(last)
        spelled = (await self._http.post("/tokenize", {"content": text, "add_special": False}))["tokens"]
        return tuple(spelled[-missing - 1 :])  # tokenizers that put a space first add a token in front

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise UsageError(f"{self._spec.name} is a chat model and makes no embeddings.", hint="Ask an embedding model.")

    async def classify(self, text: str) -> list[tuple[str, float]]:
        raise UsageError(f"{self._spec.name} is a chat model and has no labels.", hint="Ask a classification model.")

    async def count_tokens(self, text: str) -> int:
        try:
            return len((await self._http.post("/tokenize", {"content": text, "add_special": False}))["tokens"])
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


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the model is to go on with. max_tokens: that may follow, 0 for any number; tokens: how many at the end of
    `prompt` belong to the answer; end: why nothing may follow."""

    prompt: str | list[int]
    max_tokens: int
    tokens: int = 0
    prompt_tokens: int = 0
    end: str = ""


class _Run:
    """The counts and times of one answer, from the server's events. begun: tokens of it that were there before."""

    def __init__(self, queue_s: float, begun: int) -> None:
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

    def finish(self, *, stopped: bool) -> Finish:
        now_s = time.monotonic()
        first_s = self._first_s or now_s
        timings = self._last.get("timings", {})
        return Finish(
            reason="length" if not stopped and self._last.get("stop_type") == "limit" else "stop",
            prompt_tokens=max(0, self._prompt_tokens - self._begun),
            output_tokens=self._output_tokens,
            cached_tokens=timings.get("cache_n", self._cached_tokens),
            queue_s=self._queue_s,
            prefill_s=timings.get("prompt_ms", (first_s - self._started_s) * 1000) / 1000,
            decode_s=timings.get("predicted_ms", (now_s - first_s) * 1000) / 1000,
        )


def _payload(task: Task, begun: _Begun) -> dict[str, Any]:
    return {
        "prompt": begun.prompt,
        "stream": True,
        "return_tokens": True,
        "return_progress": True,  # an event for each batch of the prompt: a closed connection is noticed there as well
        "response_fields": _RESULTS,
        "cache_prompt": True,
        "n_predict": begun.max_tokens or -1,
        "temperature": task.sampling.temperature,
        "top_p": task.sampling.top_p,
        "seed": task.sampling.seed,
        # Only what the task names may change the distribution: llama.cpp's other samplers are off.
        "samplers": ["top_p", "temperature"],
        "top_k": 0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
    }
