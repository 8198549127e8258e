"""The encoder in PyTorch, for training only: BERT by the checkpoint's own tensor names, mean over tokens, length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.encoder.weights import Checkpoint, Weights

CHUNK = 24  # texts that run together, of like length; measured: larger chunks waste more on padding than they save


class Bert(torch.nn.Module):
    """frozen: that many of the lowest layers keep their published weights, and so do all embeddings."""

    def __init__(self, checkpoint: Checkpoint, frozen: int = 0) -> None:
        super().__init__()
        self.layers, self.heads, self.epsilon = checkpoint.layers, checkpoint.heads, checkpoint.epsilon
        self.frozen = frozen
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self.tensors = torch.nn.ParameterDict()
        self._trained: list[str] = []
        for name, array in checkpoint.weights.items():
            if "pooler" in name:
                continue
            learns = name.startswith("encoder.layer.") and int(name.split(".")[2]) >= frozen
            self.tensors[_key(name)] = torch.nn.Parameter(torch.tensor(array), requires_grad=learns)
            if learns:
                self._trained.append(name)

    def trained(self) -> Weights:
        """The tensors that training changes, by their published names."""
        return {name: self.tensors[_key(name)].detach().numpy() for name in self._trained}

    def load(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, array in weights.items():
                self.tensors[_key(name)].copy_(torch.tensor(np.asarray(array)))

    def forward(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Token ids of several texts -> (texts, 384) of length 1."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        rows = [self._encode([texts[row] for row in order[at : at + CHUNK]]) for at in range(0, len(order), CHUNK)]
        return torch.cat(rows)[torch.argsort(torch.tensor(order))]

    def _encode(self, texts: list[Sequence[int]]) -> Tensor:
        longest = max(map(len, texts))
        real = torch.arange(longest) < torch.tensor([len(text) for text in texts])[:, None]  # (texts, longest)
        mask = torch.zeros(len(texts), 1, 1, longest).masked_fill(~real[:, None, None], -1e9)
        x = self._lower(texts, longest, mask)
        for layer in range(self.frozen, self.layers):
            x = self._layer(x, mask, f"encoder.layer.{layer}")
        mean = (x.float() * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return F.normalize(mean, dim=-1)

    @torch.no_grad()
    def _lower(self, texts: list[Sequence[int]], longest: int, mask: Tensor) -> Tensor:
        """What enters the first layer that learns, (texts, longest, 384). Kept per text, as it never changes."""
        if any(tuple(text) not in self._kept for text in texts):
            ids = torch.zeros(len(texts), longest, dtype=torch.long)
            for row, text in enumerate(texts):
                ids[row, : len(text)] = torch.tensor(text)
            x = F.embedding(ids, self._of("embeddings.word_embeddings.weight"))
            x = x + self._of("embeddings.position_embeddings.weight")[:longest]
            x = self._norm(x + self._of("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
            for layer in range(self.frozen):
                x = self._layer(x, mask, f"encoder.layer.{layer}")
            if self.frozen:
                self._kept |= {tuple(text): x[row, : len(text)].half() for row, text in enumerate(texts)}
            return x
        x = torch.zeros(len(texts), longest, self._of("embeddings.LayerNorm.weight").numel())
        for row, text in enumerate(texts):
            x[row, : len(text)] = self._kept[tuple(text)]
        return x

    def _layer(self, x: Tensor, mask: Tensor, prefix: str) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            self._linear(x, f"{prefix}.attention.self.{part}").view(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, width)
        x = self._norm(
            x + self._linear(mixed, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm"
        )
        inner = F.gelu(self._linear(x, f"{prefix}.intermediate.dense"), approximate="tanh")
        return self._norm(x + self._linear(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._of(f"{name}.weight"), self._of(f"{name}.bias"), self.epsilon)

    def _of(self, name: str) -> Tensor:
        return self.tensors[_key(name)]


def _key(name: str) -> str:
    """A parameter's name may hold no dots."""
    return name.replace(".", "/")
