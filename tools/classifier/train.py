"""Trains `atmo-tone`: positive, negative or neutral, a linear head over the encoder's vector.

    python -m tools.classifier.train [--out atmo/assets/tone]

Multinomial logistic regression with weight decay, by full-batch gradient descent with momentum (Sutskever et al.
2013): the loss is convex, so where it starts does not matter and no chance is involved. The decay is the one with
the least log loss in five-fold cross-validation on `data/train.jsonl`; `data/heldout.jsonl` is only looked at once,
for the result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atmo.inference.encoder import Encoder

HERE = Path(__file__).parent
LABELS = ("positive", "negative", "neutral")
MODEL_ID = "atmo-tone-1"
DESCRIPTION = (
    "Tone of a short text (review, message, note): positive, negative or neutral. A linear head over the text encoder, "
    "trained on about 500 sentences, mostly English; it misses irony."
)
DECAYS = (0.00003, 0.0001, 0.0003, 0.001, 0.003)  # the best lies inside
# People ask with an instruction in front, and the instruction's own words ("positive", "happy") must not count. Each
# sentence is learnt bare and behind one of these; the held-out sentences are scored bare and behind the others.
INSTRUCTIONS = (
    "Is this review positive or negative: {}",
    "Classify the sentiment of this message: {}",
    "What is the tone of this feedback? {}",
    "Does this customer sound happy or angry: {}",
    "positive, negative or neutral? {}",
    "How does this sound: {}",
    "Tell me the mood of the following text.\n\n{}",
    "Sentiment: {}",
    'Is the writer satisfied? "{}"',
    "Rate the sentiment of '{}'",
    "Was this comment friendly or unfriendly: {}",
)
UNSEEN_INSTRUCTIONS = (
    "Is this comment positive or negative? {}",
    "Please tell me whether this review is good or bad: {}",
    "Analyse the sentiment: {}",
    "Label the tone of this email as positive, negative or neutral.\n{}",
)
FOLDS = 5
STEPS, RATE, MOMENTUM = 2000, 2.0, 0.9  # measured: the loss is within 0.1% of its end by then at every decay
OPSET, IR_VERSION = 18, 9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """texts; vectors: (n, 384), of length 1; targets: (n,) index into LABELS."""

    texts: list[str]
    vectors: Array
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """weight: (384, 3); bias: (3,)."""

    weight: Array
    bias: Array

    def probabilities(self, vectors: Array) -> Array:
        logits = vectors @ self.weight + self.bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def read_examples(path: Path, encoder: Encoder) -> Examples:
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = [line["text"] for line in lines]
    targets = np.array([LABELS.index(line["label"]) for line in lines])
    return Examples(texts, encoder.encode_batch(texts).astype(np.float64), targets)


def instructed(bare: Examples, instructions: tuple[str, ...], encoder: Encoder) -> Examples:
    """The same sentences, each behind one of the instructions, taken in turn."""
    texts = [instructions[index % len(instructions)].format(text) for index, text in enumerate(bare.texts)]
    return Examples(texts, encoder.encode_batch(texts).astype(np.float64), bare.targets)


def together(first: Examples, second: Examples) -> Examples:
    return Examples(
        first.texts + second.texts,
        np.vstack((first.vectors, second.vectors)),
        np.concatenate((first.targets, second.targets)),
    )


def fit(vectors: Array, targets: NDArray[np.int64], decay: float) -> Head:
    wanted = np.eye(len(LABELS))[targets]
    weight, bias = np.zeros((vectors.shape[1], len(LABELS))), np.zeros(len(LABELS))
    speed_weight, speed_bias = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(STEPS):
        error = (Head(weight, bias).probabilities(vectors) - wanted) / len(targets)
        speed_weight = MOMENTUM * speed_weight - RATE * (vectors.T @ error + decay * weight)
        speed_bias = MOMENTUM * speed_bias - RATE * error.sum(axis=0)
        weight, bias = weight + speed_weight, bias + speed_bias
    return Head(weight, bias)


def log_loss(head: Head, vectors: Array, targets: NDArray[np.int64]) -> float:
    return float(-np.log(head.probabilities(vectors)[np.arange(len(targets)), targets]).mean())


def cross_validated(examples: Examples, decay: float) -> tuple[float, float]:
    """Mean log loss and accuracy over the folds. Every fifth triple is in the same fold (the file alternates labels),
    bare
    and behind an instruction alike: `examples` holds all sentences twice, in the same order."""
    fold = np.arange(len(examples.targets)) % (len(examples.targets) // 2) // len(LABELS) % FOLDS
    losses, right = [], 0
    for held in range(FOLDS):
        train, test = fold != held, fold == held
        head = fit(examples.vectors[train], examples.targets[train], decay)
        losses.append(log_loss(head, examples.vectors[test], examples.targets[test]))
        right += int((head.probabilities(examples.vectors[test]).argmax(axis=1) == examples.targets[test]).sum())
    return float(np.mean(losses)), right / len(examples.targets)


def to_onnx(head: Head) -> bytes:
    """Input `vector` float32 (n, 384), output `probabilities` float32 (n, 3) in the order of LABELS."""
    constants = [
        numpy_helper.from_array(head.weight.astype(np.float32), "weight"),
        numpy_helper.from_array(head.bias.astype(np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Gemm", ["vector", "weight", "bias"], ["logits"], "linear"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1),
    ]
    width = head.weight.shape[0]
    inputs = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", width])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(LABELS)])]
    graph = helper.make_graph(nodes, "tone", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "atmosphere tools/classifier"
    return bytes(model.SerializeToString(deterministic=True))


def held_out_result(head: Head, held: Examples) -> dict[str, object]:
    found = head.probabilities(held.vectors).argmax(axis=1)
    confusion = {
        label: {other: int(((held.targets == row) & (found == column)).sum()) for column, other in enumerate(LABELS)}
        for row, label in enumerate(LABELS)
    }
    wrong = [
        {"text": held.texts[index], "label": LABELS[held.targets[index]], "found": LABELS[found[index]]}
        for index in np.flatnonzero(found != held.targets)
    ]
    return {
        "accuracy": round(float((found == held.targets).mean()), 4),
        "log_loss": round(log_loss(head, held.vectors, held.targets), 4),
        "confusion": confusion,
        "wrong": wrong,
    }


def card(model: bytes, encoder_id: str) -> dict[str, object]:
    return {
        "id": MODEL_ID,
        "labels": list(LABELS),
        "encoder": encoder_id,
        "description": DESCRIPTION,
        "licence": "Apache-2.0",
        "files": {"head.onnx": {"bytes": len(model), "sha256": hashlib.sha256(model).hexdigest()}},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("atmo/assets/tone"))
    out = parser.parse_args().out
    encoder = Encoder.load()
    bare, held = (read_examples(HERE / "data" / name, encoder) for name in ("train.jsonl", "heldout.jsonl"))
    train = together(bare, instructed(bare, INSTRUCTIONS, encoder))
    held_instructed = instructed(held, UNSEEN_INSTRUCTIONS, encoder)
    scores = {decay: cross_validated(train, decay) for decay in DECAYS}
    decay = min(scores, key=lambda candidate: scores[candidate][0])
    head = fit(train.vectors, train.targets, decay)
    model = to_onnx(head)
    out.mkdir(parents=True, exist_ok=True)
    (out / "head.onnx").write_bytes(model)
    (out / "tone.json").write_text(json.dumps(card(model, encoder.encoder_id), indent=2) + "\n", "utf-8")
    result = {
        "model": MODEL_ID,
        "encoder": encoder.encoder_id,
        "train": {"texts": len(train.texts), "decay": decay, "cross_validated_accuracy": round(scores[decay][1], 4)},
        "heldout": {"texts": len(held.texts), **held_out_result(head, held)},
        "heldout_behind_instructions": {"texts": len(held.texts), **held_out_result(head, held_instructed)},
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "tone.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps({"folds": scores, **result}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
