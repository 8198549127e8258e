"""Mixes fine-tuned weights with the published ones; writes the checkpoint to export and `results/train.json`.

    python -m tools.encoder.mix WEIGHTS TUNED [TUNED ...] --share 0.7 --out FOLDER

WEIGHTS are the published ones, TUNED the folders that `train.py` wrote, in the order in which one began from the other;
the last one is mixed. The result says how the published, the tuned and the mixed weights do on the capabilities that
training never saw, each against these alone and against all, by the whole text alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from tools.encoder.bert import Bert
from tools.encoder.corpus import read_corpus
from tools.encoder.train import Ids, mixed, validate
from tools.encoder.weights import read_checkpoint, save_checkpoint

RESULT = Path(__file__).parent / "results" / "train.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("tuned", type=Path, nargs="+")
    parser.add_argument("--share", type=float, required=True, help="of the tuned weights, 0 to 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    published, tuned = read_checkpoint(arguments.weights), read_checkpoint(arguments.tuned[-1])
    changed = {name: array for name, array in tuned.weights.items() if "pooler" not in name}
    corpus, ids, model = read_corpus(), Ids(published), Bert(published)
    seen, unseen = corpus.part(held_out=False), corpus.part(held_out=True)
    right = {}
    for share in sorted({0.0, arguments.share, 1.0}):
        model.load(mixed(published.weights, changed, share))
        right[f"{share:g} of the tuned weights"] = validate(model, ids, unseen, seen)
        print(share, json.dumps(right[f"{share:g} of the tuned weights"]), flush=True)
    save_checkpoint(arguments.out, published, mixed(published.weights, changed, arguments.share))
    result = {
        "intents": {"trained": len(seen.intents), "held_out": len(unseen.intents)},
        "capabilities": {"trained": len(seen.targets), "held_out": len(unseen.targets)},
        "share": arguments.share,
        "right_on_held_out": right,
        "weights_sha256": read_checkpoint(arguments.out).sha256,
        "runs": [json.loads((folder / "log.json").read_text("utf-8")) for folder in arguments.tuned],
    }
    RESULT.write_text(json.dumps(result) + "\n", "utf-8")


if __name__ == "__main__":
    main()
