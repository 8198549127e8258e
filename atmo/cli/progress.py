"""How far something long is, on standard error: bytes, speed, who sends, time left. Where no person reads, nothing."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from atmo.cli import output


class Bar:
    """quiet: show nothing, as for `--json`."""

    def __init__(self, what: str, *, quiet: bool = False, total_bytes: int = 0) -> None:
        console = output.aside()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[sources]}", style="dim"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task(what, total=total_bytes or None, sources="")
        self._done = 0

    def more(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def at(self, done: int, total: int, sources: tuple[str, ...] = (), what: str = "") -> None:
        """total: 0 while it is unknown."""
        shown = sources[0] if len(sources) == 1 else f"{len(sources)} sources" if sources else ""
        fields = {"description": output.harmless(what)} if what else {}
        # What was there before is no speed: the first report sets the start.
        if not self._done:
            self._progress.reset(self._task, completed=done, total=total or None, sources=output.harmless(shown))
        self._done = done
        self._progress.update(self._task, completed=done, total=total or None, sources=output.harmless(shown), **fields)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
