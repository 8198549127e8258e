"""The OpenAPI description tells the truth, and its page needs nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.support import CHAT, Api, http, serving, world


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with world() as environ, serving(environ) as running:
        yield running


def test_every_endpoint_is_described(api: Api) -> None:
    paths = http(api, "GET", "/openapi.json").json["paths"]
    assert {
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/{model}",
        "/api/ask", "/api/route", "/api/status", "/health", "/ready", "/metrics",
    } <= set(paths)  # fmt: skip


def test_requests_made_from_the_description_are_answered_as_it_says(api: Api) -> None:
    """schemathesis invents requests, right and wrong ones, for every endpoint of OpenAI's API."""
    description = http(api, "GET", "/openapi.json").json
    schema: Any = schemathesis.openapi.from_dict(description).include(path_regex="^/v1/")
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def probe(case: Any) -> None:
            nonlocal tried
            tried += 1
            response = case.call(base_url=api.url, timeout=10)
            assert response.status_code < 500, response.text
            case.validate_response(
                response, checks=[status_code_conformance, content_type_conformance, response_schema_conformance]
            )

        probe()
    assert tried > 100
    assert http(api, "POST", "/v1/chat/completions", CHAT).status == 200


def test_the_page_works_offline(api: Api) -> None:
    answer = http(api, "GET", "/docs")
    page = answer.body.decode()
    assert answer.status == 200
    assert "<script" not in page
    assert set(re.findall(r"""(?:src|href)=["']?([^"'> ]*)""", page)) == {"/openapi.json"}
    assert "url(" not in page
    assert "@import" not in page
    for told in ("/v1/chat/completions", "ChatRequest", "max_completion_tokens", "/api/route", f"127.0.0.1:{api.port}"):
        assert told in page


def test_health_and_readiness(api: Api) -> None:
    assert http(api, "GET", "/health").json == {"status": "ok"}
    ready = http(api, "GET", "/ready")
    assert (ready.status, ready.json["status"]) == (200, "ready")
    original = api.node.status
    try:
        for states, status in ((["loading", "ready"], 503), (["failed"], 503), (["failed", "ready"], 200), ([], 200)):
            engines = [{"id": f"e{at}", "state": state} for at, state in enumerate(states)]
            api.node.status = lambda engines=engines: {"capabilities": engines}  # type: ignore[method-assign, misc]
            assert http(api, "GET", "/ready").status == status, states
    finally:
        api.node.status = original  # type: ignore[method-assign]
