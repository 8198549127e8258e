"""Trains `atmo-shapes` and writes it as ONNX. Run: python -m tools.vision.train"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tools.vision.shapes import LABELS, SIDE, pictures

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "atmo" / "assets" / "shapes"
RESULTS = Path(__file__).parent / "results" / "shapes.json"
TRAIN, HELD_OUT, EPOCHS, BATCH = 9_600, 1_200, 18, 60
CHANNELS = (3, 16, 32, 64)


def main() -> None:
    torch.manual_seed(0)
    started_s = time.monotonic()
    inputs, labels = (torch.from_numpy(each) for each in pictures(TRAIN, seed=1))
    model = build()
    learn(model, inputs, labels)
    FOLDER.mkdir(parents=True, exist_ok=True)
    export(model.eval(), FOLDER / "model.onnx")
    write_card(FOLDER)
    report(model, time.monotonic() - started_s)


def build() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(2), Pool(), nn.Linear(2 * CHANNELS[-1], len(LABELS)))


class Pool(nn.Module):
    """Mean and largest value of each channel: (n, c, places) -> (n, 2c)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(2), x.amax(2)], 1)


def learn(model: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    steps = EPOCHS * (TRAIN // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(TRAIN).split(BATCH):
            loss = nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / (TRAIN // BATCH):.3f}", flush=True)


def export(model: nn.Sequential, path: Path) -> None:
    """image (1, 3, SIDE, SIDE) float32, 0 to 1 -> probabilities (1, labels) float32."""
    weights, nodes, last = [], [], "image"
    convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
    for at, layer in enumerate(convolutions):
        weights += [_weight(f"w{at}", layer.weight), _weight(f"b{at}", layer.bias)]
        nodes.append(
            helper.make_node("Conv", [last, f"w{at}", f"b{at}"], [f"c{at}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        last = f"r{at}"
    head = model[-1]
    assert isinstance(head, nn.Linear)
    weights += [_weight("w", head.weight), _weight("b", head.bias)]
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("GlobalMaxPool", [last], ["most"]),
        helper.make_node("Concat", ["mean", "most"], ["pooled"], axis=1),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "atmo-shapes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, len(LABELS)])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _weight(name: str, tensor: torch.Tensor) -> onnx.TensorProto:
    return numpy_helper.from_array(tensor.detach().numpy().astype(np.float32), name)


def write_card(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    card = {
        "id": "atmo-shapes-1",
        "labels": LABELS,
        "side": SIDE,
        "description": "Which of four shapes in which of six colours is in a picture; it knows nothing else.",
        "licence": "Apache-2.0",
        "files": {"model.onnx": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}},
    }
    (folder / "vision.json").write_text(json.dumps(card, indent=2) + "\n")


def report(model: nn.Sequential, took_s: float) -> None:
    session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs, labels = pictures(HELD_OUT, seed=2)
    said = np.array([session.run(None, {"image": each[None]})[0][0].argmax() for each in inputs])
    wrong = {LABELS[index]: int((said[labels == index] != index).sum()) for index in range(len(LABELS))}
    result = {
        "trained_on": TRAIN,
        "held_out": HELD_OUT,
        "right": round(float((said == labels).mean()), 4),
        "weights": sum(each.numel() for each in model.parameters()),
        "bytes": (FOLDER / "model.onnx").stat().st_size,
        "wrong_by_label": {label: count for label, count in wrong.items() if count},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result), f"in {took_s:.0f} s")


if __name__ == "__main__":
    main()
