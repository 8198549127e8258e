"""What is remembered of requests: metrics, audit trail, log. And what is not: a word of what was said."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from atmo.clock import ManualClock
from atmo.errors import ConfigError, EngineUnavailable
from atmo.gateway import metrics
from atmo.gateway.audit import Audit
from atmo.gateway.trace import Trace
from tests.cluster import eventually
from tests.gateway.support import CHAT, HELLO, Api, PlayedNode, done, http, route, serving, text

CANARY = "zebracanary"


@pytest.fixture
def api(environ: dict[str, str]) -> Iterator[Api]:
    with serving(environ) as running:
        yield running


def scraped(api: Api) -> dict[tuple[str, ...], float]:
    """(name, label values by label...) -> value, as Prometheus reads it."""
    answer = http(api, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found[(sample.name, *(sample.labels[label] for label in sorted(sample.labels)))] = sample.value
    return found


def audited(api: Api, count: int) -> list[dict[str, Any]]:
    """At least so many rows. A client may have its reply a moment before the request is over."""
    return eventually(lambda: rows if len(rows := _rows(api)) >= count else [], f"{count} rows")  # type: ignore[no-any-return]


def _rows(api: Api) -> list[dict[str, Any]]:
    api.gateway._audit.flush()
    database = sqlite3.connect(f"file:{api.config.audit_file}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute("select * from requests order by at_s")]
    finally:
        database.close()


def test_prometheus_reads_what_happened(api: Api) -> None:
    for _ in range(2):
        assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200
    assert http(api, "POST", "/v1/chat/completions", {**CHAT, "model": "unknown-model"}).status == 404
    seen = scraped(api)
    chat = "/v1/chat/completions"
    assert seen["atmo_requests_total", chat, "qwen", "200"] == 2
    assert seen["atmo_requests_total", chat, "", "404"] == 1
    assert seen["atmo_request_seconds_count", chat] == 3
    assert seen["atmo_first_byte_seconds_count", chat] == 3
    assert seen["atmo_tokens_total", "prompt", "qwen"] == 14
    assert seen["atmo_tokens_total", "output", "qwen"] == 6
    assert seen["atmo_tokens_total", "cached", "qwen"] == 4
    assert seen["atmo_routed_total", "elsewhere"] == 2
    assert seen["atmo_decision_seconds_count",] == 2
    assert seen["atmo_requests_in_flight",] == 1, "the scrape itself"
    assert (seen["atmo_peers",], seen["atmo_rows", "node"]) == (2, 3)
    assert (seen["atmo_engine_in_flight", "atmo:chat:qwen"], seen["atmo_engine_slots", "atmo:chat:qwen"]) == (1, 4)
    assert seen["atmo_link_bytes", "out", "gossip"] == 400


def test_retries_and_rescues_are_counted(api: Api) -> None:
    again = {"event": "retry", "because": "It died."}
    moved = {"event": "retry", "because": "It died.", "resumed": True, "other_model": False}
    api.node.plays = [route(), again, route("cellar"), text("Hel"), moved, text("lo"), done(node="cellar")]
    assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200
    seen = scraped(api)
    assert seen["atmo_retries_total", "before the first word"] == 1
    assert seen["atmo_retries_total", "resumed"] == 1
    (row,) = audited(api, 1)
    assert (row["node"], row["retries"], row["resumed"]) == ("cellar", 1, 1)


def test_what_clients_write_makes_no_labels(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_MODELS", 3)
    sizes = []
    for number in range(10):
        http(api, "POST", "/v1/chat/completions", {**CHAT, "model": f"made-up-{number}"})
        http(api, "GET", f"/v1/models/made-up-{number}")
        http(api, "GET", f"/made/up/{number}")
        http(api, "GET", f"/api/requests/{number}")
        sizes.append(len(scraped(api)))
    assert sizes[2:] == sizes[1:-1], "what comes again in another form adds nothing"
    for number in range(10):
        capability = f"atmo:chat:model-{number}"
        api.node.plays = [route(capability=capability), text("x"), done(capability=capability)]
        assert http(api, "POST", "/v1/chat/completions", {**CHAT, "model": "auto"}).status == 200
    seen = scraped(api)
    assert ("atmo_tokens_total", "output", "other") in seen
    assert not any("made-up" in part for place in seen for part in place)
    models = {place[2] for place in seen if place[0] == "atmo_tokens_total"}
    assert models == {"model-0", "model-1", "model-2", "other"}


def test_the_audit_trail_says_who_asked_what_where_and_how_it_ended(api: Api) -> None:
    secret, _ = api.keys.create(1e9, "app", 0, 0, ())
    http(api, "POST", "/v1/chat/completions", CHAT, unix=True)
    while http(api, "POST", "/v1/chat/completions", CHAT).status != 401:
        pass
    http(api, "POST", "/v1/chat/completions", CHAT, key=secret, X_Request_Id="order-7")
    api.node.plays = [route(), text("Hel"), EngineUnavailable("It died.")]
    http(api, "POST", "/v1/chat/completions", {**CHAT, "stream": True}, key=secret)
    eventually(lambda: _rows(api)[-1]["code"] == "engine_unavailable", "the last one is in it")
    rows = _rows(api)
    owners, good, broken = rows[0], rows[-2], rows[-1]
    assert (owners["door"], owners["key"], owners["status"]) == ("unix", "owner", 200)
    assert any((row["status"], row["code"], row["key"]) == (401, "invalid_api_key", "") for row in rows)
    assert (good["id"], good["key"], good["door"], good["asked"]) == ("order-7", "app", "tcp", "qwen")
    assert (good["capability"], good["node"], good["decision"]) == (
        "atmo:chat:qwen", "office", "the only node of its class that can serve this",
    )  # fmt: skip
    assert (good["prompt_tokens"], good["output_tokens"], good["cached_tokens"]) == (7, 3, 2)
    assert 0 < good["first_s"] <= good["total_s"]
    assert (broken["status"], broken["code"]) == (200, "engine_unavailable"), "the status was sent before it broke"
    assert stat.S_IMODE(api.config.audit_file.stat().st_mode) == 0o600
    http(api, "GET", "/health")
    assert len(audited(api, len(rows))) == len(rows), "nobody wants to know who looked whether it lives"


def test_native_requests_are_in_it_too(api: Api) -> None:
    lines = http(api, "POST", "/api/ask", {"text": "Hi", "model": "qwen"}).body.splitlines()
    assert len(lines) == len(HELLO)
    (row,) = audited(api, 1)
    assert (row["endpoint"], row["asked"], row["node"], row["output_tokens"]) == ("/api/ask", "qwen", "office", 3)


def test_no_word_that_was_said_is_kept(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts, answers, tools, images and stop words: not in a log line, an audit row, a metric or an error's log."""
    node = PlayedNode([route(), text(f"{CANARY} answered"), done()])
    messages = [{"role": "user", "content": f"about the {CANARY}"}]
    body = {"model": "qwen", "messages": messages, "stop": [CANARY], "metadata": {"k": CANARY}}
    with serving(environ, node) as api:
        assert http(api, "POST", "/v1/chat/completions", body).status == 200
        assert http(api, "POST", "/v1/chat/completions", {**body, "stream": True}).status == 200
        assert http(api, "POST", "/v1/completions", {"prompt": CANARY, "model": "qwen"}).status == 200
        assert http(api, "POST", "/v1/embeddings", {"input": CANARY, "model": "minilm"}).status == 200
        assert http(api, "POST", "/api/ask", {"text": CANARY}).status == 200
        assert http(api, "POST", "/v1/chat/completions", {"messages": CANARY}).status == 400
        assert http(api, "POST", "/v1/chat/completions", CANARY.encode()).status == 400
        api.node.plays = [route(), EngineUnavailable("It died.")]
        assert http(api, "POST", "/v1/chat/completions", body).status == 503
        assert CANARY not in http(api, "GET", "/metrics").body.decode()
        assert len(audited(api, 8)) == 8
    said = capsys.readouterr()
    assert "request" in said.out, "something was logged"
    assert CANARY not in said.out + said.err
    for file in Path(environ["ATMO_HOME"]).rglob("*"):
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes(), file


def a_trace(number: int) -> Trace:
    return Trace(id=f"r{number}", door="tcp", began_s=0.0, endpoint="/v1/chat/completions", status=200)


def test_the_audit_trail_forgets_what_is_old_and_what_is_too_much(tmp_path: Path) -> None:
    clock = ManualClock()
    file = tmp_path / "audit.db"
    for day, numbers in ((0, range(5)), (2, range(5, 8)), (3, range(8, 20))):
        clock.time_s = day * 86_400.0
        audit = Audit(file, max_days=1.5, max_rows=10, wall=clock.wall)
        audit.start()
        for number in numbers:
            audit.record(a_trace(number))
        audit.close()
    audit = Audit(file, max_days=1.5, max_rows=10, wall=clock.wall)
    audit.start()
    audit.flush()
    audit.close()
    database = sqlite3.connect(file)
    kept = [row[0] for row in database.execute("select id from requests order by rowid")]
    database.close()
    assert kept == [f"r{number}" for number in range(10, 20)]


def test_a_trail_that_is_no_database_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "audit.db"
    file.write_bytes(b"This is a letter, not a database. " * 100)
    with pytest.raises(ConfigError, match=r"audit trail .* cannot be used"):
        Audit(file, max_days=1.0, max_rows=1, wall=lambda: 0.0).start()
