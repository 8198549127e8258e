"""Memory: what a model will take is known before it is loaded, and what is not there is refused with the numbers."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from atmo.errors import AtmoError, EngineUnavailable, UsageError
from atmo.generation import Piece, Task, Turn
from atmo.inference.engine import ModelSpec
from atmo.inference.engines.memory import Free, check, need
from atmo.inference.engines.sizing import Sizing, size
from atmo.models.gguf import GgufInfo, read_gguf
from tests.inference.big import write_idle
from tests.inference.gguf_maker import song, write_parrot
from tests.inference.running import (
    LLAMA_ENGINES,
    QUICK,
    answer,
    gguf_spec,
    job,
    running,
    skip_reason,
    started,
    text_of,
    until,
)

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
# A 7B model of four bits: 4 GiB of weights, 128 KiB a token.
SEVEN = GgufInfo("llama", "m", 7 * 10**9, 32768, "Q4_K_M", 32000, True, 128 << 10, 4 * GIB, False, 32, 4096)
SIZING = Sizing(threads=8, context=8192, slots=4, batch=512)
SPEC = ModelSpec(name="m", kind="gguf", path="m", slots=4)


def test_the_need_is_the_sum_of_its_parts() -> None:
    found = need(SEVEN, SIZING)
    assert found.weights == 4 * GIB
    assert found.cache == 4 * GIB  # 128 KiB x 8192 tokens x 4 slots
    assert 0.1 * GIB < found.compute < 0.5 * GIB
    assert found.ram == found.weights + found.cache + found.compute + (50 << 20)
    assert found.vram == 0
    on_gpu = need(SEVEN, SIZING, gpu_layers=-1)
    assert on_gpu.vram == pytest.approx(8 * GIB + found.compute)
    assert on_gpu.ram < GIB
    half = need(SEVEN, SIZING, gpu_layers=11)
    assert half.vram == pytest.approx(8 * GIB / 3 + found.compute, rel=0.01)


@pytest.mark.parametrize(
    ("free", "what", "hint"),
    [
        (Free(6 * GIB), r"needs about 8\.\d\d GiB of memory, and 6\.00 GiB are free", "inference.context = 3"),
        (Free(2 * GIB), r"4\.00 GiB for its weights, 4\.00 GiB for 4 x 8192 tokens", "smaller quantisation"),
        (Free(64 * GIB, 6 * GIB), r"of GPU memory, and 6\.00 GiB are free", "inference.context = 3"),
        (Free(64 * GIB, GIB), "of GPU memory, and 1.00 GiB are free", "gpu_layers"),
    ],
)
def test_a_refusal_has_the_numbers_and_a_way_out(free: Free, what: str, hint: str) -> None:
    with pytest.raises(EngineUnavailable, match=what) as caught:
        check(SPEC, SEVEN, SIZING, free)
    assert hint in caught.value.hint


def test_the_advice_fits() -> None:
    with pytest.raises(EngineUnavailable) as caught:
        check(SPEC, SEVEN, SIZING, Free(6 * GIB))
    context = int(caught.value.hint.split("inference.context = ")[1].split()[0])
    check(SPEC, SEVEN, Sizing(8, context, 4, 512), Free(6 * GIB))
    check(SPEC, SEVEN, SIZING, Free(9 * GIB))
    check(SPEC, SEVEN, SIZING, Free(GIB, 12 * GIB))


@pytest.mark.asyncio
@pytest.mark.parametrize("engine", LLAMA_ENGINES)
async def test_the_estimate_is_near_what_a_loaded_model_takes(engine: str, tmp_path: Path) -> None:
    """Within a third, and not below nine tenths: weights, context and buffers each count here."""
    if reason := skip_reason(engine):
        pytest.skip(reason)
    model = write_idle(tmp_path / "idle.gguf", width=512, layers=4, context=4096)
    spec = gguf_spec(model, engine, context=4096, slots=4)
    info = read_gguf(model)
    estimate = need(info, size(spec, info))
    assert min(estimate.weights, estimate.cache, estimate.compute) > 20 << 20
    async with running(spec) as supervisor:
        await answer(supervisor, job("x " * 300, max_tokens=5))
        await supervisor.ping()
        real = supervisor.rss_bytes
    assert 0.9 * real < estimate.ram < 1.33 * real, f"estimated {estimate.ram >> 20} MiB, takes {real >> 20} MiB"


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from tests.inference.running import gguf_spec, started
async def main():
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    supervisor, _ = started(gguf_spec(Path(sys.argv[1]), sys.argv[2], context=8192, slots=128))
    await supervisor.start()
    try:
        await supervisor.wait_ready(60.0)
    except Exception as error:
        print(type(error).__name__, error)
    await supervisor.close()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are Linux's")
@pytest.mark.parametrize("engine", LLAMA_ENGINES)
def test_a_model_beyond_the_limit_of_its_process_is_refused_before_it_is_loaded(engine: str, tmp_path: Path) -> None:
    if reason := skip_reason(engine):
        pytest.skip(reason)
    model = write_idle(tmp_path / "idle.gguf", width=256, layers=4, context=8192)
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model), engine],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert ended.stdout.startswith("EngineUnavailable parrot needs about 4."), ended.stdout + ended.stderr
    assert "128 x 8192 tokens of context" in ended.stdout
    assert "inference.context = " in ended.stdout


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are Linux's")
async def test_a_worker_out_of_memory_costs_its_own_requests_and_comes_back(tmp_path: Path) -> None:
    supervisor, _ = started(gguf_spec(write_parrot(tmp_path / "parrot.gguf")))
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    assert text_of((await answer(supervisor, job(max_tokens=3)))[0]) == "abc"
    pid = supervisor.pid
    assert pid is not None
    now = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (now, now))  # no more than it has
    huge = Task((Turn("user", "see", images=(b"x" * (19 << 20), b"y" * (19 << 20))),))
    with pytest.raises(AtmoError) as caught:
        await answer(supervisor, huge)
    assert not isinstance(caught.value, UsageError), "it could not even be read"
    await until(lambda: supervisor.state == "ready" and supervisor.pid != pid, 30.0)
    assert text_of((await answer(supervisor, job(max_tokens=3)))[0]) == "abc"
    await supervisor.close()


@pytest.mark.asyncio
async def test_an_idle_model_is_unloaded_and_comes_back_when_it_is_wanted(tmp_path: Path) -> None:
    idle = replace(QUICK, idle_unload_s=0.3)
    supervisor, events = started(gguf_spec(write_parrot(tmp_path / "parrot.gguf")), idle)
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    pid = supervisor.pid
    assert pid is not None
    await until(lambda: supervisor.state == "unloaded")
    assert "Nobody asked for 0.3 s" in events[-1].detail
    await until(lambda: supervisor.pid is None)
    assert not psutil.pid_exists(pid)
    assert supervisor.load().ready, "it may be asked"
    answers = await asyncio.gather(*(answer(supervisor, job(f"{n}", max_tokens=30)) for n in range(3)))
    assert [text_of(pieces) for pieces, _ in answers] == [song(30)] * 3
    await until(lambda: supervisor.state == "unloaded")
    assert await supervisor.count_tokens("abc") == 3
    assert [event.state for event in events if event.state in ("down", "failed")] == []
    await until(lambda: supervisor.state == "unloaded")
    waiting = asyncio.ensure_future(supervisor.count_tokens("abc"))
    await until(lambda: supervisor.state == "loading")
    await supervisor.close()
    with pytest.raises(EngineUnavailable):
        await waiting


@pytest.mark.asyncio
async def test_a_long_answer_is_no_idleness(tmp_path: Path) -> None:
    parrot = write_parrot(tmp_path / "parrot.gguf", context=8192)
    async with running(gguf_spec(parrot), replace(QUICK, idle_unload_s=0.05)) as supervisor:
        said: list[str] = []
        async for part in supervisor.chat(job(max_tokens=4000)):
            said.append(part.text if isinstance(part, Piece) else "")
            if len(said) % 400 == 0:
                await asyncio.sleep(0.06)  # longer than the model may be idle
    assert "".join(said) == song(4000)
