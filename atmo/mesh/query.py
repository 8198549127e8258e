"""A request as routing sees it: its meaning, its size and its conditions, not its text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atmo.ids import PeerId
from atmo.mesh.capability import EMBEDDING_DIM
from atmo.mesh.constraints import NO_CONDITIONS, Constraints


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is to be routed.

    vector: (384,) float32 of unit length, or None where the text does not matter (a pinned model or type); tokens: for
    the second reading (views.py), (n, width) float32, each token's unit vector times its share, or None for none;
    prompt_tokens, expected_output_tokens: the size, also checked against the context; exclude: peers that were tried
    for this request; local: this node; root: of the model that shall go on with what it began, empty for any.
    Raises ValueError for a vector of another shape or with NaN.
    """

    local: PeerId
    vector: NDArray[np.float32] | None = None
    prompt_tokens: int = 0
    expected_output_tokens: int = 128
    constraints: Constraints = NO_CONDITIONS
    exclude: frozenset[PeerId] = frozenset()
    root: str = ""
    tokens: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.vector is not None and (self.vector.shape != (EMBEDDING_DIM,) or not np.isfinite(self.vector).all()):
            raise ValueError(f"a query vector is ({EMBEDDING_DIM},) and finite, not {self.vector.shape}")
