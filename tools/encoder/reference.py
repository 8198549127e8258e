"""The encoder in plain numpy, apart from the ONNX graph: what the shipped file is compared with.

`FloatProducts` is BERT as published, in float32. `IntegerProducts` repeats the shipped arithmetic step by step and
can also overflow as older processors do: x86 before VNNI multiplies uint8 by int8 with `vpmaddubsw`, which adds
neighbouring pairs in saturating int16 (onnxruntime's quantisation guide, "reduce_range").
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tools.encoder.graph import product_names, product_weights
from tools.encoder.quantise import PRODUCT_MAX, Ranges, prepare, quantise_rows
from tools.encoder.weights import Checkpoint

Array = NDArray[np.float32]
INT16 = np.iinfo(np.int16)


class Products(Protocol):
    def __call__(self, x: Array, name: str) -> Array:
        """`x @ weight.T + bias` of the product `name`: (tokens, in) -> (tokens, out)."""


class FloatProducts:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self._products = {name: product_weights(checkpoint, name) for name in product_names(checkpoint.layers)}

    def __call__(self, x: Array, name: str) -> Array:
        weight, bias = self._products[name]
        return x @ weight.T + bias


class IntegerProducts:
    """saturating: add neighbouring pairs of products in int16, as processors without an integer dot product do."""

    def __init__(self, checkpoint: Checkpoint, ranges: Ranges, *, saturating: bool) -> None:
        self._prepared = {name: prepare(checkpoint, ranges, name) for name in product_names(checkpoint.layers)}
        self._codes = {name: quantise_rows(entry[0], PRODUCT_MAX) for name, entry in self._prepared.items()}
        self._sum = _saturating_sum if saturating else _exact_sum

    def __call__(self, x: Array, name: str) -> Array:
        _, bias, factor = self._prepared[name]
        codes, scale = self._codes[name]
        if factor is not None:
            x = x * (1 / factor).astype(np.float32)
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        step = (high - low) / 255
        zero = np.rint(-low / step)
        levels = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.float32)
        weight = codes.astype(np.float32)
        total = self._sum(levels, weight) - zero * weight.sum(axis=1)
        return np.asarray(total * step * scale + bias, np.float32)


def _exact_sum(levels: Array, weight: Array) -> Array:
    return np.asarray(levels.astype(np.float64) @ weight.T.astype(np.float64), np.float32)


def _saturating_sum(levels: Array, weight: Array) -> Array:
    total = np.empty((levels.shape[0], weight.shape[0]), np.float32)
    for token, row in enumerate(levels):
        products = row * weight  # (out, in)
        pairs = products[:, 0::2] + products[:, 1::2]
        total[token] = np.clip(pairs, INT16.min, INT16.max).sum(axis=1, dtype=np.float64)
    return total


def encode(checkpoint: Checkpoint, products: Products, ids: list[int], *, exact_gelu: bool = True) -> Array:
    """The vector of one text, (width,), length 1. exact_gelu: the erf form as published, else the shipped tanh form."""
    weights = checkpoint.weights
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = _normalised(checkpoint, x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    gelu = _gelu if exact_gelu else _tanh_gelu
    for layer in range(checkpoint.layers):
        prefix = f"encoder.layer.{layer}"
        mixed = products(_attention(products(x, f"{layer}.qkv"), checkpoint.heads), f"{layer}.out")
        x = _normalised(checkpoint, mixed + x, f"{prefix}.attention.output.LayerNorm")
        inner = gelu(products(x, f"{layer}.up"))
        x = _normalised(checkpoint, products(inner, f"{layer}.down") + x, f"{prefix}.output.LayerNorm")
    mean = x.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _attention(qkv: Array, heads: int) -> Array:
    """(tokens, 3 * width) -> (tokens, width)."""
    tokens = qkv.shape[0]
    query, key, value = (
        part.reshape(tokens, heads, -1).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=1)
    )  # each (heads, tokens, width / heads)
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[2]))
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.asarray((shares @ value).transpose(1, 0, 2).reshape(tokens, -1), np.float32)


def _normalised(checkpoint: Checkpoint, x: Array, name: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + checkpoint.epsilon)
    return np.asarray(centred / deviation * checkpoint.weights[f"{name}.weight"] + checkpoint.weights[f"{name}.bias"])


def _gelu(x: Array) -> Array:
    """x * Phi(x), with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7, that of float32)."""
    magnitude = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * magnitude)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-(magnitude**2)))
    return np.asarray(0.5 * x * (1 + erf), np.float32)


def _tanh_gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), np.float32)
