"""How llama-cpp-python's engine chooses the next token: llama.cpp's samplers in the order in which its server has them.

Theory of operation. The chain is: biases, penalties, top_k, top_p, min_p, temperature, a draw. A grammar is slow over a
whole vocabulary, so a token is drawn without it first; only if the grammar does not take that one it is applied to all
and the draw is repeated (llama.cpp, common/sampling.cpp does the same, so equal seeds draw alike in both engines).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from atmo.generation import Sampling, TokenScore
from atmo.inference.engines.chats import PENALTY_TOKENS

_ANY_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED: drawn at random
_TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Sampler:
    """Chooses the tokens of one answer. prompt: tokens that penalties count as well.

    Raises ValueError when llama.cpp does not take the grammar. Not for use by two threads at once.
    """

    def __init__(self, vocabulary: Any, sampling: Sampling, grammar: str, prompt: Sequence[int]) -> None:
        self._size = int(llama_cpp.llama_vocab_n_tokens(vocabulary))
        self._grammar: Any = None
        if grammar:
            self._grammar = llama_cpp.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
            if not self._grammar:
                raise ValueError("llama.cpp does not take the grammar")
        self._chain = _chain(self._size, sampling)
        if sampling.presence_penalty or sampling.frequency_penalty:
            for token in prompt:
                llama_cpp.llama_sampler_accept(self._chain, token)

    def next(self, context: Any, row: int) -> int:
        """The token for a row of the batch that was computed."""
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context, row))
        logits = logits_of(context, row, self._size)
        token = self._drawn(logits, held=False)
        if not self._allowed(token):
            token = self._drawn(logits, held=True)
        llama_cpp.llama_sampler_accept(self._chain, token)
        llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def free(self) -> None:
        llama_cpp.llama_sampler_free(self._chain)
        if self._grammar is not None:
            llama_cpp.llama_sampler_free(self._grammar)

    def _drawn(self, logits: NDArray[np.float32], *, held: bool) -> int:
        tokens = np.zeros(self._size, _TOKEN)
        tokens["id"], tokens["logit"] = np.arange(self._size), logits
        array = _array(tokens)
        if held:
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allowed(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], _TOKEN)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(_array(one)))
        return bool(np.isfinite(one["logit"][0]))


def _array(tokens: NDArray[Any]) -> Any:
    pointer = tokens.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    return llama_cpp.llama_token_data_array(data=pointer, size=len(tokens), selected=-1, sorted=False)


def _chain(size: int, sampling: Sampling) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for part in _parts(size, sampling):
        llama_cpp.llama_sampler_chain_add(chain, part)
    return chain


def _parts(size: int, sampling: Sampling) -> list[Any]:
    parts: list[Any] = []
    if sampling.logit_bias:
        biases = [(token, bias) for token, bias in sampling.logit_bias if token < size]
        array = (llama_cpp.llama_logit_bias * len(biases))(*(llama_cpp.llama_logit_bias(*pair) for pair in biases))
        parts.append(llama_cpp.llama_sampler_init_logit_bias(size, len(biases), array))
    if sampling.presence_penalty or sampling.frequency_penalty:
        penalties = (sampling.frequency_penalty, sampling.presence_penalty)
        parts.append(llama_cpp.llama_sampler_init_penalties(size, PENALTY_TOKENS, 1.0, *penalties))
    if sampling.temperature <= 0:
        return [*parts, llama_cpp.llama_sampler_init_greedy()]
    seed = _ANY_SEED if sampling.seed < 0 else sampling.seed & 0xFFFFFFFF
    return [
        *parts,
        llama_cpp.llama_sampler_init_top_k(sampling.top_k),
        llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1),
        llama_cpp.llama_sampler_init_temp(sampling.temperature),
        llama_cpp.llama_sampler_init_dist(seed),
    ]


def logits_of(context: Any, row: int, size: int) -> NDArray[np.float32]:
    """(size,) of a row of the batch that was computed; a copy."""
    pointer = llama_cpp.llama_get_logits_ith(context, row)
    return np.array(np.ctypeslib.as_array(pointer, (size,)))


def score(logits: NDArray[np.float32], token: int, count: int, text_of: Callable[[int], str]) -> TokenScore:
    """A token's log probability before any sampler changed it, and the `count` likeliest. Its text is left empty."""
    wide = logits.astype(np.float64)
    peak = float(wide.max())
    log_total = peak + float(np.log(np.exp(wide - peak).sum()))
    likeliest = np.argpartition(-wide, count)[:count] if count < len(wide) else np.arange(len(wide))
    likeliest = likeliest[np.argsort(-wide[likeliest], kind="stable")]
    top = tuple((text_of(int(each)), min(0.0, float(wide[each]) - log_total)) for each in likeliest)
    return TokenScore("", min(0.0, float(wide[token]) - log_total), top)
