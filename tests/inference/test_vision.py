"""The image classifier: what it knows, what it refuses, and what no file can make it do."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from atmo.config import load
from atmo.errors import AtmoError, ModelInvalid, ModelNotFound, UsageError
from atmo.gateway.handle import Wish
from atmo.generation import Task, Turn
from atmo.inference.engine import ModelSpec
from atmo.inference.vision import ImageClassifier, pixels
from atmo.node.node import Node
from tests.inference.running import answer, job, running, started

SHAPES = Path(__file__).parents[2] / "atmo" / "assets" / "shapes"
CORNERS = {"square": 4, "triangle": 3}


def picture(shape: str, colour: str, form: str = "PNG", size: tuple[int, int] = (320, 240)) -> bytes:
    """A shape on grey, drawn by other code than that which drew what the model learnt from."""
    image = Image.new("RGB", size, (70, 70, 70))
    pen, (x, y), radius = ImageDraw.Draw(image), (size[0] // 2, size[1] // 2), min(size) // 3
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "cross":
        pen.rectangle((x - radius, y - radius // 4, x + radius, y + radius // 4), fill=colour)
        pen.rectangle((x - radius // 4, y - radius, x + radius // 4, y + radius), fill=colour)
    else:
        pen.regular_polygon((x, y, radius), CORNERS[shape], fill=colour)
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def spec(folder: Path) -> ModelSpec:
    return ModelSpec(name="shapes", kind="vision", path=str(folder), engine="onnx")


@pytest.mark.asyncio
async def test_it_tells_shapes_and_colours_apart() -> None:
    asked = list(itertools.product(("circle", "square", "triangle", "cross"), ("red", "blue", "yellow")))
    async with running(spec(SHAPES)) as supervisor:
        right = 0
        for shape, colour in asked:
            labels = await supervisor.classify_image(picture(shape, colour, "JPEG" if shape == "cross" else "PNG"))
            right += labels[0][0] == f"{colour} {shape}"
            shares = [share for _, share in labels]
            assert len(shares) == 24
            assert shares == sorted(shares, reverse=True)
            assert sum(shares) == pytest.approx(1.0, abs=1e-3)
        with pytest.raises(UsageError, match="does not chat"):
            await answer(supervisor, job())
        with pytest.raises(UsageError, match="has no labels"):
            await supervisor.classify("red")
    assert right >= 10, f"{right} of {len(asked)}: the pictures are plain"


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a hundred bytes."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")


def test_what_is_no_picture_is_refused() -> None:
    whole = picture("circle", "red")
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    for data, what in (
        (b"", "no PNG and no JPEG"),
        (b"hello", "no PNG and no JPEG"),
        (gif.getvalue(), "no PNG and no JPEG"),
        (whole[: len(whole) // 2], "damaged"),
        (whole[:40] + b"\0" * 40 + whole[80:], "damaged|no PNG"),
        (bomb(), "60000 x 60000 pixels|damaged"),
    ):
        with pytest.raises(UsageError, match=what):
            pixels(data, 48)
    assert pixels(whole, 48).shape == (1, 3, 48, 48)


def test_no_mutated_picture_does_more_than_be_refused() -> None:
    """1,000 pictures with bytes changed: labels or a UsageError, nothing else."""
    rng = np.random.default_rng(3)
    for form in ("PNG", "JPEG"):
        whole = np.frombuffer(picture("cross", "green", form, (40, 30)), np.uint8)
        for _ in range(500):
            mutated = whole.copy()
            mutated[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
            try:
                assert np.isfinite(pixels(mutated.tobytes(), 8)).all()
            except UsageError:
                pass


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHAPES, tmp_path / "shapes"))


def describe_again(folder: Path) -> None:
    """Make the card describe the model's file as it is: what is tested is onnxruntime, not the checksum."""
    card = json.loads((folder / "vision.json").read_text())
    data = (folder / "model.onnx").read_bytes()
    card["files"]["model.onnx"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "vision.json").write_text(json.dumps(card))


@pytest.mark.asyncio
async def test_hostile_and_truncated_models_are_refused_and_kill_nothing(copy: Path) -> None:
    whole = (copy / "model.onnx").read_bytes()
    rng = np.random.default_rng(5)
    noisy = np.frombuffer(whole, np.uint8).copy()
    noisy[rng.integers(0, 400, 40)] = 255
    for data in (b"", whole[:-500], whole[: len(whole) // 3], noisy.tobytes(), b"\x08" * 1000, bytes(5000)):
        (copy / "model.onnx").write_bytes(data)
        describe_again(copy)
        supervisor, events = started(spec(copy))
        await supervisor.start()
        with pytest.raises(AtmoError):
            await supervisor.wait_ready(30.0)
        assert events[-1].state == "failed"
        assert "\n" not in events[-1].detail
        await supervisor.close()


def test_files_that_do_not_go_together_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ModelInvalid, match="is damaged"):
        ImageClassifier.load(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(ModelNotFound, match="lacks"):
        ImageClassifier.load(copy)
    card = json.loads((SHAPES / "vision.json").read_text())
    changes: list[tuple[dict[str, object], str]] = [
        ({"labels": ["one"]}, "names 1 labels and gives 24"),
        ({"side": 7}, "does not take|gives"),
        ({"side": 0}, "no usable size"),
    ]
    for change, what in changes:
        shutil.copy(SHAPES / "model.onnx", copy / "model.onnx")
        (copy / "vision.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(ModelInvalid, match=what):
            ImageClassifier.load(copy)
    with pytest.raises(ModelNotFound, match="no image classifier"):
        ImageClassifier.load(tmp_path / "none")


@pytest.mark.asyncio
async def test_a_node_serves_it_as_a_capability(environ: dict[str, str]) -> None:
    node = Node(load(flags={"serve": ["atmo-shapes"]}))
    await node.start()
    try:
        await node.settled()
        wish = Wish(text="Which shape is this?", type="vision")
        task = Task((Turn("user", "Which shape is this?", images=(picture("circle", "red"),)),))
        events = [event async for event in node.answer(wish, task, 20.0)]
        (labels,) = (event["labels"] for event in events if event["event"] == "labels")
        assert labels[0][0] == "red circle"
        assert node.services["atmo:vision:atmo-shapes"].descriptor.modalities == ("image",)
        bare = Task((Turn("user", "Which shape is this?"),))
        with pytest.raises(UsageError, match="no image to look at"):
            [event async for event in node.answer(wish, bare, 20.0)]
    finally:
        await node.stop()
