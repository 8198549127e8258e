"""docs/metrics.md from the registry that a node shows to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics import MetricWrapperBase

from atmo.gateway.metrics import Metrics

HEAD = """# Metrics

Written by `make docs` from what a node shows at `/metrics`; do not edit. What to do with them:
[monitoring](how-to/monitoring.md). A counter's name ends in `_total` there; a histogram has `_bucket`, `_sum` and
`_count`. Labels are bounded: nothing that a client writes becomes one.

| metric | kind | labels | |
|---|---|---|---|
"""
# A node with one of each, so that every gauge has a value and with it its labels.
_ENGINE = {"id": "a", "queued": 0, "in_flight": 0, "slots": 0, "ready": 0}
_LANE = {"bytes_in": 0, "bytes_out": 0, "frames_in": 0, "frames_out": 0}
_SEEN = {"uptime_s": 0, "peers": 0, "rows": {"node": 1}, "engines": [_ENGINE], "lanes": {"control": _LANE}}


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(
        f"| `{name}` | {kind} | {labels} | {text} |\n" for name, kind, labels, text in sorted(_rows())
    )


def _rows() -> Iterator[tuple[str, str, str, str]]:
    registry = Metrics(lambda: _SEEN).registry
    labels = {
        collector._name: collector._labelnames
        for collector in registry._collector_to_names
        if isinstance(collector, MetricWrapperBase)
    }
    for metric in registry.collect():
        seen = [label for sample in metric.samples[:1] for label in sample.labels]
        own = labels.get(metric.name, seen)
        yield metric.name, metric.type, ", ".join(f"`{label}`" for label in own), metric.documentation
