"""Every message of the protocol, in one place. docs/protocol.md says when each is sent and what answers it.

All are MessagePack arrays whose first element is the tag. Decoding is strict: a field of a wrong type, one too many or
one too few is an error of the sender. Times that cross the wire are durations in seconds: clocks of two machines
differ.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from atmo.generation import Finish, Piece, Task
from atmo.ids import PeerId
from atmo.keys import Sealed
from atmo.mesh.capability import Load
from atmo.mesh.limits import (
    MAX_CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_PART_BYTES,
    MAX_ORIGINS,
    MAX_PARCEL_BYTES,
    MAX_PARCELS,
    MAX_ROWS_PER_FRAME,
    MAX_VERSIONS,
    Address,
    Big,
    CallId,
    ChunkNumber,
    Chunks,
    Count,
    Credits,
    Duration,
    Finite,
    Ident,
    Key32,
    Name,
    Order,
    Sentence,
    Word,
)
from atmo.mesh.rows import SignedRow

# Of about 170 bytes each, in one frame. A guess.
MAX_STATEMENTS = 256
# Addresses of a contact, contacts in a shuffle, hops of a walk. Guesses: a machine has two or three addresses; the
# overlay sends at most eight contacts over at most six hops.
MAX_ADDRESSES = 4
MAX_CONTACTS = 8
MAX_HOPS = 8
# Who sent parts of a model. A guess: four times as many as are asked at once.
MAX_SOURCES_TOLD = 64

Addresses = Annotated[tuple[Address, ...], Meta(max_length=MAX_ADDRESSES)]
Hops = Annotated[int, Meta(ge=0, le=MAX_HOPS)]
PeerKey = Annotated[PeerId, Meta(min_length=32, max_length=32)]
Path = Annotated[tuple[PeerKey, ...], Meta(max_length=MAX_HOPS)]
Contacts = Annotated[tuple["Contact", ...], Meta(max_length=MAX_CONTACTS)]
Sources = Annotated[tuple[tuple[PeerKey, Big], ...], Meta(max_length=MAX_SOURCES_TOLD)]
Homes = Annotated[tuple[Name, ...], Meta(max_length=16)]
RowIds = Annotated[bytes, Meta(min_length=8, max_length=8 * MAX_ROWS_PER_FRAME)]
Parts = Annotated[int, Meta(ge=1, le=256)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Rows(Message, frozen=True, tag=1):
    """Rows on their way: new ones on the gossip lane, a peer's whole table on the control lane after a link came up."""

    rows: Annotated[tuple[SignedRow, ...], Meta(max_length=MAX_ROWS_PER_FRAME)]


class Versions(Message, frozen=True, tag=2):
    """What the sender knows of the origins in some buckets of its table, see sync.py.

    salt, parts: how the table is divided into buckets; buckets: which of them are told, one byte each; origins: (peer,
    generation, sum over its rows, versions that it has or had). answer: True says that these are all it has in those
    buckets and asks for the receiver's versions of the same origins; False is that answer.
    """

    salt: CallId
    parts: Parts
    buckets: Annotated[bytes, Meta(min_length=1, max_length=256)]
    origins: Annotated[
        tuple[tuple[Key32, Order, Big, Annotated[tuple[Order, ...], Meta(max_length=MAX_VERSIONS)]], ...],
        Meta(max_length=MAX_ORIGINS),
    ]
    answer: bool


class Revoked(Message, frozen=True, tag=4):
    """What the mesh's root took back: all that is known after a link came up, later what is news. Control lane only."""

    statements: Annotated[tuple[Sealed, ...], Meta(max_length=MAX_STATEMENTS)]


class Digest(Message, frozen=True, tag=3):
    """The sender's table in short: 8 bytes for each bucket, salted, see sync.py."""

    salt: CallId
    digests: Annotated[bytes, Meta(min_length=8, max_length=8 * 256)]


class Contact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a peer can be dialled."""

    peer: PeerKey
    addresses: Addresses


class Join(Message, frozen=True, tag=20):
    """The sender is new and knows nobody else. addresses: where it can be dialled."""

    addresses: Addresses


class ForwardJoin(Message, frozen=True, tag=21):
    """Somebody is new: on a random walk of so many more hops, at whose end it is dialled."""

    contact: Contact
    hops: Hops


class Neighbour(Message, frozen=True, tag=22):
    """Be my neighbour. priority: the sender has no other, or bridges a partition: not to be refused."""

    addresses: Addresses
    priority: bool


class Disconnect(Message, frozen=True, tag=23):
    """Not, or no longer, my neighbour. The end that dialled hangs up."""


class Shuffle(Message, frozen=True, tag=24):
    """Some of the sender's contacts, on a random walk. path: whom it passed, the first being whose they are."""

    path: Path
    hops: Hops
    contacts: Contacts


class ShuffleReply(Message, frozen=True, tag=25):
    """Contacts in return. path: whom it still has to pass, the last of them next; empty at its destination."""

    path: Path
    contacts: Contacts


class Push(Message, frozen=True, tag=30):
    """New rows along the tree: the receiver's first copy, or it says Prune."""

    rows: Annotated[tuple[SignedRow, ...], Meta(max_length=MAX_ROWS_PER_FRAME)]


class IHave(Message, frozen=True, tag=31):
    """New rows that were not sent: the first 8 bytes of each payload's SHA-256, one after the other."""

    ids: RowIds


class Graft(Message, frozen=True, tag=32):
    """Send these rows, and from now on all new ones."""

    ids: RowIds


class Prune(Message, frozen=True, tag=33):
    """Announce new rows from now on, do not send them: they arrive here from others first."""


class Ask(Message, frozen=True, tag=10):
    """Do this. `window` parts may be sent before the first Grant; `deadline_s` is what is left of the request's time.

    id: 16 random bytes, the request's name everywhere; attempt: 0 for the first node that is asked, 1 for the next;
    homes: where the data may be, any `residency` where empty. A node that is not there refuses, whoever
    asks.
    """

    id: CallId
    attempt: Count
    capability: Ident
    task: Task
    deadline_s: Duration
    window: Credits
    homes: Homes


class Part(Message, frozen=True, tag=11):
    """The next piece of an answer. seq counts from 0 without gaps."""

    id: CallId
    attempt: Count
    seq: Count
    piece: Piece


class Vectors(Message, frozen=True, tag=12):
    """An embedding answer: one unit vector, float32 little-endian bytes."""

    id: CallId
    attempt: Count
    seq: Count
    vector: Annotated[bytes, Meta(min_length=4, max_length=64 << 10)]


class Scores(Message, frozen=True, tag=13):
    """A classification answer, the likeliest label first."""

    id: CallId
    attempt: Count
    seq: Count
    labels: Annotated[tuple[tuple[Name, Finite], ...], Meta(max_length=1024)]


class Done(Message, frozen=True, tag=14):
    """The answer is complete after `seq` parts."""

    id: CallId
    attempt: Count
    seq: Count
    finish: Finish
    load: Load | None


class Failed(Message, frozen=True, tag=15):
    """The answer will not come, or not all of it. code is the error's, `retry_after_s` matters for `overloaded`."""

    id: CallId
    attempt: Count
    code: Word
    message: Sentence
    hint: Sentence
    retry_after_s: Duration
    load: Load | None


class Cancel(Message, frozen=True, tag=16):
    """The requester has no more use for the answer."""

    id: CallId
    attempt: Count


class Grant(Message, frozen=True, tag=17):
    """The requester has used parts of the answer: so many more may be sent."""

    id: CallId
    attempt: Count
    parts: Credits


class Parcel(Message, frozen=True, tag=18):
    """A piece of an Ask that is too large for a frame, on the bulk lane. at: from 0; total: how many there are."""

    id: CallId
    attempt: Count
    at: Annotated[int, Meta(ge=0, lt=MAX_PARCELS)]
    total: Annotated[int, Meta(ge=1, le=MAX_PARCELS)]
    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_PARCEL_BYTES)]


class Probe(Message, frozen=True, tag=19):
    """How busy is this capability? Answered with Told, or not at all where it is not served."""

    capability: Ident


class Told(Message, frozen=True, tag=29):
    """The load that a Probe asked for, as it is now."""

    load: Load


class GetManifest(Message, frozen=True, tag=40):
    """Send the manifest of this model from this byte on: what it is made of, and the hash of each of its chunks."""

    root: Key32
    at: Annotated[int, Meta(ge=0, lt=MAX_MANIFEST_BYTES)]


class ManifestPart(Message, frozen=True, tag=41):
    """The answer, as much as fits, on the bulk lane. total: bytes of the whole."""

    root: Key32
    at: Annotated[int, Meta(ge=0, lt=MAX_MANIFEST_BYTES)]
    total: Annotated[int, Meta(ge=1, le=MAX_MANIFEST_BYTES)]
    data: Annotated[bytes, Meta(min_length=1, max_length=MAX_MANIFEST_PART_BYTES)]


class Bitmap(Message, frozen=True, tag=42):
    """Which chunks the sender has: the first is the highest bit of the first byte. answer: tell yours, too."""

    root: Key32
    bits: Annotated[bytes, Meta(min_length=1, max_length=MAX_CHUNKS // 8)]
    answer: bool


class Have(Message, frozen=True, tag=43):
    """More chunks that the sender has now, to peers it exchanged bitmaps with."""

    root: Key32
    chunks: Chunks


class GetChunks(Message, frozen=True, tag=44):
    """Send these chunks, each in a Chunk."""

    root: Key32
    chunks: Chunks


class DropChunks(Message, frozen=True, tag=45):
    """These are not needed any more."""

    root: Key32
    chunks: Chunks


class Elsewhere(Message, frozen=True, tag=46):
    """Another peer was given these a moment ago and passes them on: ask it, or the sender again after a while."""

    root: Key32
    chunks: Chunks
    holder: PeerKey
    wait_s: Duration


class NotServed(Message, frozen=True, tag=47):
    """The model is not to be had from the sender. code: `unknown`, `private`, `busy` or `failed`."""

    root: Key32
    code: Word
    message: Sentence


CHUNK_TAG = 48


class Chunk(Message, frozen=True, tag=CHUNK_TAG):
    """A chunk, on the bulk lane. data stays where the transport received it."""

    root: Key32
    chunk: ChunkNumber
    data: Annotated[memoryview, Meta(min_length=1, max_length=MAX_CHUNK_BYTES)]


class Bring(Message, frozen=True, tag=50):
    """Get this model from whoever seeds it and serve it: the data that it is for may not come to where it is.

    id: 16 random bytes, of the request that needs it.
    """

    id: CallId
    root: Key32


class Brought(Message, frozen=True, tag=51):
    """How far that is. state: `running`, `loading`, `ready` or `failed`, the last two being final; capability: what to
    ask for once it is ready; message, hint: why it failed; sources: who sent how many bytes of it, those that sent most
    first."""

    id: CallId
    state: Word
    bytes_done: Big
    bytes_total: Big
    capability: Name
    message: Sentence
    hint: Sentence
    sources: Sources = ()


OverlayMessage = Join | ForwardJoin | Neighbour | Disconnect | Shuffle | ShuffleReply
TreeMessage = Push | IHave | Graft | Prune
SyncMessage = Versions | Digest
SwarmMessage = GetManifest | ManifestPart | Bitmap | Have | GetChunks | DropChunks | Elsewhere | NotServed | Chunk
AnyMessage = (
    Rows
    | Versions
    | Digest
    | Revoked
    | Join
    | ForwardJoin
    | Neighbour
    | Disconnect
    | Shuffle
    | ShuffleReply
    | Push
    | IHave
    | Graft
    | Prune
    | Ask
    | Part
    | Vectors
    | Scores
    | Done
    | Failed
    | Cancel
    | Grant
    | Parcel
    | Probe
    | Told
    | SwarmMessage
    | Bring
    | Brought
)
