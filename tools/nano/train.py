"""Train atmo-nano on the CPU: `python -m tools.nano.train`.

Conversations are drawn from the seeded stream, sorted by length into batches of about equal tokens, and learned on the
answers only. Muon and AdamW share a learning rate that warms up, stays, and falls to zero over the last third of the
steps. It follows the steps, not the clock, so that the run depends on its seed alone (up to the order of additions in
the threads of torch). A run that was broken off goes on with `--resume`; while the rate is constant, `--steps` may then
be changed, and the outcome is that of one run with the last value.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from tools.nano.chat import encode
from tools.nano.corpus.stream import Stream
from tools.nano.model import Nano, Shape
from tools.nano.vocabulary import BUILD

RESULTS = Path(__file__).parent / "results"
SEED = 7
THREADS = 2
WARM_UP = 100  # steps; a guess
FALLING = 0.35  # of the steps; a guess
POOL = 2048  # conversations sorted together: long enough for even batches, short enough to stay mixed


Encoded = tuple[list[int], list[float]]  # token ids, their weights in the loss


def batches(tokenizer: Tokenizer, seed: int, tokens: int, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (rows, length) int64 and weights (rows, length) float32, rows * length <= tokens; for ever."""
    stream, rng = Stream(seed).conversations(), random.Random(seed)
    while True:
        pool = [encode(tokenizer, next(stream)) for _ in range(POOL)]
        pool = sorted((p for p in pool if len(p[0]) <= context), key=lambda p: len(p[0]))
        groups: list[list[Encoded]] = [[]]
        for item in pool:
            if (len(groups[-1]) + 1) * len(item[0]) > tokens:
                groups.append([])
            groups[-1].append(item)
        rng.shuffle(groups)
        yield from (_tensors(g) for g in groups)


def _tensors(group: list[Encoded]) -> tuple[Tensor, Tensor]:
    length = max(len(ids) for ids, _ in group)
    ids, weights = torch.zeros(len(group), length, dtype=torch.int64), torch.zeros(len(group), length)
    for row, (tokens, counts) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(tokens)] = torch.tensor(counts)
    return ids, weights


def loss_of(model: Nano, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy; the output layer runs on the places that count alone."""
    places = weights[:, 1:] > 0  # (rows, length - 1): the place before a token that counts
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = model.hidden(ids)[:, :-1][places]
        logits = states @ model.token_embd.weight.T
    each = F.cross_entropy(logits.float(), ids[:, 1:][places], reduction="none")
    counts = weights[:, 1:][places]
    return (each * counts).sum() / counts.sum()


def rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, then constant, then over the last part linear to zero."""
    falling = (steps - step) / max(1, steps * FALLING)
    return peak * min(1.0, (step + 1) / WARM_UP, falling)


def optimisers(model: Nano) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms.

    Muon (K. Jordan, 2024) makes each step of a matrix orthogonal. Here it reached a given loss in 0.6 of AdamW's steps.
    """
    named = list(model.named_parameters())
    matrices = [p for n, p in named if p.ndim > 1 and not n.startswith("token_embd")]
    rest = [p for n, p in named if p.ndim == 1 or n.startswith("token_embd")]
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0),
    ]


class Log:
    """Lines to the screen and to the log file: what runs, and every fiftieth step."""

    def __init__(self, path: Path, fresh: bool = True) -> None:
        self._path = path
        if fresh:
            self._path.write_text("", encoding="utf-8")
        self._began = time.monotonic()
        self._mean = 0.0
        self._tokens = 0

    def say(self, line: str) -> None:
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as out:
            out.write(line + "\n")

    def step(self, step: int, last: bool, loss: float, lr: float, tokens: int) -> None:
        self._tokens += tokens
        self._mean = loss if self._mean == 0.0 else 0.98 * self._mean + 0.02 * loss
        if step % 50 and not last:
            return
        spent = time.monotonic() - self._began
        pace = f"tokens {self._tokens}  {self._tokens / spent:.0f} tokens/s  {spent:.0f} s"
        self.say(f"step {step:6d}  loss {self._mean:.4f}  rate {lr:.2e}  {pace}")


def train(steps: int, tokens: int, peak: float, log: Log, resume: bool) -> Nano:
    """One run of so many steps of at most `tokens` tokens; the checkpoint is written on the way and at the end."""
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.from_file(str(BUILD / "tokenizer.json"))
    model = Nano(Shape(vocabulary=tokenizer.get_vocab_size()))
    optimise = optimisers(model)
    first = load_state(model, optimise) if resume else 0
    log.say(f"atmo-nano: {model.parameters_total()} parameters, {asdict(model.shape)}")
    log.say(f"seed {SEED}, steps {first} to {steps} of {tokens} tokens, peak rate {peak}, torch {torch.__version__}")
    drawn = enumerate(batches(tokenizer, SEED, tokens, model.shape.context))
    for step, (ids, weights) in islice(drawn, first, steps):
        lr = rate(step, steps, peak)
        loss = loss_of(model, ids, weights)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        move(optimise, lr)
        log.step(step, step == steps - 1, loss.item(), lr, ids.numel())
        if step % 200 == 199 or step == steps - 1:
            save(model, optimise, step + 1)
    return model


def move(optimise: list[torch.optim.Optimizer], lr: float) -> None:
    for each in optimise:
        for group in each.param_groups:
            group["lr"] = lr
        each.step()


def save(model: Nano, optimise: list[torch.optim.Optimizer], step: int) -> None:
    """Write the checkpoint whole or not at all."""
    states = [each.state_dict() for each in optimise]
    kept = {"shape": asdict(model.shape), "weights": model.state_dict(), "optimisers": states, "step": step}
    torch.save(kept, BUILD / "model.tmp")
    (BUILD / "model.tmp").replace(BUILD / "model.pt")


def load_state(model: Nano, optimise: list[torch.optim.Optimizer]) -> int:
    """Fill the model and the optimisers from the checkpoint; the step to go on with."""
    kept = torch.load(BUILD / "model.pt", weights_only=True)
    model.load_state_dict(kept["weights"])
    for each, state in zip(optimise, kept["optimisers"], strict=True):
        each.load_state_dict(state)
    return int(kept["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a batch, padding included")
    parser.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--log", type=Path, default=RESULTS / "training.log")
    parser.add_argument("--resume", action="store_true", help="go on from build/model.pt")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    torch.set_num_threads(THREADS)
    train(args.steps, args.tokens, args.rate, Log(args.log, fresh=not args.resume), args.resume)


if __name__ == "__main__":
    main()
