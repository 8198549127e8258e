"""`atmo models pull`."""

from __future__ import annotations

import sys
import time

from atmo.cli import model_views, models_commands, output
from atmo.cli.peer_source import PeerSource
from atmo.cli.progress import Bar
from atmo.config import Config, load
from atmo.errors import UsageError
from atmo.models.hub import HubSource
from atmo.models.pulling import Progress, Source
from atmo.models.pulling import pull as pull_model
from atmo.models.reference import Reference, parse
from atmo.models.web import FileSource, UrlSource

# Looks at the screen a second; more would only cost.
_FRAMES = 10


def pull(
    text: str, name: str, source: str, node: str, home: str | None, *, pin: bool, share: bool, as_json: bool
) -> None:
    config = load({"home": home})
    store = models_commands.open_store(config)
    wanted = parse(text)
    watcher = _Watcher(wanted)
    begun_s = time.monotonic()
    with Bar(f"Fetching {_short(wanted)}", quiet=as_json) as bar:
        watcher.bar = bar
        try:
            pulled = pull_model(wanted, name, store, _chosen(source, wanted, config, node), watcher.tell)
        except KeyboardInterrupt:
            watcher.stopped = True
    if watcher.stopped:
        watcher.say_how_to_go_on()
        sys.exit(130)
    model = pulled.model
    new = bool(pulled.source)
    if pin or (share and new and pulled.source != FileSource.label and not model.record.shared):
        may_share = share and new and pulled.source != FileSource.label
        model = store.mark(model.root, pinned=pin or None, shared=may_share or None)
    if new and not share and model.record.shared:
        model = store.mark(model.root, shared=False)  # what peers gave is given on unless its user says otherwise
    report = {
        "model": models_commands.stored(model),
        "new": new,
        "from": pulled.source,
        "notes": [failure.message for failure in pulled.failures],
        "fetched_bytes": watcher.fetched_bytes,
        "seconds": round(time.monotonic() - begun_s, 3),
    }
    if as_json:
        output.print_json(report)
    else:
        output.console().print(model_views.pulled(output.harmless(report)))


def sources(config: Config, node: str) -> list[Source]:
    """In the order in which they are asked."""
    hub = HubSource()
    return [PeerSource(config, node, hub), hub, UrlSource(), FileSource()]


def _chosen(label: str, wanted: Reference, config: Config, node: str) -> list[Source]:
    known = sources(config, node)
    if not label:
        return known
    if label == PeerSource.label:
        return [PeerSource(config, node)]  # nobody else is asked, so what peers say is what there is
    chosen = [source for source in known if source.label == label]
    if not chosen:
        labels = ", ".join(source.label for source in known)
        raise UsageError(f"Models do not come from {label!r}.", hint=f"Use one of: {labels}.")
    return chosen


class _Watcher:
    """From a source's reports to the bar, and to what is said when a person stops it."""

    def __init__(self, wanted: Reference) -> None:
        self.bar: Bar | None = None
        self.stopped = False
        self.fetched_bytes = 0
        self._wanted = wanted
        self._last = Progress(0, 0)
        self._shown_s = 0.0

    def tell(self, progress: Progress) -> None:
        self._last = progress
        self.fetched_bytes = progress.done_bytes - progress.resumed_bytes
        now_s = time.monotonic()
        if self.bar is not None and (
            now_s - self._shown_s > 1 / _FRAMES or progress.done_bytes == progress.total_bytes
        ):
            self._shown_s = now_s
            what = f"{progress.doing.capitalize()} {_short(self._wanted)}"
            self.bar.at(progress.done_bytes, progress.total_bytes, progress.sources, what)

    def say_how_to_go_on(self) -> None:
        last = self._last
        share = f" at {last.done_bytes / last.total_bytes:.0%}" if last.total_bytes else ""
        command = f"atmo models pull {self._wanted.text}"
        output.aside().print(
            f"Stopped{share}. What is there is kept; go on with: {output.harmless(command)}",
            markup=False,
            soft_wrap=True,
        )


def _short(wanted: Reference) -> str:
    return (wanted.path.strip("/") or wanted.repo or wanted.value).rpartition("/")[2][:40] or wanted.repo
