"""Images as servers and chat templates take them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any


def image_type(image: bytes) -> str:
    return "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"


def base64_of(image: bytes) -> str:
    return b64encode(image).decode()


def content_of(text: str, images: Sequence[bytes]) -> list[dict[str, Any]]:
    """A turn's content with its images, as OpenAI's API has it."""
    urls = [f"data:{image_type(image)};base64,{base64_of(image)}" for image in images]
    return [{"type": "text", "text": text}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
