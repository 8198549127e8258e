"""The encoder in PyTorch, for training only: BERT by the checkpoint's own tensor names, mean over tokens, length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from atmo.mesh.views import READ_WIDTH
from tools.encoder.weights import READ, Checkpoint, Weights

CHUNK = 16  # texts that run together, of like length; measured: larger chunks waste more on padding than they save
DROPOUT = 0.1  # as BERT was trained with


@dataclass(frozen=True)
class Texts:
    """Several texts, encoded. vectors: (texts, 384) of length 1; tokens: (texts, longest, READ_WIDTH), each of length
    1, or 0 beyond a text's end; shares: (texts, longest), how much each token counts, together 1."""

    vectors: Tensor
    tokens: Tensor
    shares: Tensor

    def of(self, start: int, stop: int) -> Texts:
        return Texts(self.vectors[start:stop], self.tokens[start:stop], self.shares[start:stop])


def read(asked: Texts, offered: Texts) -> Tensor:
    """(asked, offered): each token of the one finds its nearest of the other, and what they find is averaged."""
    found = torch.einsum("atw,obw->atob", asked.tokens, offered.tokens)
    found = found.masked_fill(~offered.tokens.detach().any(dim=-1), -1.0).amax(dim=-1)
    return (found * asked.shares[..., None]).sum(dim=1)


class Bert(torch.nn.Module):
    """All layers learn, the embeddings keep their published weights. `read.weight` is the head of the second reading:
    READ_WIDTH rows for a token's vector and one for how much it counts."""

    def __init__(self, checkpoint: Checkpoint, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.layers, self.heads, self.epsilon = checkpoint.layers, checkpoint.heads, checkpoint.epsilon
        self.dropout = dropout
        self.tensors = torch.nn.ParameterDict()
        for name, array in checkpoint.weights.items():
            if "pooler" not in name:
                learns = name.startswith(("encoder.layer.", "read."))
                self.tensors[_key(name)] = torch.nn.Parameter(torch.tensor(array), requires_grad=learns)
        if _key(READ) not in self.tensors:
            self.tensors[_key(READ)] = torch.nn.Parameter(_first_head(checkpoint))

    def trained(self) -> Weights:
        """The tensors that training changes, by their published names."""
        return {
            key.replace("/", "."): tensor.detach().numpy()
            for key, tensor in self.tensors.items()
            if tensor.requires_grad
        }

    def load(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, array in weights.items():
                self.tensors[_key(name)].copy_(torch.tensor(np.asarray(array)))

    def forward(self, texts: Sequence[Sequence[int]]) -> Texts:
        """Token ids of several texts."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        longest = max(map(len, texts))
        vectors, tokens, shares = [], [], []
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training):
            parts = [self._encode([texts[row] for row in order[at : at + CHUNK]]) for at in range(0, len(order), CHUNK)]
        for part in parts:
            short = longest - part.tokens.shape[1]
            vectors.append(part.vectors)
            tokens.append(F.pad(part.tokens, (0, 0, 0, short)))
            shares.append(F.pad(part.shares, (0, short)))
        back = torch.argsort(torch.tensor(order))
        return Texts(torch.cat(vectors)[back], torch.cat(tokens)[back], torch.cat(shares)[back])

    def _encode(self, texts: list[Sequence[int]]) -> Texts:
        longest = max(map(len, texts))
        real = torch.arange(longest) < torch.tensor([len(text) for text in texts])[:, None]  # (texts, longest)
        mask = torch.zeros(len(texts), 1, 1, longest).masked_fill(~real[:, None, None], -1e9)
        x = self._embedded(texts, longest)
        for layer in range(self.layers):
            x = self._layer(x, mask, f"encoder.layer.{layer}")
        x = x.float()
        mean = (x * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        with torch.autocast("cpu", enabled=False):
            head = F.linear(x, self._of(READ))
        tokens = F.normalize(head[..., :READ_WIDTH], dim=-1) * real[..., None]
        shares = head[..., READ_WIDTH].masked_fill(~real, -1e9).softmax(dim=-1)
        return Texts(F.normalize(mean, dim=-1), tokens, shares)

    def _embedded(self, texts: list[Sequence[int]], longest: int) -> Tensor:
        ids = torch.zeros(len(texts), longest, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
        x = F.embedding(ids, self._of("embeddings.word_embeddings.weight"))
        x = x + self._of("embeddings.position_embeddings.weight")[:longest]
        x = self._norm(x + self._of("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
        return F.dropout(x, self.dropout, self.training)

    def _layer(self, x: Tensor, mask: Tensor, prefix: str) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            self._linear(x, f"{prefix}.attention.self.{part}").view(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        # Written out: the backward pass of PyTorch's own is five times slower in bfloat16.
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask.to(query.dtype)
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = self._added(x, mixed, f"{prefix}.attention.output")
        inner = F.gelu(self._linear(x, f"{prefix}.intermediate.dense"), approximate="tanh")
        return self._added(x, inner, f"{prefix}.output")

    def _added(self, x: Tensor, inner: Tensor, name: str) -> Tensor:
        more = F.dropout(self._linear(inner, f"{name}.dense"), self.dropout, self.training)
        return self._norm(x + more, f"{name}.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._of(f"{name}.weight"), self._of(f"{name}.bias"), self.epsilon)

    def _of(self, name: str) -> Tensor:
        return self.tensors[_key(name)]


def _first_head(checkpoint: Checkpoint) -> Tensor:
    """Random directions, which keep angles between tokens about as they are (Johnson and Lindenstrauss 1984); all
    tokens count alike."""
    width = checkpoint.weights["embeddings.LayerNorm.weight"].size
    directions = torch.nn.init.orthogonal_(torch.empty(READ_WIDTH, width))
    return torch.cat([directions, torch.zeros(1, width)])


def _key(name: str) -> str:
    """A parameter's name may hold no dots."""
    return name.replace(".", "/")
