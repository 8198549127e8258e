"""Words of other languages for an encoder that was taught English.

The published vocabulary knows few foreign words and takes the others apart into pieces that mean nothing to it. Here
each word of `data/glossary.txt` becomes a token of its own, and its embedding is that of the English words before it:
what follows in the layers reads a foreign text word for word, as one with a dictionary would, and the fine-tuning
teaches it to make sense of that. Fewer tokens also make such texts quicker to read.

Long words are added without their ending too, and in the form for the middle of a word, which serves other endings and
compounds. Pieces that would split an English word otherwise than before are left out again.

Format of the file: `English words = words of any other languages`.
"""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.encoder.corpus import DATA
from tools.encoder.weights import Checkpoint

WORDS = "embeddings.word_embeddings.weight"
ENDINGS = ("are", "ere", "ire", "en", "er", "es", "ar", "ir", "em", "e", "a", "o", "s", "i", "t")
LEAST_STEM, LEAST_MIDDLE = 5, 5  # letters; shorter ones are found in too many words
ENGLISH = frozenset(
    ["the", "is", "to", "of", "in", "my", "for", "what", "and", "it", "this", "that", "with", "on", "can", "how"]
)
LEAST_ENGLISH = 2  # such words make a text English


def extended(checkpoint: Checkpoint, folder: Path = DATA) -> Checkpoint:
    """The checkpoint with the words of `glossary.txt`, if it has not got them yet."""
    tokenizer = Tokenizer.from_str(json.dumps(checkpoint.tokenizer))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    meanings = _meanings(tokenizer, folder / "glossary.txt")
    english = _english_words(tokenizer, folder) - meanings.keys()
    while spoilt := _spoilt(tokenizer, checkpoint, meanings, english):
        meanings = {piece: glosses for piece, glosses in meanings.items() if piece not in spoilt}
    if not meanings:
        return checkpoint
    table = checkpoint.weights[WORDS]
    usual = float(np.linalg.norm(table, axis=1).mean())
    rows = [_embedding(tokenizer, table, glosses, usual) for glosses in meanings.values()]
    return replace(
        checkpoint,
        weights=checkpoint.weights | {WORDS: np.vstack([table, *rows]).astype(np.float32)},
        tokenizer=_with_words(checkpoint, meanings),
        config=checkpoint.config | {"vocab_size": len(table) + len(rows)},
    )


def _meanings(tokenizer: Tokenizer, path: Path) -> dict[str, set[str]]:
    """New pieces, each with the English words that it stands for."""
    exact: defaultdict[str, set[str]] = defaultdict(set)
    derived: defaultdict[str, set[str]] = defaultdict(set)
    for line in path.read_text("utf-8").splitlines():
        gloss, _, words = line.partition("=")
        for written in words.split():
            word = _normal(tokenizer, written)
            if word:
                exact[word].add(gloss.strip())
                for piece in _derived(word):
                    derived[piece].add(gloss.strip())
    known = tokenizer.get_vocab()
    return {piece: glosses for piece, glosses in sorted((derived | exact).items()) if piece not in known}


def _normal(tokenizer: Tokenizer, written: str) -> str:
    """The word as the tokenizer sees it; "" for what it takes for several."""
    parts = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(written))
    return parts[0][0] if len(parts) == 1 else ""


def _derived(word: str) -> Iterable[str]:
    stems = {word[: -len(ending)] for ending in ENDINGS if word.endswith(ending)}
    stems = {stem for stem in stems if len(stem) >= LEAST_STEM}
    yield from stems
    if word.isascii() and len(word) >= LEAST_MIDDLE:
        yield f"##{word}"


def _english_words(tokenizer: Tokenizer, folder: Path) -> set[str]:
    """All words of the corpus's English texts."""
    words: set[str] = set()
    for path in sorted(folder.glob("*.json*")):
        for text in re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text("utf-8")):
            found = re.findall(r"[a-z]+", text.lower())
            if text.isascii() and len(ENGLISH & set(found)) >= LEAST_ENGLISH:
                words.update(found)
    return words


def _spoilt(
    tokenizer: Tokenizer, checkpoint: Checkpoint, meanings: Mapping[str, object], english: set[str]
) -> set[str]:
    """New pieces that occur in an English word."""
    wider = Tokenizer.from_str(json.dumps(_with_words(checkpoint, meanings)))
    wider.no_padding()
    wider.no_truncation()
    several = [word for word in english if len(tokenizer.encode(word, add_special_tokens=False).ids) > 1]
    return {
        token for word in several for token in wider.encode(word, add_special_tokens=False).tokens if token in meanings
    }


def _with_words(checkpoint: Checkpoint, meanings: Iterable[str]) -> dict[str, Any]:
    content: dict[str, Any] = copy.deepcopy(checkpoint.tokenizer)
    vocabulary = content["model"]["vocab"]
    start = len(vocabulary)
    vocabulary |= {piece: start + at for at, piece in enumerate(meanings)}
    return content


def _embedding(
    tokenizer: Tokenizer, table: NDArray[np.float32], glosses: set[str], usual: float
) -> NDArray[np.float64]:
    """The mean over the English words, as long as embeddings usually are."""
    ids = [id_ for gloss in sorted(glosses) for id_ in tokenizer.encode(gloss, add_special_tokens=False).ids]
    mean = table[ids].astype(np.float64).mean(axis=0)
    return np.asarray(mean * usual / np.linalg.norm(mean))
