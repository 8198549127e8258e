"""A label for a picture: an image classifier in ONNX.

A folder holds `model.onnx` (image (1, 3, side, side) float32 from 0 to 1 in, probabilities (1, labels) float32 out) and
its card, `vision.json`. Pictures come as PNG or JPEG files from strangers: their size is read before they are decoded,
and only these two decoders are used.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from atmo.errors import ModelInvalid, ModelNotFound, UsageError
from atmo.inference.encoder import AssetFile, open_session

if TYPE_CHECKING:
    import onnxruntime

CARD, MODEL = "vision.json", "model.onnx"
MAX_PIXELS = 50_000_000  # the largest cameras' pictures; decoded, 150 MB
_FORMATS = ("PNG", "JPEG")
_CHECK = "Install the package again, or check the model's folder."


class VisionCard(msgspec.Struct, frozen=True):
    """`vision.json`. labels: in the order of the model's output; side: pixels of the pictures it takes."""

    id: str
    labels: tuple[str, ...]
    side: int
    description: str
    licence: str
    files: dict[str, AssetFile]


class ImageClassifier:
    """One loaded model. May be called from several threads at once."""

    def __init__(self, card: VisionCard, session: onnxruntime.InferenceSession) -> None:
        self.model_id = card.id
        self.labels = card.labels
        self._side = card.side
        self._session = session

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> ImageClassifier:
        """Raises ModelNotFound, or ModelInvalid for files that are damaged or do not go together."""
        card = _read_card(folder)
        _check_file(folder, card)
        made = cls(card, open_session(folder / MODEL, threads))
        try:
            found = made._run(np.zeros((1, 3, card.side, card.side), np.float32)).shape
        except Exception as error:  # onnxruntime raises several unrelated classes, all straight from Exception
            said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise ModelInvalid(f"The model {card.id} does not take what its card says: {said}", hint=_CHECK) from error
        if found != (1, len(card.labels)):
            raise ModelInvalid(f"The model {card.id} names {len(card.labels)} labels and gives {found[-1]}.")
        return made

    def classify(self, image: bytes) -> list[tuple[str, float]]:
        """Every label with its probability, the likeliest first. Raises UsageError for what is no picture."""
        shares = self._run(pixels(image, self._side))[0]
        pairs = [(label, float(share)) for label, share in zip(self.labels, shares, strict=True)]
        return sorted(pairs, key=lambda pair: -pair[1])

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(None, {"image": image})[0]
        return found

    def __repr__(self) -> str:
        return f"<ImageClassifier {self.model_id} labels={len(self.labels)} side={self._side}>"


def pixels(image: bytes, side: int) -> NDArray[np.float32]:
    """(1, 3, side, side) float32, 0 to 1, of a PNG or JPEG file. Raises UsageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UsageError(f"The picture has {opened.width} x {opened.height} pixels.", hint="Make it smaller.")
            small = opened.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except UnidentifiedImageError as error:
        raise UsageError("This is no PNG and no JPEG picture.", hint="Send one of those.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError("The picture is damaged.", hint="Send it again.") from error
    return np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1)[None] / 255.0)


def _read_card(folder: Path) -> VisionCard:
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=VisionCard)
    except OSError as error:
        raise ModelNotFound(f"There is no image classifier in {folder}: {CARD} cannot be read.", hint=_CHECK) from error
    except msgspec.MsgspecError as error:
        raise ModelInvalid(f"{folder / CARD} is damaged: {error}.", hint=_CHECK) from error
    if not 1 <= card.side <= 4096 or not card.labels:
        raise ModelInvalid(f"{folder / CARD} is damaged: it names no labels or no usable size.", hint=_CHECK)
    return card


def _check_file(folder: Path, card: VisionCard) -> None:
    expected = card.files.get(MODEL)
    try:
        data = (folder / MODEL).read_bytes()
    except OSError as error:
        raise ModelNotFound(f"The image classifier {card.id} lacks {folder / MODEL}.", hint=_CHECK) from error
    if expected is None or len(data) != expected.bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
        raise ModelInvalid(f"{folder / MODEL} is damaged: it is not the file that {CARD} describes.", hint=_CHECK)
