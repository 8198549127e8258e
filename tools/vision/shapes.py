"""Draws pictures of coloured shapes, as many as are wanted, the same for the same seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 48  # pixels
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "yellow": (0.95, 0.85, 0.10),
    "green": (0.12, 0.66, 0.20),
    "blue": (0.13, 0.27, 0.86),
    "purple": (0.58, 0.16, 0.70),
    "white": (0.96, 0.96, 0.96),
}
LABELS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
_FINER = 2  # drawn at twice the size and averaged: smooth edges


def draw(label: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """(SIDE, SIDE, 3) float32, 0 to 1."""
    colour, shape = label.split()
    mask = _mask(shape, rng)[..., None]
    shade = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.8, 1.1) + rng.normal(0, 0.03, 3), 0, 1)
    picture = mask * shade + (1 - mask) * _ground(rng, shade)
    noisy = picture + rng.normal(0, rng.uniform(0, 0.06), picture.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def _mask(shape: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """(SIDE, SIDE), 1 inside the shape."""
    fine = SIDE * _FINER
    size = rng.uniform(0.22, 0.42) * fine
    x0, y0 = rng.uniform(size, fine - size, 2)
    y, x = np.mgrid[0:fine, 0:fine] + 0.5
    angle = rng.uniform(0, 2 * np.pi)
    u = ((x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)) / size
    v = (-(x - x0) * np.sin(angle) + (y - y0) * np.cos(angle)) / size
    inside = {
        "circle": u**2 + v**2 < 0.81,
        "square": np.maximum(abs(u), abs(v)) < 0.7,
        "triangle": (v > -0.5) & (v < 1 - np.sqrt(3) * abs(u)),
        "cross": (np.minimum(abs(u), abs(v)) < 0.25) & (np.maximum(abs(u), abs(v)) < 0.9),
    }[shape]
    return inside.reshape(SIDE, _FINER, SIDE, _FINER).mean((1, 3))


def _ground(rng: np.random.Generator, shade: NDArray[np.float64]) -> NDArray[np.float64]:
    """(SIDE, SIDE, 3): a plain or shaded ground that can be told from the shape's shade."""
    while True:
        ends = rng.uniform(0, 1, (2, 3)) * rng.uniform(0.2, 1.0)
        if min(np.abs(end - shade).sum() for end in ends) > 0.6:
            break
    ramp = np.linspace(0, 1, SIDE)[:, None, None] if rng.random() < 0.5 else np.zeros((SIDE, 1, 1))
    ground = ends[0] * (1 - ramp) + ends[1] * ramp
    return np.broadcast_to(ground, (SIDE, SIDE, 3))


def pictures(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(count, 3, SIDE, SIDE) float32 and the indices (count,) of their labels, all labels alike often."""
    rng = np.random.default_rng(seed)
    chosen = np.arange(count) % len(LABELS)
    drawn = np.stack([draw(LABELS[index], rng) for index in chosen])
    return np.ascontiguousarray(drawn.transpose(0, 3, 1, 2)), chosen
