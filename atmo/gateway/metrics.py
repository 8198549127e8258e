"""What Prometheus reads at `/metrics`.

Cardinality is bounded: endpoints are a fixed set, models the first MAX_MODELS names of capabilities that answered (what
a client writes into `model` is never a label), nodes are no label at all. Each node has a registry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from atmo import __version__
from atmo.gateway.handle import Json
from atmo.gateway.trace import Trace

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_MODELS = 100
OTHER = "other"
_Value = tuple[tuple[str, ...], float]
# Seconds. From a decision in microseconds to an answer that takes minutes.
_DECISION = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1)
_LATENCY = (1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """counters: what the node tells of itself, asked at each scrape."""

    def __init__(self, counters: Callable[[], Json]) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self._requests = Counter(
            "atmo_requests",
            "HTTP requests by endpoint, status and model.",
            ("endpoint", "status", "model"),
            registry=own,
        )
        self._seconds = Histogram(
            "atmo_request_seconds",
            "From arrival to the end of the reply.",
            ("endpoint",),
            buckets=_LATENCY,
            registry=own,
        )
        self._first = Histogram(
            "atmo_first_byte_seconds",
            "From arrival to the begin of the reply.",
            ("endpoint",),
            buckets=_LATENCY,
            registry=own,
        )
        self._tokens = Counter("atmo_tokens", "Tokens by model and kind.", ("model", "kind"), registry=own)
        self._routed = Counter("atmo_routed", "Requests by where they were answered.", ("where",), registry=own)
        self._decision = Histogram(
            "atmo_decision_seconds", "Time of a routing decision.", buckets=_DECISION, registry=own
        )
        self._retries = Counter("atmo_retries", "Attempts that failed and went elsewhere.", ("kind",), registry=own)
        self.in_flight = Gauge("atmo_requests_in_flight", "HTTP requests being answered.", registry=own)
        self.registry.register(_NodeCollector(counters))
        self._models: set[str] = set()

    def record(self, trace: Trace) -> None:
        """A request has ended."""
        model = self._model(trace)
        self._requests.labels(trace.endpoint, str(trace.status), model).inc()
        self._seconds.labels(trace.endpoint).observe(trace.total_s)
        if trace.first_s:
            self._first.labels(trace.endpoint).observe(trace.first_s)
        if not trace.mesh_id:
            return
        for kind, count in (
            ("prompt", trace.prompt_tokens), ("output", trace.output_tokens), ("cached", trace.cached_tokens),
        ):  # fmt: skip
            if count:
                self._tokens.labels(model, kind).inc(count)
        if trace.local is not None:
            self._routed.labels("here" if trace.local else "elsewhere").inc()
        self._decision.observe(trace.decision_s)
        if trace.retries:
            self._retries.labels("before the first word").inc(trace.retries)
        if trace.resumed:
            self._retries.labels("resumed").inc(trace.resumed)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _model(self, trace: Trace) -> str:
        if not trace.capability:
            return ""
        if trace.model in self._models or len(self._models) < MAX_MODELS:
            self._models.add(trace.model)
            return trace.model
        return OTHER


class _NodeCollector(Collector):
    """Gauges of the node, read when somebody asks."""

    def __init__(self, counters: Callable[[], Json]) -> None:
        self._counters = counters

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        seen = self._counters()
        yield _gauge("atmo_build_info", "The version that runs.", ("version",), [((__version__,), 1)])
        yield _gauge("atmo_uptime_seconds", "Since the start.", (), [((), seen["uptime_s"])])
        yield _gauge("atmo_peers", "Nodes linked to this one.", (), [((), seen["peers"])])
        yield _gauge("atmo_rows", "Gossiped rows in the table, by kind.", ("kind",), _pairs(seen["rows"]))
        engines = seen["engines"][:MAX_MODELS]
        for name, text in (
            ("queued", "Requests that wait for a slot."), ("in_flight", "Requests in slots."), ("slots", "Slots."),
            ("ready", "1 where the engine answers."),
        ):  # fmt: skip
            values: list[_Value] = [((engine["id"],), float(engine[name])) for engine in engines]
            yield _gauge(f"atmo_engine_{name}", f"{text} Of this node's engines.", ("capability",), values)
        for name, text in (("bytes", "Payload bytes"), ("frames", "Frames")):
            values = [
                ((lane, direction), float(counts[f"{name}_{direction}"]))
                for lane, counts in seen["lanes"].items()
                for direction in ("in", "out")
            ]
            yield _gauge(f"atmo_link_{name}", f"{text} over the links that are up now.", ("lane", "direction"), values)


def _pairs(counts: dict[str, int]) -> list[_Value]:
    return [((name,), float(count)) for name, count in counts.items()]


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Sequence[_Value]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for place, value in values:
        family.add_metric(list(place), value)
    return family
