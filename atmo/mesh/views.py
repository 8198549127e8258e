"""How a capability's texts become its vectors, and how relevance is read from them.

A capability is published as a few unit vectors ("views"): its description and examples as one text ("whole"), the
centre of its examples, each example. For a request's unit vector q the relevance of a capability is

    first reading = 0.4 * (whole . q) + 0.2 * (centre . q) + 0.4 * max over views (view . q)

and, where there are no examples, whole . q. The first two parts are linear in q, so for all classes together they
are one matrix product (`coarse_vector`); the maximum is read for the best few classes only.

These few are read a second time, token by token (late interaction; Khattab and Zaharia 2020, "ColBERT"). For each token
of the request a unit vector t_i and a share s_i say what it is about and how much it counts, and so do unit vectors c_j
for the tokens of the capability's whole text, which are not published: whoever reads computes them from the text.

    found          = max over j (t_i . c_j)                    of each token, in each of the classes
    w_i            = s_i * standard deviation of found over the classes, then divided so that they make 1
    second reading = sum over i of w_i * found
    relevance      = 0.5 * first reading + 0.5 * second reading

So a token counts the more the further the classes lie apart in it: that all of them know "today" says nothing about
which is meant. A class alone, or several that agree in every token, are read by s_i as it is. Where a node lacks token
vectors, the first one counts alone.

Origin of the weights: intents and capabilities that the encoder was not trained on, half of them misleading on purpose;
docs/routing.md says how each part does alone. Other mixtures do as well within chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from atmo.mesh.capability import EMBEDDING_DIM, MAX_VIEWS

Vector = NDArray[np.float32]

WHOLE_WEIGHT, CENTRE_WEIGHT, BEST_WEIGHT = 0.4, 0.2, 0.4  # measured, see above
READ_WIDTH = 128  # of a token's vector
SECOND_WEIGHT = 0.5  # of the second reading; measured
LEAST_SPREAD = 1e-6  # of all tokens together; below it is rounding


def capability_text(description: str, examples: Sequence[str]) -> str:
    """A capability as one text, as the encoder was trained to read it."""
    return "\n".join([description, *examples])


def views_of(description: str, examples: Sequence[str], encode: Callable[[str], Vector]) -> tuple[bytes, ...]:
    """The views that a capability publishes. encode: text to a vector of length 1, (384,) float32."""
    return build_views(encode(capability_text(description, examples)), [encode(example) for example in examples])


def build_views(whole: Vector, examples: Sequence[Vector]) -> tuple[bytes, ...]:
    """Views to publish: the whole text, the centre of the examples, then the examples, int8, at most MAX_VIEWS.

    whole, examples: (384,) float32 of any positive length. Raises ValueError for a wrong shape or a zero vector.
    """
    units = [_unit(vector) for vector in examples]
    if not units:
        return (quantise(_unit(whole)),)
    centre = _unit(np.mean(units, axis=0))
    chosen = [_unit(whole), centre, *units]
    return tuple(quantise(vector) for vector in chosen[:MAX_VIEWS])


def quantise(unit: Vector) -> bytes:
    """int8 (384,), value = round(127 x component)."""
    raw: bytes = np.clip(np.rint(unit * 127.0), -127, 127).astype(np.int8).tobytes()
    return raw


def coarse_vector(views: NDArray[np.float32]) -> Vector:
    """(384,) float32: the linear part of relevance. views: (n_views, 384), whole text first, centre second."""
    if len(views) == 1:
        linear: Vector = np.float32(WHOLE_WEIGHT + CENTRE_WEIGHT) * views[0]
    else:
        linear = np.float32(WHOLE_WEIGHT) * views[0] + np.float32(CENTRE_WEIGHT) * views[1]
    return linear


def first_reading(views: NDArray[np.float32], starts: NDArray[np.intp], linear: Vector, query: Vector) -> Vector:
    """Of several classes at once, (n_classes,) float32.

    views: (n_views_total, 384), class after class; starts: (n_classes,) where each class begins; linear: (n_classes,)
    its product with `coarse_vector`; query: (384,) of unit length.
    """
    best: Vector = np.maximum.reduceat(views @ query, starts)
    return linear + np.float32(BEST_WEIGHT) * best


def second_reading(offered: NDArray[np.float32], starts: NDArray[np.intp], asked: NDArray[np.float32]) -> Vector:
    """Of several classes, weighed against each other, (n_classes,) float32.

    offered: (n_tokens_total, width), unit vectors, class after class; starts: (n_classes,) where each class begins;
    asked: (n_tokens, width), the request's unit vectors times their shares.
    """
    found = np.maximum.reduceat(offered @ asked.T, starts, axis=0)  # (n_classes, n_tokens), times the shares
    telling = found.std(axis=0)  # share times spread
    total = float(telling.sum())
    if total < LEAST_SPREAD:
        plain: Vector = found.sum(axis=1)
        return plain
    shares = np.linalg.norm(asked, axis=1)
    weights = telling / (np.maximum(shares, np.finfo(np.float32).tiny) * np.float32(total))
    read: Vector = found @ weights
    return read


def relevance(first: Vector, second: Vector) -> Vector:
    both: Vector = np.float32(1 - SECOND_WEIGHT) * first + np.float32(SECOND_WEIGHT) * second
    return both


def _unit(vector: Vector) -> Vector:
    if vector.shape != (EMBEDDING_DIM,):
        raise ValueError(f"a view has {EMBEDDING_DIM} values, not shape {vector.shape}")
    length = float(np.linalg.norm(vector))
    if not (np.isfinite(length) and length > 0):
        raise ValueError("a view of length zero or not a number has no direction")
    unit: Vector = (vector / length).astype(np.float32)
    return unit
