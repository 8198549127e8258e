"""What a node offers: a descriptor in words and numbers, and its meaning as vectors.

Nodes that offer the same thing publish byte-identical descriptors and so fall into one *class*; what differs from node
to node (load, labels, hardware) stands in other rows. Relevance is computed once per class, however many serve it.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, NewType

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from atmo.mesh.limits import Big, Count, Ident, Labels, Name, Positive, Unit, Word

EMBEDDING_DIM = 384
MAX_VIEWS = 16
MAX_EXAMPLES = 32
MAX_TEXT_CHARS = 2000

ClassKey = NewType("ClassKey", bytes)
"""First 16 bytes of SHA-256 over the encoded capability: equal for nodes that offer the same."""

CHAT, EMBEDDING, CLASSIFICATION, VISION = "chat", "embedding", "classification", "vision"
TEXT = "text"  # the modality of every request

Paragraph = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
View = Annotated[bytes, Meta(min_length=EMBEDDING_DIM, max_length=EMBEDDING_DIM)]


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One capability in words and numbers. Empty or zero means: does not apply or is not known.

    id: `atmo:<type>:<name>`; type: `chat`, `embedding`, `classification`, `vision`, ...; root: hex SHA-256 of the
    model's content; context: tokens; parameters: count; strength: 0 (toy) to 1 (best there is); price: US dollars for a
    million output tokens; energy: `A` (frugal) to `G`; labels: what the capability may be used for, as pairs.
    """

    id: Ident
    type: Annotated[str, Meta(min_length=1, max_length=64)]
    description: Paragraph
    examples: Annotated[tuple[Paragraph, ...], Meta(max_length=MAX_EXAMPLES)] = ()
    model: Name = ""
    root: Word = ""
    version: Word = ""
    context: Big = 0
    modalities: Annotated[tuple[Word, ...], Meta(max_length=8)] = (TEXT,)
    quantisation: Word = ""
    parameters: Big = 0
    strength: Unit = 0.0
    price: Positive = 0.0
    energy: Word = ""
    languages: Annotated[tuple[Word, ...], Meta(max_length=64)] = ()
    labels: Labels = ()


class Capability(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a CAPABILITY row.

    views: 1 to 16 unit vectors, each int8 (384,) as bytes, value = round(127 x component): the description, the centre
    of the examples, and whatever else the encoder's version defines. encoder: which model made them.
    """

    descriptor: Descriptor
    encoder: Name
    views: Annotated[tuple[View, ...], Meta(min_length=1, max_length=MAX_VIEWS)]

    @property
    def class_key(self) -> ClassKey:
        return ClassKey(hashlib.sha256(msgspec.msgpack.encode(self)).digest()[:16])

    def matrix(self) -> NDArray[np.float32]:
        """(n_views, 384) float32, rows of unit length."""
        raw = np.frombuffer(b"".join(self.views), dtype=np.int8).reshape(len(self.views), EMBEDDING_DIM)
        vectors = raw.astype(np.float32)
        units: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return units


class Load(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How busy one capability of a node is; part of a GRADIENT row.

    service_s: mean seconds one request occupies a slot; prompt_tps, decode_tps: tokens a second for one request;
    0 where nothing was observed yet. ready: False while the engine is loading or restarting.
    """

    capability: Ident
    in_flight: Count
    slots: Count
    queued: Count
    service_s: Positive
    prompt_tps: Positive
    decode_tps: Positive
    ready: bool
