"""Which engine a model gets, and how many threads and how much context."""

from __future__ import annotations

from pathlib import Path

import pytest

from atmo.errors import ConfigError, EngineUnavailable
from atmo.host import Host
from atmo.inference import engines
from atmo.inference.engine import ModelSpec
from atmo.inference.engines import choose, sizing
from atmo.models.gguf import GgufInfo
from tests.inference.running import gguf_spec

GIB = 2**30


def info(parameters: int = 3_000_000, context: int = 4096, kv_bytes_per_token: int = 1000) -> GgufInfo:
    return GgufInfo("llama", "m", parameters, context, "Q8_0", 100, True, kv_bytes_per_token, 1)


def spec(kind: str = "gguf", engine: str = "auto", context: int = 0, threads: int = 0) -> ModelSpec:
    return ModelSpec(name="m", kind=kind, path="m", engine=engine, context=context, threads=threads, slots=4)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores and 16 GiB."""
    monkeypatch.setattr(Host, "cores", lambda self: 8)
    monkeypatch.setattr(Host, "memory_bytes", lambda self: 16 * GIB)


def test_small_models_get_one_thread_and_large_ones_all_cores() -> None:
    assert sizing.size(spec(), info(parameters=3_000_000)).threads == 1
    assert sizing.size(spec(), info(parameters=7_000_000_000)).threads == 8
    assert sizing.size(spec(threads=3), info(parameters=7_000_000_000)).threads == 3


@pytest.mark.parametrize(
    ("asked", "trained", "kv_bytes", "given"),
    [
        (0, 4096, 1000, 4096),  # the model's own
        (512, 4096, 1000, 512),  # what was asked for
        (9999, 4096, 1000, 4096),  # at most what it was trained for
        (0, 131_072, 131_072, 8192),  # halved until four slots fit into 4 GiB
        (131_072, 131_072, 131_072, 131_072),  # whoever asks for it gets it
        (0, 0, 1000, 4096),  # a file that does not say
    ],
)
def test_context(asked: int, trained: int, kv_bytes: int, given: int) -> None:
    described = info(context=trained, kv_bytes_per_token=kv_bytes)
    assert sizing.size(spec(context=asked), described).context == given


def test_auto_takes_the_best_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda module: module)
    assert choose(spec()) == "xllamacpp"
    assert choose(spec(engine="llama-cpp-python")) == "llama-cpp-python"
    assert choose(spec(kind="encoder")) == "onnx"
    monkeypatch.setattr(engines, "find_spec", lambda module: module if module == "llama_cpp" else None)
    assert choose(spec()) == "llama-cpp-python"


def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    with pytest.raises(EngineUnavailable, match="needs the engine xllamacpp, which is not installed") as caught:
        choose(gguf_spec(Path("m.gguf")))
    assert caught.value.hint == "pip install xllamacpp."
    with pytest.raises(EngineUnavailable, match="llama-cpp-python"):
        choose(spec(engine="llama-cpp-python"))


def test_engine_and_kind_must_go_together() -> None:
    for wrong in (spec(engine="onnx"), spec(kind="encoder", engine="xllamacpp"), spec(kind="fish")):
        with pytest.raises(ConfigError, match="There is no engine"):
            choose(wrong)
