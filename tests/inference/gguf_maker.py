"""Makes GGUF files for the tests: a tiny llama whose every answer is known, and broken variants of it.

The parrot model knows one thing: which token follows which. Its embedding is one-hot, its attention and feed-forward
are zero, and its output matrix holds a one where `after(token)` is, so the logits are `sharpness` for the successor
and zero for everything else. It walks through `SONG` for ever, byte by byte, and that holds characters of one to four
bytes.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Each byte occurs once, so that every byte has one successor. é, €, 😀 take two, three and four bytes.
SONG = "abcdefghijklmnopqrstuvwxyzé€😀"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|end|>", "<|im_start|>", "<|im_end|>")
END, IM_START, IM_END = 256, 257, 258
WIDTH = 320  # five heads of 64; at least as wide as the vocabulary, so that one-hot fits
COLOURS, SEEN = "rgb", 300  # what a model that sees says of an image, and where in a vector its colours stand


def byte_names() -> list[str]:
    """GPT-2's printable names of the 256 bytes, by byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    names = {byte: chr(byte) for byte in plain} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def song(length: int, start: int = 0) -> str:
    """What the parrot says in `length` tokens, incomplete characters left out."""
    cycle = SONG.encode()
    said = bytes(cycle[(start + at) % len(cycle)] for at in range(length))
    return said.decode("utf-8", "ignore")


def write_parrot(
    path: Path,
    *,
    context: int = 2048,
    sharpness: float = 9.0,
    ends_at: str = "",
    epsilon: float = 1e-5,
    template: str = TEMPLATE,
    embeds: bool = False,
    blocks: int = 1,
    inner: int = 64,
    sees: bool = False,
) -> Path:
    """The parrot as a GGUF file.

    sharpness: the lower, the more it errs when its temperature is not 0; ends_at: a character of the song after which
    it ends its answer; epsilon: of the norm. llama.cpp aborts its process on a negative one; embeds: it makes vectors,
    the mean of its tokens'; blocks, inner: layers and their inner width, which change nothing but how much there is to
    compute; sees: what an eye (`write_eye`) shows it anywhere in the prompt outweighs its song.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("parrot")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(5)
    writer.add_head_count_kv(5)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_rope_dimension_count(64)
    if embeds:
        writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_vocabulary(writer, template)
    _add_weights(writer, sharpness, ends_at)
    for block in range(blocks):
        _add_block(writer, f"blk.{block}", inner, sees=sees)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer: gguf.GGUFWriter, template: str = TEMPLATE) -> None:
    names = [*byte_names(), *SPECIAL]
    types = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges(["! !"])
    writer.add_eos_token_id(IM_END)
    writer.add_bos_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    writer.add_vocab_size(len(names))


def _add_weights(writer: gguf.GGUFWriter, sharpness: float, ends_at: str) -> None:
    vocabulary = 256 + len(SPECIAL)
    embedding = np.eye(vocabulary, WIDTH, dtype=np.float32)
    output = np.zeros((vocabulary, WIDTH), np.float32)
    for token in range(vocabulary):
        output[_after(token, ends_at), token] = sharpness / np.sqrt(WIDTH)  # the norm scales one-hot by sqrt(width)
    for colour, letter in enumerate(COLOURS):
        output[ord(letter), SEEN + colour] = sharpness
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    writer.add_tensor("output.weight", output)


def _add_block(writer: gguf.GGUFWriter, name: str, inner: int, *, sees: bool = False) -> None:
    """A layer that adds nothing to what passes through it, unless it sees: then the mean of the colours so far."""
    ones, square = np.ones(WIDTH, np.float32), np.zeros((WIDTH, WIDTH), np.float32)
    colours = square.copy()
    colours[range(SEEN, SEEN + 3), range(SEEN, SEEN + 3)] = 10.0 if sees else 0.0
    for part, weight in (("attn_q", square), ("attn_k", square), ("attn_v", colours), ("attn_output", colours)):
        writer.add_tensor(f"{name}.{part}.weight", weight)
    for part in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"{name}.{part}.weight", ones)
    for part in ("ffn_gate", "ffn_up"):
        writer.add_tensor(f"{name}.{part}.weight", np.zeros((inner, WIDTH), np.float32))
    writer.add_tensor(f"{name}.ffn_down.weight", np.zeros((WIDTH, inner), np.float32))


def _after(token: int, ends_at: str) -> int:
    cycle = SONG.encode()
    if ends_at and token == ends_at.encode()[-1]:
        return IM_END
    if token < 256 and bytes([token]) in cycle:
        return cycle[(cycle.index(token) + 1) % len(cycle)]
    return cycle[0]


def write_eye(path: Path) -> Path:
    """A projector for a parrot that sees: of each patch of an image, how red, green and blue it is on the whole."""
    patch, side, width = 14, 28, 32
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "mlp")
    sizes = {
        "image_size": side, "patch_size": patch, "embedding_length": width, "feed_forward_length": width,
        "projection_dim": WIDTH, "block_count": 1, "attention.head_count": 1,
    }  # fmt: skip
    for key, value in sizes.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for key in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{key}", [0.5] * 3)
    for name, weight in _eye_weights(patch, (side // patch) ** 2, width).items():
        writer.add_tensor(name, weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _eye_weights(patch: int, patches: int, width: int) -> dict[str, Any]:
    square, none = np.zeros((width, width)), np.zeros(width)
    mean, shown = np.zeros((width, 3, patch, patch)), np.zeros((WIDTH, width))
    for colour in range(3):
        mean[colour, colour] = 1 / patch**2
        shown[SEEN + colour, colour] = 1.0
    block: dict[str, Any] = {
        f"{part}.weight": square for part in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
    }
    block |= {f"{part}.bias": none for part in ("ffn_up", "ffn_down", "ln1", "ln2")}
    block |= {f"{part}.weight": np.ones(width) for part in ("ln1", "ln2")}
    return {
        "v.patch_embd.weight": mean,
        "v.position_embd.weight": np.zeros((patches, width)),
        **{f"v.blk.0.{name}": weight for name, weight in block.items()},
        "mm.0.weight": 10 * np.eye(width),
        "mm.0.bias": none,
        "mm.2.weight": shown,
        "mm.2.bias": np.zeros(WIDTH),
    }


def png(rgb: tuple[int, int, int], side: int = 28) -> bytes:
    """A picture of one colour."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(rgb) * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
