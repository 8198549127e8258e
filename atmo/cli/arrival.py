"""A model on its way, for people: a bar with speed, sources and time left at a terminal, else a line now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atmo.cli import output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

# Without a terminal, a line is printed each time so much more is here.
STEP = 0.25


class Arrival:
    """Show each `transfer` and `loading` event; `close` it when something else is printed or all is over. console:
    standard error where none is given."""

    def __init__(self, console: Console | None = None) -> None:
        self._given = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._told = -1.0

    @property
    def _console(self) -> Console:
        return self._given or output.aside()

    def show(self, event: dict[str, Any]) -> None:
        if event["event"] == "loading":
            self.close()
            self._console.print(f"[dim]loading {event['model']} at {event['at']} ...[/]")
        elif self._console.is_terminal:
            self._bar(event)
        else:
            self._line(event)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _bar(self, event: dict[str, Any]) -> None:
        from atmo.cli import views

        if self._progress is None:
            self._progress = _progress(self._console)
            self._task = self._progress.add_task(event["model"], total=event["bytes_total"] or None, speed="")
            self._progress.start()
        assert self._task is not None
        self._progress.update(
            self._task,
            completed=event["bytes_done"],
            total=event["bytes_total"] or None,
            speed=views.transfer_speed(event),
        )

    def _line(self, event: dict[str, Any]) -> None:
        from atmo.cli import views

        share = event["bytes_done"] / event["bytes_total"] if event["bytes_total"] else 0.0
        if share >= self._told + STEP or (share == 1.0 and self._told < 1.0):
            self._told = share
            speed = views.transfer_speed(event)
            self._console.print(f"{event['model']}: {share:.0%} {speed}".rstrip(), markup=False)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
    )
