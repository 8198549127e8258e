"""Continuous batching on llama.cpp's C API, by way of llama-cpp-python's ctypes binding: one thread, one KV sequence
a slot.

Theory of operation. Each turn of the loop fills one batch: the newest token of every slot that is generating, and
then as many tokens of waiting prompts as there is room for. One `llama_decode` computes it; every slot whose last
token was in it samples its next one. So slots share the reading of the weights, which is what decoding costs, and a
long prompt delays the others by one batch at most. A slot keeps its tokens in the KV memory when it is done: the next
request goes to the free slot that shares the longest beginning with it, and only computes the rest.

Only this module touches the C API. Its callers speak to the thread through `submit` and `cancel` and are told what
happens by callbacks, which run in the thread.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import llama_cpp

from atmo.generation import TokenScore
from atmo.inference.engines.llama_sampling import Sampler, logits_of, score


@dataclass
class Run:
    """One request. on_token(id, end, score) for each token; on_error(what) instead, once, when it cannot go on.

    max_tokens 0: until the context is full. scores: how many of the likeliest tokens to tell, -1 for no score at all.
    The rest is the loop's: `position` tokens of `tokens` are in the KV memory. The loop frees the sampler.
    """

    tokens: list[int]
    max_tokens: int
    sampler: Sampler
    scores: int
    on_token: Callable[[int, str, TokenScore | None], None]
    on_error: Callable[[str], None]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    position: int = 0
    row: int = -1  # of the batch, that holds this run's last token
    cancelled: bool = False


@dataclass
class _Slot:
    """One KV sequence. kept: the tokens in it."""

    sequence: int
    kept: list[int] = field(default_factory=list)
    run: Run | None = None


class Model:
    """A loaded model with its context. Raises ValueError when llama.cpp cannot load it.

    embeds: it makes vectors and reads a text in one batch.
    """

    def __init__(
        self, path: str, context: int, slots: int, batch: int, threads: int, gpu_layers: int, *, embeds: bool = False
    ) -> None:
        _be_quiet()
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = gpu_layers
        self._model: Any = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        if not self._model:
            raise ValueError("the model cannot be loaded")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * slots, slots
        params.n_batch = params.n_ubatch = batch
        params.embeddings = embeds
        params.n_threads = params.n_threads_batch = threads
        self.context: Any = llama_cpp.llama_init_from_model(self._model, params)
        if not self.context:
            raise ValueError("the context cannot be made")
        self.vocabulary: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(self.vocabulary))
        self.memory: Any = llama_cpp.llama_get_memory(self.context)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """special: text such as <|im_start|> becomes its token, and a begin token is put first where the model wants
        one."""
        data = text.encode()
        room = len(data) + 8
        found = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), found, room, special, special)
        if count < 0:
            raise ValueError("the text cannot be tokenized")
        return list(found[:count])

    def bytes_of(self, token: int, *, special: bool = False) -> bytes:
        """What a token stands for; control tokens stand for nothing, unless `special`."""
        buffer = ctypes.create_string_buffer(256)
        size = llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(0, size)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """What tokens stand for together; a character that is cut shows as one that is not known."""
        return b"".join(self.bytes_of(token) for token in tokens).decode("utf-8", "replace")

    def vector_of(self, tokens: Sequence[int]) -> list[float]:
        """The vector of a text, as the model pools it, not normalised. Raises ValueError when it cannot be computed."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            for row, token in enumerate(tokens):
                batch.token[row], batch.pos[row] = token, row
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
                batch.logits[row] = True
            batch.n_tokens = len(tokens)
            if self.memory:
                llama_cpp.llama_memory_clear(self.memory, True)
            status = llama_cpp.llama_decode(self.context, batch)
            pointer = llama_cpp.llama_get_embeddings_seq(self.context, 0) if status == 0 else None
            if not pointer:
                raise ValueError(f"llama.cpp could not compute the vector (status {status})")
            return list(pointer[: llama_cpp.llama_model_n_embd(self._model)])
        finally:
            llama_cpp.llama_batch_free(batch)

    def is_end(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self.vocabulary, token))

    def special_text(self, token: int) -> str:
        """The name of a special token, such as <s>; empty for a token that the model does not have (negative)."""
        if token < 0:
            return ""
        text: bytes = llama_cpp.llama_vocab_get_text(self.vocabulary, token)
        return text.decode("utf-8", "replace")

    @property
    def begin_token(self) -> int:
        return int(llama_cpp.llama_vocab_bos(self.vocabulary))

    @property
    def end_token(self) -> int:
        return int(llama_cpp.llama_vocab_eos(self.vocabulary))

    @property
    def adds_begin(self) -> bool:
        return bool(llama_cpp.llama_vocab_get_add_bos(self.vocabulary))


class BatchLoop:
    """context: tokens of one slot. `submit` expects a prompt that leaves room for one token at least."""

    def __init__(self, model: Model, context: int, slots: int, batch: int) -> None:
        self._model = model
        self._context = context
        self._batch_tokens = batch
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)
        self._slots = [_Slot(sequence) for sequence in range(slots)]
        self._waiting: list[Run] = []
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="llama", daemon=True)
        self._thread.start()

    def submit(self, run: Run) -> None:
        with self._wake:
            self._waiting.append(run)
            self._wake.notify()

    def cancel(self, run: Run) -> None:
        """It gets no more tokens; its slot is free after the batch that is being computed."""
        with self._wake:
            run.cancelled = True
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=5.0)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not self._waiting and not self._running():
                    self._wake.wait()
                if self._closing:
                    return
                self._place()
            self._turn()

    def _running(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.run is not None]

    def _place(self) -> None:
        """End what was cancelled; give waiting runs to the free slots that remember most of their beginning."""
        for slot in self._running():
            if slot.run is not None and slot.run.cancelled:
                self._end(slot)
        for run in [run for run in self._waiting if run.cancelled]:
            self._waiting.remove(run)
            run.sampler.free()
        free = [slot for slot in self._slots if slot.run is None]
        while self._waiting and free:
            run = self._waiting.pop(0)
            slot = max(free, key=lambda each: _shared(each.kept, run.tokens))
            free.remove(slot)
            self._begin(slot, run)

    def _begin(self, slot: _Slot, run: Run) -> None:
        run.prompt_tokens = len(run.tokens)
        # At least one token must be computed: what follows it is sampled from its logits.
        run.cached_tokens = run.position = min(_shared(slot.kept, run.tokens), len(run.tokens) - 1)
        if not llama_cpp.llama_memory_seq_rm(self._model.memory, slot.sequence, run.position, -1):
            llama_cpp.llama_memory_seq_rm(self._model.memory, slot.sequence, -1, -1)  # recurrent models: all or nothing
            run.cached_tokens = run.position = 0
        slot.kept = run.tokens[: run.position]
        slot.run = run

    def _end(self, slot: _Slot) -> None:
        if slot.run is not None:
            slot.run.sampler.free()
        slot.run = None

    def _turn(self) -> None:
        """One batch: fill, compute, sample."""
        slots = sorted(
            self._running(), key=lambda slot: _pending(slot.run)
        )  # those that generate have one, and go first
        self._batch.n_tokens = 0
        for slot in slots:
            self._fill(slot)
        if self._batch.n_tokens == 0:
            return
        status = llama_cpp.llama_decode(self._model.context, self._batch)
        for slot in slots:
            if slot.run is not None and status != 0:
                self._fail(slot, f"llama.cpp could not compute a batch (status {status})")
            elif slot.run is not None and slot.run.row >= 0:
                self._sample(slot, slot.run)

    def _fill(self, slot: _Slot) -> None:
        """Put as many of the slot's tokens into the batch as it has room for."""
        run, batch = slot.run, self._batch
        if run is None:
            return
        run.row = -1
        part = run.tokens[run.position : run.position + self._batch_tokens - batch.n_tokens]
        for token in part:
            row = batch.n_tokens
            batch.token[row], batch.pos[row] = token, run.position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, slot.sequence
            run.position += 1
            is_last = run.position == len(run.tokens)
            batch.logits[row] = is_last
            run.row = row if is_last else -1
            batch.n_tokens += 1
        slot.kept += part

    def _sample(self, slot: _Slot, run: Run) -> None:
        token = run.sampler.next(self._model.context, run.row)
        scored = self._score(run, token) if run.scores >= 0 else None
        run.tokens.append(token)
        said = len(run.tokens) - run.prompt_tokens
        end = ""
        if self._model.is_end(token):
            end = "stop"
        elif said == run.max_tokens or len(run.tokens) >= self._context:
            end = "length"
        if end:
            self._end(slot)
        run.on_token(token, end, scored)

    def _score(self, run: Run, token: int) -> TokenScore:
        logits = logits_of(self._model.context, run.row, self._model.vocabulary_size)
        return score(logits, token, run.scores, lambda each: self._model.text_of([each]))

    def _fail(self, slot: _Slot, what: str) -> None:
        run = slot.run
        self._end(slot)
        llama_cpp.llama_memory_seq_rm(self._model.memory, slot.sequence, -1, -1)
        slot.kept = []
        if run is not None:
            run.on_error(what)


def _pending(run: Run | None) -> int:
    return 0 if run is None else len(run.tokens) - run.position


def _shared(kept: Sequence[int], wanted: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    count = 0
    for ours, theirs in zip(kept, wanted, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _drop_log(level: int, text: bytes, _data: Any) -> None:
    """llama.cpp tells much while it loads. Errors go to stderr, which the supervisor keeps the end of."""
    if level == _LOG_ERROR:
        print(text.decode("utf-8", "replace").strip(), file=_stderr(), flush=True)


_LOG_ERROR = 4  # enum ggml_log_level


def _stderr() -> Any:
    import sys

    return sys.stderr


def _be_quiet() -> None:
    llama_cpp.llama_log_set(_drop_log, ctypes.c_void_p(0))
