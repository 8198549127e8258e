"""Encoder and classifier as engines in worker processes."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from atmo.errors import ModelNotFound, UsageError
from atmo.inference.engine import ModelSpec
from tests.inference.running import answer, job, running, started

ASSETS = Path(__file__).parents[2] / "atmo" / "assets"
TONE = ASSETS / "tone"


def onnx_spec(kind: str, path: Path) -> ModelSpec:
    return ModelSpec(name=path.name, kind=kind, path=str(path), engine="onnx")


@pytest.mark.asyncio
async def test_the_encoder_makes_unit_vectors_that_know_meaning() -> None:
    async with running(onnx_spec("encoder", ASSETS / "encoder")) as supervisor:
        bill, invoice, frog = await supervisor.embed(["pay the bill", "settle the invoice", "a green frog"])
        tokenizer = Tokenizer.from_file(str(ASSETS / "encoder" / "tokenizer.json"))
        assert await supervisor.count_tokens("pay the bill") == len(tokenizer.encode("pay the bill").ids)
        assert supervisor.facts.engine == "onnx"
        assert supervisor.load().ready
        with pytest.raises(UsageError, match="does not chat"):
            await answer(supervisor, job())
        with pytest.raises(UsageError, match="has no labels"):
            await supervisor.classify("a")
    assert len(bill) == 384
    assert math.isclose(math.hypot(*bill), 1.0, abs_tol=1e-3)
    assert _dot(bill, invoice) > _dot(bill, frog) + 0.2


@pytest.mark.asyncio
@pytest.mark.skipif(
    not any(TONE.glob("*.onnx")) or find_spec("atmo.inference.classifier") is None, reason="atmo-tone is not built"
)
async def test_the_classifier_gives_all_labels_the_likeliest_first() -> None:
    async with running(onnx_spec("classifier", TONE)) as supervisor:
        labels = await supervisor.classify("I love it, it works perfectly")
        assert await supervisor.count_tokens("I love it") > 1
        with pytest.raises(UsageError, match="makes no embeddings"):
            await supervisor.embed(["a"])
    shares = [share for _, share in labels]
    assert shares == sorted(shares, reverse=True)
    assert math.isclose(sum(shares), 1.0, abs_tol=1e-3)
    assert labels[0][0] == "positive"


@pytest.mark.asyncio
async def test_an_absent_model_is_refused(tmp_path: Path) -> None:
    supervisor, events = started(onnx_spec("encoder", tmp_path / "none"))
    await supervisor.start()
    with pytest.raises(ModelNotFound, match="There is no model"):
        await supervisor.wait_ready(30.0)
    assert events[-1].state == "failed"
    await supervisor.close()


def _dot(ours: list[float], theirs: list[float]) -> float:
    return sum(a * b for a, b in zip(ours, theirs, strict=True))
