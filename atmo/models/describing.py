"""What the mesh is told of a GGUF file that its user did not describe: purpose, size, strength, licence.

The description is read by people and by the encoder. So it says first what the model is for, in the words of
`purposes.py`, then its name and size; licence and format stand in fields of their own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from atmo.models.gguf import GgufInfo
from atmo.models.purposes import purpose_of

_NOISE = re.compile(
    r"[-_. ](gguf|i?q\d[a-z0-9_]*|f16|f32|bf16|fp16|mxfp4|imat|ud|\d{5}-of-\d{5})(?=$|[-_. ])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Told:
    """type: of the capability; general: takes what nothing else fits; strength: 0 to 1."""

    type: str
    description: str
    examples: tuple[str, ...]
    strength: float
    general: bool


def describe(stem: str, info: GgufInfo) -> Told:
    """stem: the file's name without its ending."""
    purpose = purpose_of(stem, info.name, embeds=info.embeds, chats=info.has_chat_template)
    size = _size(info.parameters)
    what = purpose.what[0].upper() + purpose.what[1:]
    model = f"Model: {_name(stem, info)}{f', {size} parameters' if size else ''}."
    return Told(purpose.type, f"{what} {model}", purpose.examples, strength_of(info.parameters), purpose.general)


def _name(stem: str, info: GgufInfo) -> str:
    """As people know it: the file's own name for itself if that says more than a path or a placeholder."""
    own = _NOISE.sub("", f" {info.name} ").strip()
    plausible = len(own) >= 3 and any(char.isalpha() for char in own) and "/" not in own
    name = own if plausible and own.lower() not in ("model", "models", "llama", "llama v2", "tmp", "output") else stem
    return re.sub(r"[-_\s]+", " ", _NOISE.sub("", f" {name} ")).strip() or stem


def _size(parameters: int) -> str:
    if parameters >= 1_000_000_000:
        return f"{parameters / 1e9:.1f}".removesuffix(".0") + " billion"
    return f"{parameters / 1e6:.0f} million" if parameters >= 1_000_000 else ""


def strength_of(parameters: float) -> float:
    """Grows with the logarithm of size: 0.05 at 3M parameters, 0.5 at 3B, 0.8 at 100B. A guess until measured."""
    grown = 0.05 + 0.15 * math.log10(max(parameters / 3e6, 1.0))
    return round(min(0.95, max(0.05, grown)), 2)
