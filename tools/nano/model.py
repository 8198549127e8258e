"""The network: a llama-architecture decoder, small enough to train on a CPU.

RMS norm before each part, rotary positions, grouped-query attention, SwiGLU, embeddings tied to the output. Positions
rotate neighbouring pairs of a head's values (0,1), (2,3), ...: that is how llama.cpp stores the `llama` architecture,
so that weights go into the GGUF without a permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = -1e4  # added to the score of a later token: its weight is then exactly 0, in bfloat16 as well


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. All widths are multiples of 32, the block of Q8_0."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 4
    heads: int = 8
    kv_heads: int = 4
    hidden: int = 640
    context: int = 1024
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def rotation(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions: each (length, head_width / 2) float32."""
    steps = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = torch.outer(torch.arange(length, dtype=torch.float32), shape.rope_base**-steps)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of x: (batch, heads, length, head_width)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.kv_heads * shape.head_width
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv, bias=False)
        self.attn_v = nn.Linear(shape.width, kv, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.ffn_down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attn_norm(x), cos, sin)
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        s = self.shape
        q = self.attn_q(x).view(batch, length, s.heads, s.head_width).transpose(1, 2)
        k = self.attn_k(x).view(batch, length, s.kv_heads, s.head_width).transpose(1, 2)
        v = self.attn_v(x).view(batch, length, s.kv_heads, s.head_width).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        groups = s.heads // s.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        # Written out: at these lengths torch's fused attention is four times slower on a CPU (measured, see README).
        scores = (q @ k.transpose(-1, -2)) * s.head_width**-0.5
        hidden = torch.full((length, length), HIDDEN, dtype=scores.dtype).triu(1)
        mixed = (scores + hidden).softmax(dim=-1).to(v.dtype) @ v
        return self.attn_output(mixed.transpose(1, 2).reshape(batch, length, s.width))


class Nano(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.shape.width**-0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def hidden(self, ids: Tensor) -> Tensor:
        """ids (batch, length) int64 -> states before the output layer (batch, length, width)."""
        cos, sin = rotation(self.shape, ids.shape[1])
        x = self.token_embd(ids)
        for block in self.blk:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (batch, length) int64 -> logits (batch, length, vocabulary)."""
        return self.hidden(ids) @ self.token_embd.weight.T

    def parameters_total(self) -> int:
        return sum(p.numel() for p in self.parameters())
