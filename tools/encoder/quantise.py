"""Float weights to int8 without losing the vectors.

Theory of operation. A product `x @ w.T` runs in integers: `w` as int8 with one scale per output channel, fixed
here; `x` as uint8 with one scale and zero point for the whole tensor, found while running (onnxruntime's
DynamicQuantizeMatMul, the quickest int8 product it has). One scale for all of `x` is where the error comes from: in
each layer a handful of channels reach 10 to 15 times the others' range (up to 30 against 2), mostly on one token,
and take the resolution from all. Two exact rewritings, both before any rounding, take that away:

1. Channel splitting (Zhao et al. 2019, "Improving Neural Network Quantization without Retraining using Outlier
   Channel Splitting"). A neuron of the feed-forward layer that fires far beyond the others is written m times, and
   the weights that read it are divided by m. The sum is the same; the weights became small: room for (2).
2. Smoothing (Xiao et al. 2023, "SmoothQuant", eq. 4). Channel j of `x` is divided by `s_j` and column j of `w`
   multiplied by it, `s_j = max|x_j|^a / max|w_j|^(1-a)`: the difficulty moves from `x` to `w`, which has a scale
   per output channel.

The ranges `max|x_j|` come from calibration (`calibrate.py`) and are kept in `ranges.json`, in eighths of an octave,
so that export needs no inference and gives the same bytes on every machine.

Measured on 878 varied texts, cosine to the float model, mean / smallest: neither 0.9926 / 0.978; (2) alone 0.9973 /
0.991; both 0.9988 / 0.995, at the same latency. `results/verify.json` holds the shipped model's numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tools.encoder.graph import ORT, GraphBuilder, product_weights
from tools.encoder.weights import Checkpoint

SMOOTHING = 0.7  # `a` of eq. 4; measured: 0.65 and 0.75 are slightly worse, 0.5 and 0.9 much
SPLITS = 16  # copies added per feed-forward layer; measured: 64 adds nothing; 16 keeps the width a multiple of 16
WORD_MAX = 127
# Largest code of a product's weight. Processors without an integer dot product (x86 before VNNI) add two uint8 x int8
# products in 16 bits, which overflows at full range: with 127 that costs them a cosine of 0.0034 (mean), with 111
# 0.0004, and 111 costs everybody 0.00006 (emulated by reference.py); 95 and 63 cost everybody more than they save.
PRODUCT_MAX = 111
RANGE_FLOOR = 1e-3  # a channel that calibration never saw active still needs a scale

Ranges = dict[str, NDArray[np.float64]]  # product name -> (in,) largest magnitude seen in each channel that enters it


class Int8Linear:
    """The shipped flavour: products and word embeddings in int8 (protocol `Linear`)."""

    def __init__(self, checkpoint: Checkpoint, ranges: Ranges) -> None:
        self._checkpoint = checkpoint
        self._ranges = ranges

    def __call__(self, graph: GraphBuilder, x: str, name: str) -> str:
        weight, bias, factor = prepare(self._checkpoint, self._ranges, name)
        if factor is not None:
            x = graph.op("Mul", x, graph.constant(f"{name}.smooth", (1 / factor).astype(np.float32)))
        codes, scale = quantise_rows(weight, PRODUCT_MAX)
        return graph.op(
            "DynamicQuantizeMatMul",
            x,
            graph.constant(f"{name}.q", codes.T),
            graph.constant(f"{name}.s", scale),
            "",  # zero point: symmetric
            graph.constant(f"{name}.b", bias.astype(np.float32)),
            domain=ORT,
        )

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        """One scale per word. Gathered first and widened after, so that the table stays int8 in memory."""
        codes, scale = quantise_rows(self._checkpoint.weights["embeddings.word_embeddings.weight"], WORD_MAX)
        row = graph.op("Cast", graph.op("Gather", graph.constant("words.q", codes), ids), to=TensorProto.FLOAT)
        return graph.op("Mul", row, graph.op("Gather", graph.constant("words.s", scale[:, None]), ids))


def quantise_rows(weight: NDArray[np.generic], top: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes (rows, in) and scales (rows,) with `weight ~ codes * scale`, the largest of a row at `top`."""
    wide = weight.astype(np.float64)
    largest = np.abs(wide).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0) / top
    return np.rint(wide / scale[:, None]).astype(np.int8), scale.astype(np.float32)


Prepared = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]


def prepare(checkpoint: Checkpoint, ranges: Ranges, name: str) -> Prepared:
    """Weight (out, in), bias (out,) and smoothing factors (in,) of a product after both rewritings.

    `out` needs no smoothing: its input is a mean of values, without outliers.
    """
    layer, part = name.split(".")
    weight, bias = (array.astype(np.float64) for array in product_weights(checkpoint, name))
    if part == "out":
        return weight, bias, None
    reach = np.maximum(ranges[name], RANGE_FLOOR)
    if part in ("up", "down"):
        copies = split_counts(checkpoint, ranges, layer)
        source = np.repeat(np.arange(copies.size), copies)
        if part == "up":
            weight, bias = weight[source], bias[source]
        else:
            weight, reach = weight[:, source] / copies[source], reach[source]
    factor = smoothing(reach, weight)
    return weight * factor, bias, factor


def smoothing(reach: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eq. 4 of SmoothQuant for inputs of range `reach` (in,) and `weight` (out, in), around a median of 1."""
    factor = reach**SMOOTHING / np.abs(weight).max(axis=0) ** (1 - SMOOTHING)
    return factor / np.median(factor)


def split_counts(checkpoint: Checkpoint, ranges: Ranges, layer: str) -> NDArray[np.int64]:
    """How often each inner neuron of a feed-forward layer is written, (inner,): each of the SPLITS extra copies
    goes to the neuron whose range times largest weight, shared among its copies so far, is the greatest."""
    name = f"{layer}.down"
    weight, _ = product_weights(checkpoint, name)
    difficulty = np.maximum(ranges[name], RANGE_FLOOR) * np.abs(weight).max(axis=0)
    copies = np.ones(difficulty.size, np.int64)
    for _ in range(SPLITS):
        copies[np.argmax(difficulty / copies)] += 1
    return copies
