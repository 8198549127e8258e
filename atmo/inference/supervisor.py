"""Keeps one engine alive in a worker process, and is an Engine itself: whoever uses it does not see the worker.

Theory of operation. A supervisor goes through lives (`atmo.inference.life`): start a worker, let it load, serve until
it dies, wait, again. A file that kills or is refused by the engine on its first loading would do so for ever: that,
and too many quick deaths in a row, end in `failed`, which is told once and stays. A worker that does not answer a
ping in time hangs and is killed. Requests never wait for a worker that died: they are refused at once, so that the mesh
can route them elsewhere. A worker that nobody asked for long enough is ended on purpose, where that is wanted; then the
next request starts the next life and waits for it.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from atmo.clock import Clock
from atmo.errors import AtmoError, EngineUnavailable
from atmo.generation import Finish, Piece, Task
from atmo.inference.engine import EngineEvent, EngineLoad, ModelFacts, ModelSpec
from atmo.inference.life import Life
from atmo.inference.process import Exit
from atmo.inference.restarts import RestartPolicy, Restarts

_PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """load_within_s: longest loading; ping_every_s, pong_within_s: how a hung worker is found; stop_within_s:
    patience at the end; nice: of the worker process. All guesses; 20 s without a pong is long even on a machine that
    swaps. idle_unload_s: a model that nobody asks for so long is unloaded, 0 for never."""

    load_within_s: float = 300.0
    ping_every_s: float = 5.0
    pong_within_s: float = 20.0
    stop_within_s: float = 2.0
    nice: int = 0
    idle_unload_s: float = 0.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


class Supervisor:
    """on_event is called on the loop with each change of state; it must not block or raise."""

    def __init__(
        self,
        spec: ModelSpec,
        on_event: Callable[[EngineEvent], None],
        clock: Clock,
        *,
        settings: SupervisorSettings | None = None,
        rng: Random | None = None,
    ) -> None:
        self.spec = spec
        self.facts = ModelFacts(engine=spec.engine, slots=max(1, spec.slots))
        self.state = "stopped"
        self._on_event = on_event
        self._clock = clock
        self._settings = settings or SupervisorSettings()
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._restarts = Restarts(self._settings.restarts)
        self._life: Life | None = None
        self._task: asyncio.Task[None] | None = None
        self._chats = 0
        self._uses = 0  # requests of any kind that are being worked on
        self._used_s = 0.0  # when the last of them ended
        self._wanted = asyncio.Event()  # by a request, while the model is unloaded
        self._trouble: AtmoError | None = None
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        pid = f" pid={self.pid}" if self.pid else ""
        return (
            f"<Supervisor {self.spec.name} {self.state}{pid} chats={self._chats} quick_deaths={self._restarts.deaths}>"
        )

    @property
    def pid(self) -> int | None:
        """Of the worker, while there is one."""
        return self._life.worker.pid if self._life else None

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the worker at its last pong, 0 before the first."""
        return self._life.pong.rss_bytes if self._life and self._life.pong else 0

    @property
    def cpu_s(self) -> float:
        """Processor time of the worker at its last pong."""
        return self._life.pong.cpu_s if self._life and self._life.pong else 0.0

    @property
    def last_words(self) -> list[str]:
        """The last lines the worker wrote to its stderr: engines' errors, never prompts."""
        return self._life.worker.stderr if self._life else []

    async def start(self) -> None:
        """Begin; events tell how it goes. Returns before the model is loaded."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait for the model. Raises what made it fail, or EngineUnavailable when it takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._until("ready", "failed")
        except TimeoutError as error:
            raise EngineUnavailable(f"{self.spec.name} is not loaded after {timeout_s:g} s.") from error
        if self.state == "failed" and self._trouble is not None:
            raise self._trouble

    async def _until(self, *states: str) -> None:
        while self.state not in states:
            self._changed.clear()
            await self._changed.wait()

    async def chat(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        self._chats += 1
        try:
            async with self._used() as life, aclosing(life.chat(task)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._chats -= 1

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        async with self._used() as life:
            return await life.embed(tuple(texts))

    async def classify(self, text: str) -> list[tuple[str, float]]:
        async with self._used() as life:
            return await life.classify(text)

    async def classify_image(self, image: bytes) -> list[tuple[str, float]]:
        async with self._used() as life:
            return await life.classify_image(image)

    async def count_tokens(self, text: str) -> int:
        async with self._used() as life:
            return await life.count_tokens(text)

    def load(self) -> EngineLoad:
        """An unloaded model is ready too: whoever asks waits for it."""
        busy = min(self._chats, self.facts.slots)
        ready = self.state in ("ready", "unloaded") or self._waking
        return EngineLoad(self.facts.slots, busy, self._chats - busy, ready)

    async def ping(self) -> None:
        """Ask the worker for its `rss_bytes` and `cpu_s` now. Raises EngineUnavailable when there is none."""
        await self._serving().ping()

    async def close(self) -> None:
        """Stop the worker. Its open requests end with EngineUnavailable."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._life is not None:
            await self._life.stop(self._settings.stop_within_s)
            self._life = None
        self.state = "stopped"
        self._changed.set()

    @asynccontextmanager
    async def _used(self) -> AsyncIterator[Life]:
        """The life that works on a request, which keeps it from being ended for idleness."""
        self._uses += 1
        try:
            if self.state == "unloaded" or self._waking:
                self._wanted.set()
                await self._until("ready", "down", "failed", "stopped")
            yield self._serving()
        finally:
            self._uses -= 1
            self._used_s = self._clock.now()

    @property
    def _waking(self) -> bool:
        return self.state == "loading" and self._wanted.is_set()

    def _serving(self) -> Life:
        if self._life is not None and self.state == "ready":
            return self._life
        if self.state == "failed" and self._trouble is not None:
            raise EngineUnavailable(self._trouble.message, hint=self._trouble.hint)
        what = {"loading": "is still loading", "down": "died and is being restarted", "unloaded": "is unloaded"}.get(
            self.state, "is not running"
        )
        raise EngineUnavailable(f"{self.spec.name} {what}.", hint="Try again in a moment.")

    async def _run(self) -> None:
        """Life after life, until one ends in a failure that a restart cannot mend."""
        was_ready = False
        while True:
            self._tell("loading", f"Loading {self.spec.path}.")
            try:
                self._life = await Life.begin(self.spec, self._settings.nice)
            except OSError as error:
                self._fail(self._no_process(error))
                return
            ready_s = await self._loaded(self._life, first=not was_ready)
            if self.state == "failed":
                return
            was_ready = was_ready or ready_s is not None
            if ready_s is not None and await self._serve(self._life):
                await self._sleep(self._life)
                continue
            if not await self._mourn(self._life, ready_s):
                return

    async def _loaded(self, life: Life, *, first: bool) -> float | None:
        """When the model became ready, in the clock's seconds; None when the worker died instead."""
        watching = asyncio.ensure_future(self._watch_loading(life))
        try:
            async with asyncio.timeout(self._settings.load_within_s):
                facts = await asyncio.shield(life.ready)
        except TimeoutError:
            await self._give_up(life, self._too_slow())
            return None
        except AtmoError as error:
            if life.exit is None:  # alive, and told us: the file is no model, or the engine is not installed
                await self._give_up(life, error)
            elif first and life.exit.crashed:
                await self._give_up(life, self._killed_by_file(life.exit))
            return None
        finally:
            watching.cancel()
        self.facts = facts
        self._tell("ready", f"{self.spec.name} is ready on {facts.engine}.", facts=facts)
        return self._clock.now()

    async def _watch_loading(self, life: Life) -> None:
        """Tell how far loading is, for as long as it takes."""
        while True:
            await asyncio.sleep(_PROGRESS_EVERY_S)
            self._tell("loading", f"Loading {self.spec.path}{_progress(life.worker.pid, self.spec.path)}.")

    async def _serve(self, life: Life) -> bool:
        """Until it dies, or is idle for so long that it should be ended: then True. A ping that is not answered in time
        is its death."""
        self._wanted.clear()
        self._used_s = self._clock.now()
        while not life.dead.done():
            if self._idle_left_s() <= 0:
                return True
            try:
                async with asyncio.timeout(self._settings.pong_within_s):
                    await life.ping()
            except TimeoutError:
                life.kill(f"did not answer for {self._settings.pong_within_s:g} s and was stopped")
                await life.dead
            pause_s = max(0.0, min(self._settings.ping_every_s, self._idle_left_s()))
            await asyncio.wait([life.dead], timeout=pause_s)
        return False

    def _idle_left_s(self) -> float:
        """How much longer nobody may ask before the model is unloaded."""
        most_s = self._settings.idle_unload_s
        if most_s <= 0 or self._uses:
            return math.inf
        return self._used_s + most_s - self._clock.now()

    async def _sleep(self, life: Life) -> None:
        """Unload, until a request wants the model."""
        idle = f"Nobody asked for {self._settings.idle_unload_s:g} s, so the model was unloaded."
        self._tell("unloaded", idle, "The next request loads it again.")
        await life.stop(self._settings.stop_within_s)
        self._life = None
        await self._wanted.wait()

    async def _mourn(self, life: Life, ready_s: float | None) -> bool:
        """After a death: wait for the next life, or say that there will be none."""
        how = await life.dead
        self._life = None
        pause_s = self._restarts.died(0.0 if ready_s is None else self._clock.now() - ready_s, self._rng)
        what = f"The engine of {self.spec.name} {how}"
        if pause_s is None:
            times = f"{what}, and so {self._restarts.deaths} times in a row"
            self._fail(EngineUnavailable(f"{times}.", hint="It is not started again; see `atmo doctor`."))
            return False
        self._tell("down", f"{what}.", f"It is restarted in {pause_s:.1f} s.")
        await asyncio.sleep(pause_s)
        return True

    async def _give_up(self, life: Life, error: AtmoError) -> None:
        self._life = None
        await life.stop(self._settings.stop_within_s)
        self._fail(error)

    def _no_process(self, error: OSError) -> EngineUnavailable:
        return EngineUnavailable(
            f"No process could be started for the engine of {self.spec.name}: {error.strerror}.",
            hint="Check the limits on processes, open files and the disk.",
        )

    def _too_slow(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"The engine did not load {self.spec.path} within {self._settings.load_within_s:g} s.",
            hint="Use a smaller model, or a faster disk.",
        )

    def _killed_by_file(self, ended: Exit) -> EngineUnavailable:
        return EngineUnavailable(
            f"The engine of {self.spec.name} died while loading {self.spec.path}: it {ended}.",
            hint="The file is damaged, hostile or too new for this engine; use another.",
        )

    def _fail(self, error: AtmoError) -> None:
        self._trouble = error
        self._tell("failed", error.message, error.hint)

    def _tell(self, state: str, detail: str, hint: str = "", facts: ModelFacts | None = None) -> None:
        self.state = state
        self._changed.set()
        self._on_event(EngineEvent(state, detail, hint, facts))


def _progress(pid: int, path: str) -> str:
    """For example `, 37%`, as far as resident memory tells it; empty where it does not."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        share = resident / max(1, Path(path).stat().st_size)
    except OSError:
        return ""
    return f", {min(99, int(share * 100))}%"
