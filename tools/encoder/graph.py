"""The encoder as an ONNX graph, built node by node from a checkpoint's weights.

    token ids (batch, tokens) -> embeddings -> 6 x (attention, feed forward) -> mean over tokens -> length 1 -> vector
                                                                             -> product, length 1 -> tokens
                                                                             -> product, softmax -> shares

Building it directly instead of tracing a framework keeps it small and in our hands: no mask (a batch holds texts of
one length), token types folded into the positions, biases folded into the products, pooling and normalisation
inside. The operators are chosen by measurement with onnxruntime 1.31 on one thread: Add + LayerNormalization costs a
quarter of the fused SkipLayerNormalization, and FastGelu (the tanh form) moves no vector by more than 1e-5 in cosine.

One graph, two flavours: `linear` decides how a product `x @ w.T + b` is written, see `FloatLinear` and `quantise.py`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atmo.mesh.views import READ_WIDTH
from tools.encoder.weights import READ, Checkpoint

ORT = "com.microsoft"  # onnxruntime's own operators
OPSET, ORT_OPSET, IR_VERSION = 18, 1, 9  # readable by onnxruntime 1.16 and later


class GraphBuilder:
    """Collects nodes and constants. Names count upwards, so equal calls give an equal file."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.taps: dict[str, str] = {}  # name of a product -> value that enters it

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: object) -> list[str]:
        number = len(self.nodes)
        names = [f"{kind.lower()}_{number}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, f"{kind}_{number}", domain=domain, **attributes))
        return names


class Linear(Protocol):
    """Writes `x @ weight.T + bias`: weight (out, in), bias (out,), x (batch, tokens, in)."""

    def __call__(self, graph: GraphBuilder, x: str, name: str) -> str: ...

    def embed(self, graph: GraphBuilder, ids: str) -> str: ...


class FloatLinear:
    """The reference flavour: everything float32. Remembers what enters each product, for calibration."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __call__(self, graph: GraphBuilder, x: str, name: str) -> str:
        weight, bias = product_weights(self._checkpoint, name)
        graph.taps[name] = x
        return graph.op(
            "Add", graph.op("MatMul", x, graph.constant(f"{name}.w", weight.T)), graph.constant(f"{name}.b", bias)
        )

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        words = self._checkpoint.weights["embeddings.word_embeddings.weight"]
        return graph.op("Gather", graph.constant("words", words), ids)


def product_names(layers: int) -> list[str]:
    """`0.qkv`, `0.out`, `0.up`, `0.down`, `1.qkv`, ...: the matrix products of the encoder, in order."""
    return [f"{layer}.{part}" for layer in range(layers) for part in ("qkv", "out", "up", "down")]


_PARTS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}


def product_weights(checkpoint: Checkpoint, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (out, in) and bias (out,) of a product, as published."""
    layer, part = name.split(".")
    prefixes = [f"encoder.layer.{layer}.{piece}" for piece in _PARTS[part]]
    weight = np.concatenate([checkpoint.weights[f"{prefix}.weight"] for prefix in prefixes])
    bias = np.concatenate([checkpoint.weights[f"{prefix}.bias"] for prefix in prefixes])
    return weight, bias


def build(
    checkpoint: Checkpoint, linear: Linear, *, window: int, expose_taps: bool = False, gelu: str = "FastGelu"
) -> bytes:
    """The serialised graph. Input `ids` int64 (batch, tokens <= window), outputs float32: `vector` (batch, width),
    length 1; and for weights with the head of the second reading `tokens` (batch, tokens, READ_WIDTH), each of length
    1, and `shares` (batch, tokens), together 1.

    expose_taps: also output what enters each product, named after it, shape (batch, tokens, in).
    gelu: `FastGelu` (tanh form) or `Gelu` (erf form, as published).
    """
    graph = GraphBuilder()
    x = _embeddings(graph, checkpoint, linear, window)
    for layer in range(checkpoint.layers):
        x = _layer(graph, checkpoint, linear, layer, x, gelu)
    pooled = graph.op("ReduceMean", x, graph.constant("token_axis", np.array([1])), keepdims=0)
    graph.op("LpNormalization", pooled, axis=-1, p=2)
    graph.nodes[-1].output[0] = "vector"
    if READ in checkpoint.weights:
        _second_reading(graph, checkpoint, x)
    if expose_taps:
        for name, value in graph.taps.items():
            graph.nodes.append(helper.make_node("Identity", [value], [name]))
    return _serialise(graph, checkpoint, expose_taps)


def _second_reading(graph: GraphBuilder, checkpoint: Checkpoint, x: str) -> None:
    """In float: half a percent of all products, and angles between tokens are all there is to see."""
    head = checkpoint.weights[READ].astype(np.float32)
    found = graph.op("MatMul", x, graph.constant(READ, head.T))
    tokens, counts = graph.ops(
        "Split", found, graph.constant("read.parts", np.array([READ_WIDTH, 1])), outputs=2, axis=-1
    )
    graph.op("LpNormalization", tokens, axis=-1, p=2)
    graph.nodes[-1].output[0] = "tokens"
    graph.op("Softmax", graph.op("Squeeze", counts, graph.constant("last_axis", np.array([2]))), axis=-1)
    graph.nodes[-1].output[0] = "shares"


def _embeddings(graph: GraphBuilder, checkpoint: Checkpoint, linear: Linear, window: int) -> str:
    weights = checkpoint.weights
    positions = weights["embeddings.position_embeddings.weight"][:window]
    places = positions + weights["embeddings.token_type_embeddings.weight"][0]  # a text alone is of type 0
    tokens = graph.op("Shape", "ids", start=1, end=2)
    first = graph.constant("first", np.array([0]))
    placed = graph.op("Slice", graph.constant("positions", places), first, tokens)
    return _normalised(graph, checkpoint, graph.op("Add", linear.embed(graph, "ids"), placed), "embeddings.LayerNorm")


def _layer(graph: GraphBuilder, checkpoint: Checkpoint, linear: Linear, layer: int, x: str, gelu: str) -> str:
    prefix = f"encoder.layer.{layer}"
    query, key, value = graph.ops("Split", linear(graph, x, f"{layer}.qkv"), outputs=3, axis=-1, num_outputs=3)
    mixed = graph.op("MultiHeadAttention", query, key, value, domain=ORT, num_heads=checkpoint.heads)
    added = graph.op("Add", linear(graph, mixed, f"{layer}.out"), x)
    x = _normalised(graph, checkpoint, added, f"{prefix}.attention.output.LayerNorm")
    inner = graph.op(gelu, linear(graph, x, f"{layer}.up"), domain=ORT)
    added = graph.op("Add", linear(graph, inner, f"{layer}.down"), x)
    return _normalised(graph, checkpoint, added, f"{prefix}.output.LayerNorm")


def _normalised(graph: GraphBuilder, checkpoint: Checkpoint, x: str, name: str) -> str:
    gain = graph.constant(f"{name}.g", checkpoint.weights[f"{name}.weight"])
    shift = graph.constant(f"{name}.b", checkpoint.weights[f"{name}.bias"])
    return graph.op("LayerNormalization", x, gain, shift, axis=-1, epsilon=checkpoint.epsilon)


def _serialise(graph: GraphBuilder, checkpoint: Checkpoint, expose_taps: bool) -> bytes:
    width = checkpoint.weights["embeddings.LayerNorm.weight"].size
    outputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", width])]
    if READ in checkpoint.weights:
        outputs += [
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["batch", "tokens", READ_WIDTH]),
            helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["batch", "tokens"]),
        ]
    if expose_taps:
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", f"in_{name}"])
            for name in graph.taps
        ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ORT, ORT_OPSET)]
    body = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants)
    model = helper.make_model(
        body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="atmosphere tools/encoder"
    )
    return bytes(model.SerializeToString(deterministic=True))
