"""`atmo-tone` as it ships, over the real encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from atmo.errors import ModelInvalid, ModelNotFound, UsageError
from atmo.inference.classifier import Classifier, default_folder
from atmo.inference.encoder import Encoder

HELD_OUT = Path(__file__).parents[2] / "tools" / "classifier" / "data" / "heldout.jsonl"
RESULT = Path(__file__).parents[2] / "tools" / "classifier" / "results" / "tone.json"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load()


@pytest.fixture(scope="module")
def tone(encoder: Encoder) -> Classifier:
    return Classifier.load(None, encoder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the installed classifier that a test may damage."""
    return Path(shutil.copytree(default_folder(), tmp_path / "tone"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love it, thank you so much!", "positive"),
        ("This is the worst hotel I have ever stayed in.", "negative"),
        ("The train leaves at nine.", "neutral"),
    ],
)
def test_it_tells_the_tone_of_a_text(tone: Classifier, text: str, label: str) -> None:
    found = tone.classify(text)
    assert found[0][0] == label
    assert found[0][1] > 0.8


def test_it_gives_every_label_and_the_likeliest_first(tone: Classifier) -> None:
    found = tone.classify("The room was clean but the breakfast was cold.")
    shares = [share for _, share in found]
    assert {label for label, _ in found} == set(tone.labels) == {"positive", "negative", "neutral"}
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_it_scores_on_held_out_texts_what_the_result_file_says(tone: Classifier) -> None:
    lines = [json.loads(line) for line in HELD_OUT.read_text("utf-8").splitlines()]
    assert len(lines) >= 100
    right = sum(tone.classify(line["text"])[0][0] == line["label"] for line in lines) / len(lines)
    claimed = json.loads(RESULT.read_text("utf-8"))["heldout"]["accuracy"]
    assert claimed >= 0.85
    assert right == pytest.approx(claimed, abs=0.02)  # int8 kernels of other processors differ in late digits


def test_an_empty_text_is_a_usage_error(tone: Classifier) -> None:
    with pytest.raises(UsageError, match="empty"):
        tone.classify(" ")


def test_its_repr_names_the_model_the_labels_and_the_encoder(tone: Classifier) -> None:
    assert repr(tone) == "<Classifier atmo-tone-1 labels=positive,negative,neutral encoder=minilm-l6-v2-int8-3>"


def test_an_empty_folder_holds_no_classifier(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ModelNotFound, match="There is no classifier in"):
        Classifier.load(tmp_path, encoder)


def test_a_missing_head_is_named(folder: Path, encoder: Encoder) -> None:
    (folder / "head.onnx").unlink()
    with pytest.raises(ModelNotFound, match=r"head\.onnx"):
        Classifier.load(folder, encoder)


def test_a_damaged_head_is_refused(folder: Path, encoder: Encoder) -> None:
    data = bytearray((folder / "head.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "head.onnx").write_bytes(data)
    with pytest.raises(ModelInvalid, match="damaged"):
        Classifier.load(folder, encoder)


def test_a_damaged_card_is_refused(folder: Path, encoder: Encoder) -> None:
    (folder / "tone.json").write_text("{")
    with pytest.raises(ModelInvalid, match=r"tone\.json is damaged"):
        Classifier.load(folder, encoder)


def test_a_head_for_another_encoder_is_refused(folder: Path, encoder: Encoder) -> None:
    _change_card(folder, encoder="minilm-l6-v2-int8-9")
    with pytest.raises(ModelInvalid, match="minilm-l6-v2-int8-9"):
        Classifier.load(folder, encoder)


def test_a_card_with_other_labels_than_the_head_is_refused(folder: Path, encoder: Encoder) -> None:
    _change_card(folder, labels=["yes", "no"])
    with pytest.raises(ModelInvalid, match="names 2 labels, its head gives 3"):
        Classifier.load(folder, encoder)


def test_a_file_that_is_no_graph_is_refused(folder: Path, encoder: Encoder) -> None:
    junk = b"junk"
    (folder / "head.onnx").write_bytes(junk)
    _change_card(folder, files={"head.onnx": {"bytes": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}})
    with pytest.raises(ModelInvalid, match="onnxruntime cannot load"):
        Classifier.load(folder, encoder)


def _change_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / "tone.json").read_text())
    (folder / "tone.json").write_text(json.dumps(card | changes))
