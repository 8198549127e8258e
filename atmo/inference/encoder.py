"""Text to a vector of 384 numbers whose direction is its meaning: all-MiniLM-L6-v2, fine-tuned for routing, in int8.

Theory of operation. Close texts have close vectors, and all vectors have length 1, so closeness is a dot product. The
model runs on one thread and reads at most 128 tokens. A longer text is read through a window: its first 95 and last 31
tokens between the two that mark start and end, because a prompt says what it wants at its start or its end and quotes
material in between. What cannot lie in that window is cut off as text, before tokenising, so that a prompt of a
megabyte costs no more than a page.

Texts are computed one by one: the product's int8 scale is taken over all tokens of a call, so in a batch the
neighbours would show in a text's vector, and nodes that check each other's vectors need the same text to give the
same vector.

Beside the vector of all of it, a text has one for each token, shorter, and a share that says how much the token counts:
for the second reading of routing (atmo/mesh/views.py). Both come from one run of the model.

Recent vectors are kept by a digest of the text, keyed with a number drawn at start: no prompt stays in memory, and
a memory dump does not tell whether a guessed prompt was asked.

The files come from `tools/encoder`, which also measures what int8 costs.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.errors import InferenceError, ModelInvalid, ModelNotFound, UsageError

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

Vector = NDArray[np.float32]  # (dim,), length 1
Code = NDArray[np.int8]  # (dim,), a Vector times 127

CODE_SCALE = 127.0
CACHE_ENTRIES = 4096  # about 20 MiB; a guess at what a node is asked again within minutes
# Of a text longer than both together only these ends are tokenised. A word takes up to 100 characters in this
# tokenizer and English about 5 a token, so 95 and 31 tokens nearly always lie within.
HEAD_CHARS, TAIL_CHARS = 3072, 1024
DIGEST_BYTES = 16
# Tokens of a prompt that routing reads, so that none takes more than about 8 ms: each costs a tenth of a millisecond.
# The texts of capabilities are read up to the whole window, for nobody waits for them.
PROMPT_WINDOW = 80


class AssetFile(msgspec.Struct, frozen=True):
    """Size and SHA-256 (hex) that a file of the encoder must have."""

    bytes: int
    sha256: str


class EncoderCard(msgspec.Struct, frozen=True):
    """`encoder.json`. window: tokens the model reads at most; head: how many of them come from a long text's start;
    both count the marking token at their end. weights_sha256: of the float weights it was made from."""

    id: str
    dim: int
    window: int
    head: int
    weights_sha256: str
    files: dict[str, AssetFile]


@dataclass(frozen=True)
class Reading:
    """A text as the encoder reads it. vector: (dim,), length 1; tokens: (n, width) int8, unit vectors times 127, no row
    at all from a model without the second reading; shares: (n,), together 1. All read-only."""

    vector: Vector
    tokens: Code
    shares: Vector

    def weighted(self) -> NDArray[np.float32]:
        """(n, width): each token's unit vector times its share."""
        return np.asarray(self.tokens * (self.shares / np.float32(CODE_SCALE))[:, None], np.float32)


@dataclass(frozen=True)
class CacheStats:
    """Since the encoder was loaded: texts found in the cache, texts computed; and how many the cache holds now."""

    hits: int
    misses: int
    entries: int


def quantise(vector: NDArray[np.floating[Any]]) -> Code:
    """A vector of length 1 (or a stack of them) as int8: 384 bytes on the wire instead of 1,536."""
    code: Code = np.rint(np.clip(vector, -1.0, 1.0) * CODE_SCALE).astype(np.int8)
    return code


def dequantise(code: NDArray[np.int8]) -> Vector:
    """The vector a code stands for, of length 1 again. A code of zeros stands for nothing and stays zero."""
    vector = code.astype(np.float32)
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.asarray(vector / np.maximum(length, 1.0), dtype=np.float32)


def default_folder() -> Path:
    """The encoder that is installed with the package."""
    return Path(str(resources.files("atmo") / "assets" / "encoder"))


class Encoder:
    """One loaded encoder. Every method may be called from several threads at once."""

    def __init__(
        self,
        card: EncoderCard,
        session: onnxruntime.InferenceSession,
        tokenizer: tokenizers.Tokenizer,
        cache_entries: int,
    ) -> None:
        self.encoder_id = card.id
        self.dim = card.dim
        self._card = card
        self._session = session
        self._tokenizer = tokenizer
        self._cache = _Cache(cache_entries)
        self._outputs = [output.name for output in session.get_outputs()]

    @classmethod
    def load(cls, path: Path | None = None, threads: int = 1, *, cache_entries: int = CACHE_ENTRIES) -> Encoder:
        """From the folder `path`, or the installed one. About 0.2 s, most of it importing onnxruntime.

        Raises ModelNotFound when a file is missing and ModelInvalid when one is damaged.
        """
        folder = path or default_folder()
        card = read_card(folder)
        model, vocabulary = (_checked(folder, card, name) for name in ("encoder.onnx", "tokenizer.json"))
        return cls(card, open_session(model, threads), _open_tokenizer(vocabulary), cache_entries)

    def encode(self, text: str) -> Vector:
        """The text's vector: float32 (dim,), length 1, read-only. Raises UsageError when there is nothing to read."""
        return self.read(text).vector

    def read(self, text: str, window: int = 0) -> Reading:
        """The text's vector and those of its tokens. window: tokens to read at most, if fewer than usual; what lies
        between start and end is left out. Raises UsageError when there is nothing to read."""
        shown = _ends(text)
        key = self._cache.key((*shown, str(window)))
        reading = self._cache.get(key)
        if reading is None:
            reading = self._compute(self._window(shown, window or self._card.window))
            self._cache.put(key, reading)
        return reading

    def read_prompt(self, text: str) -> Reading:
        """As `read`, PROMPT_WINDOW tokens at most."""
        return self.read(text, PROMPT_WINDOW)

    @property
    def reads_twice(self) -> bool:
        """Whether the model gives vectors of tokens."""
        return len(self._outputs) > 1

    def encode_batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of several texts, (len(texts), dim): the same, bit for bit, as `encode` gives for each."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self.encode(text)
        return vectors

    def encode_int8(self, text: str) -> Code:
        """The text's vector as it travels between nodes: int8 (dim,), see `quantise`."""
        return quantise(self.encode(text))

    def count_tokens(self, text: str) -> int:
        """How many tokens of the text the encoder reads, its two marks included: 2 to `window`."""
        return len(self._window(_ends(text), self._card.window, allow_empty=True))

    @property
    def window(self) -> int:
        """How many tokens the encoder reads at most."""
        return self._card.window

    @property
    def stats(self) -> CacheStats:
        return self._cache.stats

    def __repr__(self) -> str:
        stats = self.stats
        return f"<Encoder {self.encoder_id} cached={stats.entries} hits={stats.hits} misses={stats.misses}>"

    def _window(self, shown: tuple[str, str], window: int, *, allow_empty: bool = False) -> list[int]:
        """Token ids between start and end mark: all of a short text, else most of the window from the start and the
        rest from the end, in the card's proportion."""
        head, tail = shown
        ids = list(self._tokenizer.encode(head).ids)
        last = list(self._tokenizer.encode(tail).ids) if tail else ids
        if max(len(ids), len(last)) <= 2 and not allow_empty:  # nothing between the marks
            raise UsageError("The text to embed is empty.", hint="Give at least one readable character.")
        if not tail and len(ids) <= window:
            return ids
        body = ids[:-1][: window * self._card.head // self._card.window]
        return body + last[1:][len(body) - window :]

    def _compute(self, ids: list[int]) -> Reading:
        vector, *more = self._session.run(self._outputs, {"ids": np.array([ids], np.int64)})
        tokens, shares = (quantise(more[0][0]), more[1][0]) if more else (np.empty((0, 0), np.int8), vector[0, :0])
        for array in (vector, tokens, shares):
            array.setflags(write=False)  # shared with every later caller through the cache
        return Reading(vector[0], tokens, shares)


class _Cache:
    """Recent texts as they were read, least recently used first out. Holds digests, never text."""

    def __init__(self, entries: int) -> None:
        self._limit = entries
        self._secret = os.urandom(DIGEST_BYTES)
        self._readings: OrderedDict[bytes, Reading] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def key(self, shown: tuple[str, ...]) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=DIGEST_BYTES)
        for part in shown:
            data = part.encode()
            digest.update(len(data).to_bytes(4, "little") + data)
        return digest.digest()

    def get(self, key: bytes) -> Reading | None:
        with self._lock:
            reading = self._readings.get(key)
            if reading is None:
                self._misses += 1
            else:
                self._hits += 1
                self._readings.move_to_end(key)
            return reading

    def put(self, key: bytes, reading: Reading) -> None:
        with self._lock:
            self._readings[key] = reading
            self._readings.move_to_end(key)
            while len(self._readings) > self._limit:
                self._readings.popitem(last=False)

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._readings))


def _ends(text: str) -> tuple[str, str]:
    """The parts of a text that can lie in the window, and "" as the second when that is all of it. Valid Unicode."""
    head, tail = text, ""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = text.strip()  # a page of blank lines around a prompt must not push it out of the window
        head = text
        if len(text) > HEAD_CHARS + TAIL_CHARS:
            head, tail = text[:HEAD_CHARS], text[-TAIL_CHARS:]
    return _valid(head), _valid(tail)


def _valid(text: str) -> str:
    """Half a surrogate pair, which JSON can smuggle in, is no character: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def read_card(folder: Path) -> EncoderCard:
    """`encoder.json` of a folder. Raises ModelNotFound, ModelInvalid."""
    try:
        return msgspec.json.decode((folder / "encoder.json").read_bytes(), type=EncoderCard)
    except OSError as exc:
        raise ModelNotFound(
            f"There is no text encoder in {folder}: encoder.json cannot be read.", hint=_REINSTALL
        ) from exc
    except msgspec.MsgspecError as exc:
        raise ModelInvalid(f"{folder / 'encoder.json'} is damaged: {exc}.", hint=_REINSTALL) from exc


_REINSTALL = "Install the package again."


def _checked(folder: Path, card: EncoderCard, name: str) -> Path:
    """A file that is the one the card speaks of: a model with a flipped bit would still load and mislead."""
    path = folder / name
    try:
        expected = card.files[name]
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest() if size == expected.bytes else ""
    except KeyError as exc:
        raise ModelInvalid(f"{folder / 'encoder.json'} does not list {name}.", hint=_REINSTALL) from exc
    except OSError as exc:
        raise ModelNotFound(f"The text encoder lacks {path}.", hint=_REINSTALL) from exc
    if digest != expected.sha256:
        problem = "its checksum is wrong" if digest else f"{size} bytes instead of {expected.bytes}"
        raise ModelInvalid(f"The text encoder's file {path} is damaged: {problem}.", hint=_REINSTALL)
    return path


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session that is small and sleeps when idle. Raises ModelInvalid for what is no ONNX model."""
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors only: they come as exceptions too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle node must use no CPU
    options.enable_cpu_mem_arena = True  # a twentieth quicker; the largest text's buffers stay, a few megabytes
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # onnxruntime raises several unrelated classes, all straight from Exception
        raise ModelInvalid(f"onnxruntime cannot load {model}: {_first_line(exc)}", hint=_REINSTALL) from exc


def _open_tokenizer(vocabulary: Path) -> tokenizers.Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as exc:
        raise InferenceError("The text encoder needs the package tokenizers.", hint="pip install tokenizers") from exc
    try:
        return Tokenizer.from_file(str(vocabulary))
    except Exception as exc:  # tokenizers raises plain Exception
        raise ModelInvalid(f"The tokenizer {vocabulary} cannot be read: {_first_line(exc)}", hint=_REINSTALL) from exc


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as exc:
        raise InferenceError("The text encoder needs the package onnxruntime.", hint="pip install onnxruntime") from exc
    return onnxruntime


def _first_line(exc: Exception) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]
