"""Mixes fine-tuned weights with the published ones; writes the checkpoint to export and `results/train.json`.

    python -m tools.encoder.mix WEIGHTS TUNED --share 0.9 --out FOLDER

WEIGHTS are the published ones, TUNED the folder that `train.py` wrote (Wortsman et al. 2022, "Robust fine-tuning of
zero-shot models"). The result says how the published, the tuned and the mixed weights do on the capabilities that
training never saw, each against these alone and against all, by the whole text.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atmo.mesh.views import capability_text
from tools.encoder.bert import Bert, Texts, read
from tools.encoder.corpus import Corpus, Target, judged, read_corpus
from tools.encoder.train import Ids
from tools.encoder.weights import Weights, read_checkpoint, save_checkpoint

RESULT = Path(__file__).parent / "results" / "train.json"
TOGETHER = 200  # texts whose tokens are compared at a time


def mixed(published: Weights, tuned: Weights, share: float) -> Weights:
    """share: of the tuned layers, 0 to 1. Embeddings and the head are the tuned ones."""
    return {
        name: (1 - share) * published[name] + share * array if name.startswith("encoder.layer.") else array
        for name, array in tuned.items()
    }


def validate(model: Bert, ids: Ids, corpus: Corpus, others: Corpus) -> dict[str, float]:
    """Accuracy on the intents of `corpus`, held against its capabilities alone and against those of `others` too, by
    vectors alone, and by both readings."""
    intents = [intent for intent in corpus.intents if intent.right]
    found = {}
    for against, targets in (("unseen", corpus.targets), ("all", corpus.targets + others.targets)):
        right = torch.tensor([[intent.right == target.name for target in targets] for intent in intents])
        wrong = torch.tensor([[judged(intent, target) for target in targets] for intent in intents])
        first, second = _readings(model, ids, [intent.text for intent in intents], targets)
        for name, scores in (("first", first), ("both", (first + second) / 2)):
            chosen = scores.masked_fill(~(right | wrong), -1.0).argmax(dim=1)
            found[f"{name}_among_{against}"] = float(right[np.arange(len(intents)), chosen].float().mean())
    return found


@torch.no_grad()
def _readings(model: Bert, ids: Ids, texts: list[str], targets: tuple[Target, ...]) -> tuple[Tensor, Tensor]:
    """(texts, targets) each: of vectors, of tokens."""
    offered = model([ids(capability_text(target.description, target.examples)) for target in targets])
    parts: list[Texts] = [
        model([ids(text) for text in texts[at : at + TOGETHER]]) for at in range(0, len(texts), TOGETHER)
    ]
    return torch.cat([part.vectors @ offered.vectors.T for part in parts]), torch.cat(
        [read(part, offered) for part in parts]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("tuned", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the tuned weights, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    published, tuned = read_checkpoint(arguments.weights), read_checkpoint(arguments.tuned)
    changed = {name: array for name, array in tuned.weights.items() if "pooler" not in name}
    corpus, ids, model = read_corpus(), Ids(tuned), Bert(tuned).eval()
    seen, unseen = corpus.part(held_out=False), corpus.part(held_out=True)
    right = {"published": validate(Bert(published).eval(), Ids(published), unseen, seen)}
    for share in sorted({0.0, arguments.share, 1.0}):
        model.load(mixed(published.weights, changed, share))
        right[f"{share:g} of the tuned layers, with the glossary"] = validate(model, ids, unseen, seen)
    print(json.dumps(right, indent=1), flush=True)
    save_checkpoint(arguments.out, tuned, mixed(published.weights, changed, arguments.share))
    result = {
        "intents": {"trained": len(seen.intents), "held_out": len(unseen.intents)},
        "capabilities": {"trained": len(seen.targets), "held_out": len(unseen.targets)},
        "share": arguments.share,
        "right_on_held_out": right,
        "weights_sha256": read_checkpoint(arguments.out).sha256,
        "run": json.loads((arguments.tuned / "log.json").read_text("utf-8")),
    }
    RESULT.write_text(json.dumps(result) + "\n", "utf-8")


if __name__ == "__main__":
    main()
