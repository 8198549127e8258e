"""Bounds of everything that crosses the wire, as types: a decoder that meets a value outside them refuses the frame.

Bounds are checked while decoding, before anything of the claimed size is allocated. A number that is not finite lies
outside every bound. Where no origin is given a bound is a guess: several times what a real node sends.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# A control frame's limit (atmo/transport/base.py); an Ask that is larger travels in parcels.
MAX_MESSAGE_BYTES = 1 << 20
# A parcel fits into a frame of either lane, with its header. All of them together: sixteen large photographs.
MAX_PARCEL_BYTES = 512 << 10
MAX_PARCELS = 128
# Rows travel in frames of at most this size, far below the gossip lane's limit, so that none holds up what follows it.
MAX_ROWS_FRAME_BYTES = 64 << 10
# 16 views of 384 bytes, and a descriptor with 32 examples of 700 bytes. Two rows always fit into a frame.
MAX_ROW_BYTES = 31 << 10
MAX_ROWS_PER_FRAME = 512
# Origins in a table, and in a list of versions: about 55 bytes each, so that it fits into a control frame.
MAX_ORIGINS = 16_384
# Nodes that one node accuses at a time: 45 bytes each. More than it can have been linked to.
MAX_CHARGES = 256
# Versions of one origin that are told: twice the rows it may have. A bucket of the largest table stays within a frame.
MAX_VERSIONS = 512
# A model's chunk (atmo/models/manifest.py) and chunks of the largest model, 4 TiB: a bit for each fits into a control
# frame. Chunks named in one message, and bytes of a manifest in one, which travels on the bulk lane.
MAX_CHUNK_BYTES = 1 << 20
MAX_CHUNKS = 1 << 22
MAX_CHUNKS_TOLD = 1024
MAX_MANIFEST_PART_BYTES = 512 << 10
MAX_MANIFEST_BYTES = 160 << 20
# The longest a row lives without being renewed: in a mesh of thousands renewals are rare (pace.py), and who is gone is
# noticed by neighbours. High-water marks outlive it (rowstore.py).
MAX_TTL_S = 3600.0

_INT53 = (1 << 53) - 1  # integers that every language's numbers hold exactly

Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
CallId = Annotated[bytes, Meta(min_length=16, max_length=16)]

Count = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Big = Annotated[int, Meta(ge=0, le=_INT53)]
Order = Annotated[int, Meta(ge=1, le=_INT53)]
ChunkNumber = Annotated[int, Meta(ge=0, lt=MAX_CHUNKS)]
Chunks = Annotated[tuple[ChunkNumber, ...], Meta(min_length=1, max_length=MAX_CHUNKS_TOLD)]
Credits = Annotated[int, Meta(ge=1, le=4096)]

Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
Positive = Annotated[float, Meta(ge=0.0, le=1e12)]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
Duration = Annotated[float, Meta(ge=0.0, le=86_400.0)]
Ttl = Annotated[float, Meta(gt=0.0, le=MAX_TTL_S)]

Word = Annotated[str, Meta(max_length=64)]
Name = Annotated[str, Meta(max_length=200)]
Ident = Annotated[str, Meta(min_length=1, max_length=200)]
Address = Annotated[str, Meta(max_length=300)]
Sentence = Annotated[str, Meta(max_length=4000)]
Labels = Annotated[tuple[tuple[Word, Name], ...], Meta(max_length=32)]
