"""From words, files and standard input to a prompt.

`atmo ask "Summarise" report.md photo.png`: an argument after the first that looks like a file (with a slash, or an
ending such as .md) is one and must be there; everything else is words. What is in the folder where one happens to be
never changes what is sent. `--file` takes any name.
"""

from __future__ import annotations

import base64
import difflib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmo.errors import UsageError
from atmo.generation import MAX_IMAGE_BYTES, MAX_IMAGES

# A million tokens: more than any model reads that these machines run. A guess.
MAX_TEXT_BYTES = 4 << 20
# What an API request may hold by default is 32 MiB, and base64 takes a third more.
MAX_IMAGES_BYTES = 22 << 20
DESCRIBE = "What is in this image?"

# Compiled when they are needed: `atmo ask` waits for this module.
_NAME = r"[^\s]*[\w)]\.[A-Za-z][A-Za-z0-9]{0,5}|\.\w+"
_ADDRESS = r"[A-Za-z]+://"
_IMAGES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_KNOWN = {
    b"%PDF": ("a PDF", "Take its text out first, such as with pdftotext."),
    b"GIF8": ("a GIF", "Convert it to PNG or JPEG."),
    b"RIFF": ("a WebP image or a sound", "Convert an image to PNG or JPEG."),
    b"PK\x03\x04": ("an archive or an office document", "Take its text out first."),
    b"\x1f\x8b": ("compressed", "Unpack it first."),
    b"GGUF": ("a model", "Serve it: atmo node start --serve FILE"),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """text: words, then files, then standard input. images: data URLs of PNG and JPEG files."""

    text: str
    images: tuple[str, ...] = ()

    def wishes(self, wishes: dict[str, Any]) -> dict[str, Any]:
        return {**wishes, "images": list(self.images)} if self.images else wishes


def read_prompt(words: list[str], files: list[str], *, stdin: bool = True) -> Prompt:
    """Raises UsageError for what is empty, too large, neither text nor image, or not there."""
    said = [word for index, word in enumerate(words) if index == 0 or not _is_file(word)]
    named = [word for index, word in enumerate(words) if index > 0 and _is_file(word)]
    texts, images = [" ".join(said)], []
    for name in [*named, *files]:
        data = _read_file(name, quoted=name in named)
        image = image_url(data, name)
        if image:
            images.append(image)
        else:
            texts.append(f"{Path(name).name}:\n\n{text_of(data, name)}")
    if stdin and (data := _piped()):
        image = image_url(data, "Standard input")
        images += [image] if image else []
        texts += [] if image else [text_of(data, "Standard input")]
    return _checked("\n\n".join(part for part in texts if part.strip()), images)


def _checked(text: str, images: list[str]) -> Prompt:
    if not text.strip() and not images:
        raise UsageError("The prompt is empty.", hint='Say what you want: atmo ask "What is Atmosphere?"')
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise UsageError(
            f"The prompt has more than {MAX_TEXT_BYTES >> 20} MiB of text.", hint="Ask about a part of it."
        )
    if len(images) > MAX_IMAGES or sum(map(len, images)) > MAX_IMAGES_BYTES * 4 // 3:
        raise UsageError(
            f"Up to {MAX_IMAGES} images with {MAX_IMAGES_BYTES >> 20} MiB together can be sent.", hint="Send fewer."
        )
    return Prompt(text if text.strip() else DESCRIBE, tuple(images))


def _is_file(word: str) -> bool:
    return "/" in word or re.fullmatch(_NAME, word) is not None


def _read_file(name: str, *, quoted: bool) -> bytes:
    """quoted: it stood among the words, so it may have been meant as one."""
    if re.match(_ADDRESS, name):
        raise UsageError(f"{name} is not fetched: only files of this machine are read.", hint="Save it first.")
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise UsageError(f"{name} is a folder.", hint="Name the files in it.")
        limit = max(MAX_TEXT_BYTES, MAX_IMAGE_BYTES)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        near = difflib.get_close_matches(path.name, _beside(path), n=1)
        hint = f"Did you mean {path.with_name(near[0])}?" if near else "Check the path."
        if quoted:
            hint += " If you mean the word, put the whole prompt into quotes."
        raise UsageError(f"There is no file {name}.", hint=hint) from None
    except (OSError, ValueError) as exc:
        raise UsageError(f"{name} cannot be read: {getattr(exc, 'strerror', None) or exc}.", hint="Check it.") from exc
    if not data:
        raise UsageError(f"{name} is empty.", hint="Leave it away.")
    return data


def _beside(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(path.parent) if entry.is_file())
    except OSError:
        return []


def _piped() -> bytes:
    """What is piped in. Nothing is waited for where nobody pipes: a terminal, or a service's empty standard input."""
    if sys.stdin.closed or sys.stdin.isatty():
        return b""
    try:
        return sys.stdin.buffer.read(max(MAX_TEXT_BYTES, MAX_IMAGE_BYTES) + 1)
    except OSError as exc:
        raise UsageError(f"Standard input cannot be read: {exc.strerror}.", hint="Pipe text in, or nothing.") from exc


def image_url(data: bytes, name: str) -> str:
    """A PNG or JPEG as a data URL; empty for anything else."""
    for magic, kind in _IMAGES.items():
        if data.startswith(magic):
            if len(data) > MAX_IMAGE_BYTES:
                raise UsageError(f"{name} has more than {MAX_IMAGE_BYTES >> 20} MiB.", hint="Make the image smaller.")
            return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return ""


def text_of(data: bytes, name: str) -> str:
    """Raises UsageError for what is no text, with what it is where that is known."""
    for magic, (what, remedy) in _KNOWN.items():
        if data.startswith(magic):
            raise UsageError(f"{name} is {what}, not text.", hint=remedy)
    if len(data) > MAX_TEXT_BYTES:
        raise UsageError(f"{name} has more than {MAX_TEXT_BYTES >> 20} MiB.", hint="Ask about a part of it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not text in UTF-8.", hint="Convert it, such as with iconv.") from None
    if "\0" in text:
        raise UsageError(f"{name} is not text.", hint="Only text, PNG and JPEG can be sent.")
    return text.strip("\n")
