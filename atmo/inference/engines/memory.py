"""How much memory a GGUF model will take, told before it is loaded, and a refusal when it is not there.

Theory of operation. What llama.cpp allocates is: the weights, as large as their file; keys and values for every token
of context of every slot, two bytes a number; buffers for one batch, of which the logits (batch x vocabulary) and a
handful of activations (batch x width) are the large ones; and, for each slot, the logits it samples from. Layers that
go to a GPU take their share of the weights, keys and values there. A process that has loaded its libraries takes some
besides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil

from atmo.errors import EngineUnavailable
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.sizing import Sizing
from atmo.models.gguf import GgufInfo

_GIB = 1 << 30
_PROCESS_BYTES = 50 << 20  # Python, numpy and llama.cpp's libraries; measured, tests/inference/test_memory.py
_FLOAT_BYTES = 4
_ACTIVATIONS = 24  # vectors of the model's width that live at once for each token of a batch; measured likewise
_LEAST_CONTEXT = 512  # a guess: no smaller one is worth the advice


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes by what they are for. on_gpu: the share of weights, keys and values that goes there, 0 to 1."""

    weights: int
    cache: int
    compute: int
    on_gpu: float = 0.0

    @property
    def ram(self) -> int:
        return int((self.weights + self.cache) * (1 - self.on_gpu)) + self.compute + _PROCESS_BYTES

    @property
    def vram(self) -> int:
        return int((self.weights + self.cache) * self.on_gpu) + (self.compute if self.on_gpu else 0)


@dataclass(frozen=True, slots=True)
class Free:
    """Bytes that may be taken. vram 0: there is no GPU."""

    ram: int
    vram: int = 0


def need(info: GgufInfo, sizing: Sizing, gpu_layers: int = 0) -> Need:
    """gpu_layers: as in ModelSpec, with a GPU; 0 without one."""
    rows = sizing.batch * info.vocabulary + sizing.slots * info.vocabulary
    compute = _FLOAT_BYTES * (rows + sizing.batch * info.width * _ACTIVATIONS)
    share = 1.0 if gpu_layers < 0 else min(1.0, gpu_layers / (info.layers + 1)) if info.layers else 0.0
    cache = info.kv_bytes_per_token * sizing.context * sizing.slots
    return Need(info.size_bytes, cache, compute, share)


def check(spec: ModelSpec, info: GgufInfo, sizing: Sizing, free: Free) -> None:
    """Raises EngineUnavailable when the model would not fit, with the numbers and what to do."""
    wanted = need(info, sizing, spec.gpu_layers if free.vram else 0)
    for what, takes, there in (("memory", wanted.ram, free.ram), ("GPU memory", wanted.vram, free.vram)):
        if takes > there:
            raise EngineUnavailable(
                f"{spec.name} needs about {_gib(takes)} of {what}, and {_gib(there)} are free: {_gib(wanted.weights)} "
                f"for its weights, {_gib(wanted.cache)} for {sizing.slots} x {sizing.context} tokens of context, "
                f"{_gib(wanted.compute)} for computing.",
                hint=_advice(info, sizing, wanted, takes - there),
            )


def _advice(info: GgufInfo, sizing: Sizing, wanted: Need, missing: int) -> str:
    """The smallest step that helps."""
    share = wanted.on_gpu or 1.0
    if missing < wanted.cache * share and info.kv_bytes_per_token:
        left = wanted.cache - missing / share
        context = int(left / (info.kv_bytes_per_token * sizing.slots)) // 256 * 256
        if context >= _LEAST_CONTEXT:
            return f"Set inference.context = {context} or less, or fewer inference.slots."
        slots = int(left / (info.kv_bytes_per_token * sizing.context))
        if slots >= 1:
            return f"Set inference.slots = {slots}, or a smaller inference.context."
        return "Set a much smaller inference.context and inference.slots = 1, or take a smaller quantisation."
    if wanted.on_gpu:
        return "Set a smaller inference.gpu_layers, or take a smaller quantisation."
    return "Take a smaller quantisation or a smaller model, or free memory."


def address_space_left() -> int:
    """Under a limit on this process's addresses (`ulimit -v`), which loading would break; without one, no limit."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return 1 << 62
    return max(0, limit - psutil.Process().memory_info().vms)


def _gib(count: int) -> str:
    return f"{count / _GIB:.2f} GiB" if count >= _GIB // 100 else f"{math.ceil(count / (1 << 20))} MiB"
