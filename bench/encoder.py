"""The text encoder: latency by length on one thread, texts seen before, load time and memory."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from bench import processes, texts
from bench.harness import Context, Outcome, Series

if TYPE_CHECKING:
    from atmo.inference.encoder import Encoder

# Run in a process of its own. Prints milliseconds of import and of load, and MB before, after loading, after work.
_LOAD = """
import json, time, psutil
mb = lambda: psutil.Process().memory_info().rss / 1e6
before_mb, begun_s = mb(), time.perf_counter()
from atmo.inference.encoder import Encoder
imported_s = time.perf_counter()
encoder = Encoder.load()
loaded_s, loaded_mb = time.perf_counter(), mb()
for number in range(200):
    encoder.encode(f"{number} " + "a text that fills the window " * 30)
print(json.dumps([(imported_s - begun_s) * 1e3, (loaded_s - imported_s) * 1e3, before_mb, loaded_mb, mb()]))
"""


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """texts: of each length, all different; lookups: of texts seen just before; loads: in fresh processes."""

    tokens: tuple[int, ...]
    texts: int
    warm_up: int
    lookups: int
    loads: int


def run(context: Context) -> list[Outcome]:
    sizes = context.sizes(Sizes)
    return [*_loads(sizes), *_latencies(context, sizes)]


def _loads(sizes: Sizes) -> list[Series]:
    found = [msgspec.json.decode(_load_once(), type=list[float]) for _ in range(sizes.loads)]
    imported, loaded, before, after, worked = zip(*found, strict=True)
    return [
        Series("import", "ms", imported, "with its libraries, in a fresh process, files in the page cache"),
        Series("load", "ms", loaded, "model and tokenizer"),
        Series("memory of its process, loaded", "MB", after, f"resident; {before[0]:.0f} MB before the import"),
        Series("memory of its process, after work", "MB", worked, "resident, after 200 texts of full length"),
    ]


def _load_once() -> bytes:
    environment = processes.environment({})
    return subprocess.run([sys.executable, "-c", _LOAD], env=environment, check=True, capture_output=True).stdout


def _latencies(context: Context, sizes: Sizes) -> list[Series]:
    """Lengths take turns, so that whatever else the machine does meets all of them."""
    from atmo.inference.encoder import Encoder

    encoder = Encoder.load()
    taken_ms: dict[int, list[float]] = {tokens: [] for tokens in sizes.tokens}
    again_ms: list[float] = []
    for _ in range(sizes.warm_up + sizes.texts):
        for tokens, taken in taken_ms.items():
            text = texts.of_length(tokens, encoder.count_tokens, context.chance)
            taken.append(_encode_ms(encoder, text))
    for _ in range(sizes.lookups):
        again_ms.append(_encode_ms(encoder, text))
    series = [
        Series(f"{tokens} tokens", "ms", taken[sizes.warm_up :], "one thread") for tokens, taken in taken_ms.items()
    ]
    return [*series, Series("a text seen before", "ms", again_ms, f"{sizes.tokens[-1]} tokens")]


def _encode_ms(encoder: Encoder, text: str) -> float:
    begun_ns = time.perf_counter_ns()
    encoder.encode(text)
    return (time.perf_counter_ns() - begun_ns) / 1e6
