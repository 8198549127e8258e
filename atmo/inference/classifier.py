"""A label for a text: a small ONNX head over the encoder's vector.

A folder holds `head.onnx` (vectors (n, dim) float32 in, probabilities (n, labels) float32 out) and a card,
`tone.json` for the one that comes with the package. A head only means something on vectors of the encoder it was
trained on, so the card names it and another one is refused.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from atmo.errors import ModelInvalid, ModelNotFound
from atmo.inference.encoder import AssetFile, Encoder, open_session

if TYPE_CHECKING:
    import onnxruntime

CARD, HEAD = "tone.json", "head.onnx"


class ClassifierCard(msgspec.Struct, frozen=True):
    """`tone.json`. labels: in the order of the head's output; encoder: id of the encoder whose vectors it takes."""

    id: str
    labels: tuple[str, ...]
    encoder: str
    description: str
    licence: str
    files: dict[str, AssetFile]


def default_folder() -> Path:
    """`atmo-tone`, installed with the package."""
    return Path(str(resources.files("atmo") / "assets" / "tone"))


class Classifier:
    """One loaded head and the encoder it reads with. May be called from several threads at once."""

    def __init__(self, card: ClassifierCard, session: onnxruntime.InferenceSession, encoder: Encoder) -> None:
        self.model_id = card.id
        self.labels = card.labels
        self.description = card.description
        self._session = session
        self._encoder = encoder

    @classmethod
    def load(cls, folder: Path | None, encoder: Encoder) -> Classifier:
        """From `folder`, or `atmo-tone` for None. Raises ModelNotFound, or ModelInvalid for files that are damaged
        or were made for another encoder."""
        folder = folder or default_folder()
        card = read_card(folder)
        if card.encoder != encoder.encoder_id:
            raise ModelInvalid(
                f"The classifier {card.id} reads vectors of {card.encoder}, but {encoder.encoder_id} is loaded.",
                hint="Train it again for this encoder (tools/classifier).",
            )
        _check_head(folder, card)
        classifier = cls(card, open_session(folder / HEAD, threads=1), encoder)
        found = classifier._session.run(None, {"vector": np.zeros((1, encoder.dim), np.float32)})[0].shape
        if found != (1, len(card.labels)):
            raise ModelInvalid(f"The classifier {card.id} names {len(card.labels)} labels, its head gives {found[-1]}.")
        return classifier

    def classify(self, text: str) -> list[tuple[str, float]]:
        """Every label with its probability, the likeliest first. Raises UsageError when there is nothing to read."""
        vector = self._encoder.encode(text)
        probabilities = self._session.run(None, {"vector": vector[None, :]})[0][0]
        pairs = [(label, float(share)) for label, share in zip(self.labels, probabilities, strict=True)]
        return sorted(pairs, key=lambda pair: -pair[1])

    def __repr__(self) -> str:
        return f"<Classifier {self.model_id} labels={','.join(self.labels)} encoder={self._encoder.encoder_id}>"


def read_card(folder: Path) -> ClassifierCard:
    """The card of a folder. Raises ModelNotFound, ModelInvalid."""
    try:
        return msgspec.json.decode((folder / CARD).read_bytes(), type=ClassifierCard)
    except OSError as exc:
        raise ModelNotFound(f"There is no classifier in {folder}: {CARD} cannot be read.", hint=_CHECK) from exc
    except msgspec.MsgspecError as exc:
        raise ModelInvalid(f"{folder / CARD} is damaged: {exc}.", hint=_CHECK) from exc


_CHECK = "Install the package again, or check the model's folder."


def _check_head(folder: Path, card: ClassifierCard) -> None:
    expected = card.files.get(HEAD)
    if expected is None:
        raise ModelInvalid(f"{folder / CARD} does not list {HEAD}.", hint=_CHECK)
    try:
        data = (folder / HEAD).read_bytes()
    except OSError as exc:
        raise ModelNotFound(f"The classifier {card.id} lacks {folder / HEAD}.", hint=_CHECK) from exc
    if len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise ModelInvalid(f"{folder / HEAD} is damaged: it is not the file that {CARD} describes.", hint=_CHECK)
