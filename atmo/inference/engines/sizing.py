"""How many threads and how much context a GGUF model gets when the configuration leaves it open."""

from __future__ import annotations

from dataclasses import dataclass

from atmo.host import THIS
from atmo.inference.engine import ModelSpec
from atmo.models.gguf import GgufInfo

# Below this a token's work is over before a second thread has woken up, and llama.cpp's threads spin while they wait
# for each other. Measured on two busy cores with 0.6M parameters: 7,680 tokens/s with one thread, 5 with two.
_ONE_THREAD_PARAMETERS = 50_000_000
_LEAST_CONTEXT = 2048  # a guess: less is no use for chat
_KV_SHARE = 0.25  # of the machine's memory, for keys and values of a model whose context was left open; a guess
_UNKNOWN_CONTEXT = 4096  # a guess, for files that do not name theirs
_BATCH = 512  # tokens read between two looks at cancellations; llama.cpp's own ubatch


@dataclass(frozen=True, slots=True)
class Sizing:
    """threads: of llama.cpp; context: tokens for one request; slots: requests at once; batch: tokens in one step."""

    threads: int
    context: int
    slots: int
    batch: int


def size(spec: ModelSpec, info: GgufInfo) -> Sizing:
    threads = spec.threads or (1 if info.parameters < _ONE_THREAD_PARAMETERS else THIS.cores())
    slots = max(1, spec.slots)
    context = _context(spec, info, slots)
    # A model that makes vectors reads a text as a whole, so its batch holds as much as its context.
    return Sizing(threads, context, slots, context if info.embeds else spec.batch or _BATCH)


def _context(spec: ModelSpec, info: GgufInfo, slots: int) -> int:
    """What was asked for, at most what the model was trained for; the model's own, halved until the slots' memory
    fits."""
    trained = info.context or _UNKNOWN_CONTEXT
    if spec.context:
        return min(spec.context, trained)
    room_bytes = _KV_SHARE * THIS.memory_bytes()
    context = trained
    while context > _LEAST_CONTEXT and context * slots * info.kv_bytes_per_token > room_bytes:
        context //= 2
    return context
