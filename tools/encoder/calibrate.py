"""Writes `ranges.json`: the largest magnitude in each channel that enters each product, over the calibration texts.

    python -m tools.encoder.calibrate WEIGHTS

Needed once per checkpoint (also for a fine-tuned one). The file holds eighths of an octave, `range = 2 ** (code /
8)`: finer would only record which machine it ran on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from tools.encoder.graph import FloatLinear, build, product_names
from tools.encoder.quantise import RANGE_FLOOR, Ranges
from tools.encoder.texts import calibration_texts
from tools.encoder.weights import Checkpoint, read_checkpoint

RANGES = Path(__file__).parent / "ranges.json"
STEPS_PER_OCTAVE = 8
WINDOW = 128


def float_tokenizer(checkpoint: Checkpoint, *, truncate: bool = True) -> Tokenizer:
    """The published tokenizer without padding, cut at the window when `truncate`."""
    tokenizer = Tokenizer.from_str(json.dumps(checkpoint.tokenizer))
    tokenizer.no_padding()
    if truncate:
        tokenizer.enable_truncation(WINDOW)
    else:
        tokenizer.no_truncation()
    return tokenizer


def measure(checkpoint: Checkpoint, texts: list[str]) -> Ranges:
    names = product_names(checkpoint.layers)
    model = build(checkpoint, FloatLinear(checkpoint), window=WINDOW, expose_taps=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    tokenizer = float_tokenizer(checkpoint)
    ranges: Ranges = {}
    for text in texts:
        values = session.run(names, {"ids": np.array([tokenizer.encode(text).ids])})
        for name, value in zip(names, values, strict=True):
            seen = np.abs(value[0]).max(axis=0).astype(np.float64)
            ranges[name] = np.maximum(ranges.get(name, 0.0), seen)
    return ranges


def save(ranges: Ranges, path: Path, sha256: str) -> None:
    lines = [f'  "{name}": {json.dumps(_codes(reach), separators=(",", ":"))}' for name, reach in ranges.items()]
    head = f'{{\n"weights_sha256": "{sha256}",\n"steps_per_octave": {STEPS_PER_OCTAVE},\n"ranges": {{\n'
    path.write_text(head + ",\n".join(lines) + "\n}\n}\n", "ascii")


def load(path: Path, sha256: str) -> Ranges:
    content = json.loads(path.read_text("ascii"))
    if content["weights_sha256"] != sha256:
        raise SystemExit(
            f"{path} was measured on other weights ({content['weights_sha256'][:12]}); run calibrate first."
        )
    return {name: np.exp2(np.array(codes) / content["steps_per_octave"]) for name, codes in content["ranges"].items()}


def _codes(reach: np.ndarray) -> list[int]:
    return [int(code) for code in np.rint(STEPS_PER_OCTAVE * np.log2(np.maximum(reach, RANGE_FLOOR)))]


if __name__ == "__main__":
    checkpoint = read_checkpoint(Path(sys.argv[1]))
    save(measure(checkpoint, calibration_texts()), RANGES, checkpoint.sha256)
    print(f"wrote {RANGES}")
