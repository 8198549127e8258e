"""Train the byte-level BPE tokenizer on the corpus.

Text is split by the expression that llama.cpp calls `qwen2` (digits stand alone), so that both split alike; within a
split, byte pairs are merged. Run: `python -m tools.nano.vocabulary`.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.nano.chat import SPECIAL
from tools.nano.corpus.stream import Stream, all_facts

BUILD = Path(__file__).parent / "build"
VOCABULARY = 2048  # keeps embeddings at a sixth of the parameters
SEED = 11
SAMPLE = 30_000  # conversations
PRE_TOKENIZER = "qwen2"
SPLIT = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sample() -> list[str]:
    """Texts to learn merges from: drawn conversations, and every answer once more."""
    drawn = [f"{role}\n{text}\n" for c in islice(Stream(SEED).conversations(), SAMPLE) for role, text in c]
    return drawn + [f.answer for f in all_facts()]


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    return tokenizer


def main() -> None:
    BUILD.mkdir(exist_ok=True)
    tokenizer = train()
    tokenizer.save(str(BUILD / "tokenizer.json"))
    print(f"tokenizer: {tokenizer.get_vocab_size()} tokens -> build/tokenizer.json")


if __name__ == "__main__":
    main()
