"""Image parts of a message: data URLs become bytes. Nothing is ever fetched."""

from __future__ import annotations

import base64
import binascii

from atmo.errors import BadParameter
from atmo.generation import MAX_IMAGE_BYTES

_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def image_from_url(url: str, param: str) -> bytes:
    """The PNG or JPEG file in a data URL. Raises BadParameter."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise BadParameter(
            "Images are taken as data: URLs only: a node fetches nothing from the network for a prompt.",
            param=param,
            hint="Send data:image/png;base64,...",
        )
    if not comma or not head.endswith(";base64"):
        raise BadParameter("The image's data URL is not base64.", param=param, hint="Send data:image/png;base64,...")
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadParameter("The image's base64 is damaged.", param=param) from None
    if len(image) > MAX_IMAGE_BYTES:
        raise BadParameter(f"The image has {len(image)} bytes, up to {MAX_IMAGE_BYTES} are taken.", param=param)
    if not any(image.startswith(magic) for magic in _MAGIC):
        raise BadParameter("The image is neither PNG nor JPEG.", param=param, hint="Convert it to one of them.")
    return image
