"""Compares the shipped int8 encoder with the float model and measures what it costs; writes `results/verify.json`.

    python -m tools.encoder.verify WEIGHTS [--texts 600]

The float model is `reference.py`, written apart from the graph. Fails when the mean or the smallest cosine is not above
0.99. Latency is of `Encoder.encode` with the cache emptied, tokenising included, one thread: time of the calling thread
on the processor, and by the clock, which also counts what else the machine does. Also writes `results/golden.json`: the
float vectors of a few texts, rounded to int8, which the tests compare with.
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from atmo.inference.encoder import Encoder, quantise
from tools.encoder.calibrate import RANGES, WINDOW, float_tokenizer, load
from tools.encoder.export import lean
from tools.encoder.reference import FloatProducts, IntegerProducts, encode
from tools.encoder.texts import verification_texts
from tools.encoder.weights import Checkpoint, read_checkpoint

RESULTS = Path(__file__).parent / "results"
GOLDEN_TEXTS = 24
WANTED_COSINE = 0.99
MADE_TEXTS = 285  # what `texts.varied` adds to the intents
EMULATED_TEXTS = 40  # emulation takes about a second a text
TOKEN_COUNTS = (9, 16, 108, 128)
ROUNDS = 100


def cosines(shipped: list[NDArray[np.float32]], reference: list[NDArray[np.float32]]) -> dict[str, float]:
    values = np.array([float(one @ other) for one, other in zip(shipped, reference, strict=True)])
    summary = {"mean": values.mean(), "p1": np.percentile(values, 1), "min": values.min()}
    return {name: round(float(value), 5) for name, value in summary.items()}


def compare(checkpoint: Checkpoint, encoder: Encoder, texts: list[str]) -> dict[str, object]:
    """Only texts within the window: what lies beyond is cut by the encoder's own rule, not by the model's."""
    tokenizer = float_tokenizer(checkpoint, truncate=False)
    ids = {text: tokenizer.encode(text).ids for text in texts}
    texts = [text for text in texts if len(ids[text]) <= WINDOW]
    products = FloatProducts(checkpoint)
    reference = [encode(checkpoint, products, ids[text]) for text in texts]
    few = slice(0, None, max(1, len(texts) // EMULATED_TEXTS))
    ranges = load(RANGES, checkpoint.sha256)

    def emulated(*, saturating: bool) -> dict[str, float]:
        products = IntegerProducts(checkpoint, ranges, saturating=saturating)
        vectors = [encode(checkpoint, products, ids[text], exact_gelu=False) for text in texts[few]]
        return cosines(vectors, reference[few])

    _write_golden(texts, reference)
    return {
        "texts": len(texts),
        "tokens": {"mean": round(float(np.mean([len(ids[text]) for text in texts])), 1)},
        "cosine_to_float": cosines([encoder.encode(text) for text in texts], reference),
        "emulated": {
            "texts": len(texts[few]),
            "with_integer_dot_product": emulated(saturating=False),
            "without_integer_dot_product": emulated(saturating=True),
        },
    }


def _write_golden(texts: list[str], reference: list[NDArray[np.float32]]) -> None:
    step = len(texts) // GOLDEN_TEXTS
    lines = [
        {"text": text, "vector": base64.b64encode(quantise(vector).tobytes()).decode()}
        for text, vector in zip(texts[::step], reference[::step], strict=True)
    ]
    (RESULTS / "golden.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", "utf-8")


_LOAD = """
import time
start = time.perf_counter(), time.process_time()
from atmo.inference.encoder import Encoder
encoder = Encoder.load()
ended = time.perf_counter() - start[0], time.process_time() - start[1]
for tokens in (7, 126):
    encoder.encode("mesh " * tokens)
kilobytes = dict(line.split()[:2] for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmHWM")))
print(*ended, kilobytes["VmRSS:"], kilobytes["VmHWM:"])
"""


def loading() -> dict[str, float]:
    """Of a fresh process that imports and loads the encoder: the best of five. Linux only, as it asks /proc."""
    runs = [subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, check=True, text=True) for _ in range(5)]
    clock, cpu, held, peak = zip(*([float(word) for word in run.stdout.split()] for run in runs), strict=True)
    return {
        "import_and_load_clock_ms": round(min(clock) * 1000),
        "import_and_load_cpu_ms": round(min(cpu) * 1000),
        "rss_mb": round(min(held) * 1.024 / 1000),
        "peak_rss_mb": round(min(peak) * 1.024 / 1000),
    }


def latency(encoder_without_cache: Encoder) -> dict[str, dict[str, float]]:
    """Milliseconds by number of tokens."""
    found = {}
    for tokens in TOKEN_COUNTS:
        text = "mesh " * (tokens - 2)
        assert encoder_without_cache.count_tokens(text) == tokens
        on_cpu = _sample(lambda text=text: encoder_without_cache.encode(text), time.thread_time)
        by_clock = _sample(lambda text=text: encoder_without_cache.encode(text), time.perf_counter)
        found[str(tokens)] = {"cpu_p50_ms": on_cpu, "clock_p50_ms": by_clock}
    return found


def _sample(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        start = clock()
        call()
        times.append(clock() - start)
    return round(float(np.median(times)) * 1000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--texts", type=int, default=600)
    arguments = parser.parse_args()
    encoder = Encoder.load(cache_entries=0)
    RESULTS.mkdir(exist_ok=True)
    texts = verification_texts(max(1, arguments.texts - MADE_TEXTS))
    result = {
        "encoder": encoder.encoder_id,
        "onnxruntime": onnxruntime.__version__,
        "machine": f"{platform.machine()}, {_processor()}",
        **compare(lean(read_checkpoint(arguments.weights)), encoder, texts),
        "latency_one_thread": latency(encoder),
        "fresh_process": loading(),
    }
    (RESULTS / "verify.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))
    cosine = result["cosine_to_float"]
    if min(cosine["mean"], cosine["min"]) <= WANTED_COSINE:
        raise SystemExit(f"The int8 encoder is too far from the float model: {cosine}, wanted above {WANTED_COSINE}.")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    kinds = [kind for kind in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if kind in flags.split()]
    return f"{(names or [platform.processor()])[0]} ({' '.join(kinds)})"


if __name__ == "__main__":
    main()
