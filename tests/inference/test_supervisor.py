"""What a supervisor does when its worker is killed, hangs, is fed a hostile file, or when the node itself dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from atmo.errors import ContextOverflow, EngineUnavailable, ModelInvalid, ModelNotFound
from atmo.inference.engine import EngineEvent
from atmo.inference.supervisor import Supervisor
from tests.inference.gguf_maker import song, write_parrot
from tests.inference.running import QUICK, answer, gguf_spec, job, running, started, text_of, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parrot(tmp_path: Path) -> Path:
    return write_parrot(tmp_path / "parrot.gguf")


def states(events: list[EngineEvent]) -> list[str]:
    """The states in order, repeated tellings of one counted once."""
    told = [event.state for event in events]
    return [state for at, state in enumerate(told) if at == 0 or told[at - 1] != state]


def kill(supervisor: Supervisor, number: int) -> int:
    pid = supervisor.pid
    assert pid is not None
    os.kill(pid, number)
    return pid


@pytest.mark.asyncio
async def test_a_killed_worker_costs_its_own_answer_and_comes_back(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot))
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    async with aclosing(supervisor.chat(job(max_tokens=0))) as endless:
        await anext(endless)
        kill(supervisor, signal.SIGKILL)
        with pytest.raises(
            EngineUnavailable, match=r"The engine of parrot was killed \(SIGKILL\), most likely because"
        ):
            async for _ in endless:
                pass
    assert supervisor.load().slots_busy == 0
    await until(lambda: states(events) == ["loading", "ready", "down", "loading", "ready"])
    assert text_of((await answer(supervisor, job(max_tokens=3)))[0]) == "abc"
    down = next(event for event in events if event.state == "down")
    assert "SIGKILL" in down.detail
    assert "It is restarted in 0." in down.hint
    await supervisor.close()


@pytest.mark.asyncio
async def test_requests_are_refused_at_once_while_there_is_no_worker(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot))
    with pytest.raises(EngineUnavailable, match="parrot is not running"):
        await supervisor.count_tokens("a")
    await supervisor.start()
    await until(lambda: events)
    with pytest.raises(EngineUnavailable, match="parrot is still loading"):
        await answer(supervisor, job())
    assert not supervisor.load().ready
    await supervisor.wait_ready(30.0)
    assert supervisor.load().ready
    kill(supervisor, signal.SIGSEGV)
    await until(lambda: supervisor.state == "down")
    with pytest.raises(EngineUnavailable, match="parrot died and is being restarted"):
        await answer(supervisor, job())
    assert "SIGSEGV" in events[-1].detail
    await supervisor.close()


@pytest.mark.asyncio
async def test_a_hung_worker_is_found_killed_and_replaced(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot), replace(QUICK, pong_within_s=0.5))
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    hung = kill(supervisor, signal.SIGSTOP)
    asked = asyncio.ensure_future(supervisor.count_tokens("a"))
    with pytest.raises(EngineUnavailable, match=r"did not answer for 0\.5 s and was stopped"):
        await asked
    await until(lambda: not psutil.pid_exists(hung))
    await until(lambda: supervisor.state == "ready" and supervisor.pid != hung)
    assert [event.state for event in events if event.state == "failed"] == []
    await supervisor.close()


@pytest.mark.asyncio
async def test_quick_deaths_in_a_row_end_in_failed(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot))
    await supervisor.start()
    for _ in range(QUICK.restarts.quick_deaths):
        await until(lambda: supervisor.state == "ready")
        pid = kill(supervisor, signal.SIGKILL)
        await until(lambda gone=pid: not psutil.pid_exists(gone))  # type: ignore[misc]
        await until(lambda: supervisor.state != "ready")
    await until(lambda: supervisor.state == "failed")
    assert "4 times in a row" in events[-1].detail
    assert supervisor.pid is None
    with pytest.raises(EngineUnavailable, match="times in a row"):
        await answer(supervisor, job())
    await supervisor.close()


@pytest.mark.asyncio
async def test_a_file_that_makes_llama_cpp_abort_fails_once_and_is_named(tmp_path: Path) -> None:
    hostile = write_parrot(tmp_path / "hostile.gguf", epsilon=-1.0)
    supervisor, events = started(gguf_spec(hostile))
    await supervisor.start()
    with pytest.raises(EngineUnavailable, match=r"died while loading .*hostile\.gguf: it died \(SIGABRT\)"):
        await supervisor.wait_ready(30.0)
    assert states(events) == ["loading", "failed"]
    assert "\n" not in events[-1].detail
    assert events[-1].hint
    await supervisor.close()


@pytest.mark.asyncio
async def test_a_truncated_or_absent_file_is_refused_in_one_line(tmp_path: Path, parrot: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(parrot.read_bytes()[:-1000])
    for path, kind, what in (
        (cut, ModelInvalid, "cut short"),
        (tmp_path / "none.gguf", ModelNotFound, "no model file"),
    ):
        supervisor, events = started(gguf_spec(path))
        await supervisor.start()
        with pytest.raises(kind, match=what):
            await supervisor.wait_ready(30.0)
        assert states(events) == ["loading", "failed"]
        assert "\n" not in events[-1].detail
        await supervisor.close()


@pytest.mark.asyncio
async def test_loading_that_takes_too_long_is_given_up(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot), replace(QUICK, load_within_s=0.01))
    await supervisor.start()
    with pytest.raises(EngineUnavailable, match=r"did not load .*parrot\.gguf within 0\.01 s"):
        await supervisor.wait_ready(30.0)
    assert states(events) == ["loading", "failed"]
    assert supervisor.pid is None
    await supervisor.close()


@pytest.mark.asyncio
async def test_closing_ends_open_answers_and_leaves_no_process(parrot: Path) -> None:
    supervisor, _ = started(gguf_spec(parrot))
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    pid = supervisor.pid
    async with aclosing(supervisor.chat(job(max_tokens=0))) as endless:
        await anext(endless)
        await supervisor.close()
        with pytest.raises(EngineUnavailable, match="was stopped"):
            async for _ in endless:
                pass
    assert pid is not None
    assert not psutil.pid_exists(pid)
    await supervisor.close()
    assert supervisor.state == "stopped"


@pytest.mark.asyncio
async def test_closing_while_loading_leaves_no_process(parrot: Path) -> None:
    supervisor, events = started(gguf_spec(parrot))
    await supervisor.start()
    await until(lambda: supervisor.pid)
    pid = supervisor.pid
    await supervisor.close()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert states(events) == ["loading"]


@pytest.mark.asyncio
async def test_closing_at_any_moment_of_the_start_leaves_no_process(parrot: Path) -> None:
    for steps in range(12):
        supervisor, _ = started(gguf_spec(parrot))
        await supervisor.start()
        for _ in range(steps):
            await asyncio.sleep(0.003)
        await supervisor.close()
        assert not _workers()


@pytest.mark.asyncio
async def test_a_machine_that_can_start_no_process_says_so(parrot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(parrot.parent / "no-python"))
    supervisor, events = started(gguf_spec(parrot))
    await supervisor.start()
    with pytest.raises(EngineUnavailable, match="No process could be started for the engine of parrot: No such file"):
        await supervisor.wait_ready(30.0)
    assert states(events) == ["loading", "failed"]
    await supervisor.close()


NODE = """
import asyncio, sys
from atmo.clock import SystemClock
from atmo.inference.supervisor import Supervisor
from tests.inference.running import gguf_spec
async def main():
    supervisor = Supervisor(gguf_spec(sys.argv[1]), lambda event: None, SystemClock())
    await supervisor.start()
    await supervisor.wait_ready(30.0)
    print(supervisor.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_killed_node_leaves_neither_worker_nor_folder(parrot: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", NODE, str(parrot), cwd=ROOT, stdout=subprocess.PIPE, env=environment
    )
    assert node.stdout is not None
    worker = int(await node.stdout.readline())
    assert psutil.pid_exists(worker)
    node.kill()
    await node.wait()
    await until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)
    assert list(temporary.iterdir()) == []


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_nobody_can_connect_to_a_worker_and_it_knows_no_secrets(
    parrot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with running(gguf_spec(parrot, "xllamacpp")) as supervisor:
        worker = psutil.Process(supervisor.pid)
        listening = [each for each in worker.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        names = [str(each.laddr) for each in worker.net_connections("unix")]
        assert listening == []
        assert [name for name in names if name and Path(name).exists()] == []
        assert "OPENAI_API_KEY" not in worker.environ()


@pytest.mark.asyncio
async def test_an_idle_worker_rests_and_reports_its_memory(parrot: Path) -> None:
    async with running(gguf_spec(parrot)) as supervisor:
        await answer(supervisor, job(max_tokens=5))
        await supervisor.ping()
        before_s = supervisor.cpu_s
        await asyncio.sleep(1.0)  # a stretch of idleness is what is measured
        await supervisor.ping()
        assert supervisor.cpu_s - before_s < 0.05
        assert 10_000_000 < supervisor.rss_bytes < 1_000_000_000
        assert "ready" in repr(supervisor)


@pytest.mark.asyncio
async def test_no_prompt_is_ever_written_to_stderr(parrot: Path) -> None:
    async with running(gguf_spec(parrot, context=256)) as supervisor:
        for text in ("my-secret", "my-secret " * 100):
            try:
                await answer(supervisor, job(text))
            except ContextOverflow:
                pass
        assert "my-secret" not in " ".join(supervisor.last_words)


@pytest.mark.asyncio
async def test_a_supervisor_works_on_uvloop_too(parrot: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def story() -> str:
        async with running(gguf_spec(parrot)) as supervisor:
            return text_of((await answer(supervisor, job(max_tokens=30)))[0])

    def run() -> str:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(story())

    assert await asyncio.to_thread(run) == song(30)


def _workers() -> list[psutil.Process]:
    """Children of this process that are workers and have not ended."""
    found = []
    for child in psutil.Process().children():
        try:
            if "atmo.inference.worker" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue  # it has just ended
    return found
