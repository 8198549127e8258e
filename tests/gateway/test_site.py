"""The web page over HTTP: what is sent, how heavy it is, who may use it. test_page.py drives it in a browser."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atmo.gateway.site import FOLDER
from tests.gateway.support import CHAT, Api, http, serving, world

MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with world() as environ, serving(environ) as running:
        yield running


def files(api: Api) -> list[str]:
    """The addresses of all that the page loads."""
    return re.findall(r'(?:src|href)="(/web/[^"#]+)"', http(api, "GET", "/").body.decode())


def test_the_page_and_all_it_needs_weigh_little(api: Api) -> None:
    """Sent plain, it is within the limit; compressed, a fraction of it."""
    names = {address.rpartition("/")[2] for address in files(api)}
    assert names == {path.name for path in FOLDER.iterdir()} - {"index.html"}, (
        "every file is loaded, and none is missing"
    )
    plain = sum(len(http(api, "GET", address).body) for address in ["/", *set(files(api))])
    assert 50_000 < plain < MAX_BYTES
    packed = sum(len(http(api, "GET", address, accept_encoding="gzip").body) for address in ["/", *set(files(api))])
    assert packed < plain / 2


def test_it_is_compressed_for_those_who_say_that_they_can_read_it(api: Api) -> None:
    plain, packed = (http(api, "GET", "/", accept_encoding=coding) for coding in ("identity", "br, gzip"))
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body


def test_files_are_kept_for_good_and_the_page_is_asked_for_again(api: Api) -> None:
    page = http(api, "GET", "/")
    assert page.headers["cache-control"] == "no-cache"
    assert http(api, "GET", "/", if_none_match=page.headers["etag"]).status == 304
    assert http(api, "GET", "/", if_none_match='"other"').status == 200
    address = files(api)[0]
    assert "immutable" in http(api, "GET", address).headers["cache-control"]
    head = http(api, "HEAD", address)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("name", ["../site.py", "%2e%2e/site.py", "nothing.js", "", "index.html"])
def test_there_is_nothing_else(api: Api, name: str) -> None:
    folder = files(api)[0].rpartition("/")[0]
    assert http(api, "GET", f"{folder}/{name}").status == 404
    assert http(api, "GET", "/web/0123456789abcdef/main.js").status == 404, "nor anything of another version"


def test_it_needs_nothing_from_elsewhere() -> None:
    """No address but the node's own in any file; the names of XML's vocabularies are no addresses."""
    for path in FOLDER.iterdir():
        found = set(re.findall(r"https?://[\w.]+", path.read_text()))
        assert found <= {"http://www.w3.org"}, path.name


def test_its_headers_let_nothing_in(api: Api) -> None:
    for address in ("/", files(api)[0]):
        headers = http(api, "GET", address).headers
        allowed = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(allowed)
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    described = http(api, "GET", "/docs").headers["content-security-policy"]
    assert "default-src 'none'" in described
    assert "unsafe" not in described


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://{host}"}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"origin": "vscode-webview://1234", "sec_fetch_site": "cross-site"}, 200),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "https://{host}.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_use_the_node(api: Api, headers: dict[str, Any], status: int) -> None:
    """A program says nothing of where it comes from; a browser tells, and cannot be made to lie by a page."""
    sent: dict[str, Any] = {name: value.format(host=f"127.0.0.1:{api.port}") for name, value in headers.items()}
    assert http(api, "GET", "/api/mesh", **sent).status == status
    assert http(api, "POST", "/v1/chat/completions", CHAT, **sent).status == status
    assert http(api, "GET", "/", **sent).status == 200, "a link to the page may stand anywhere"


def test_a_name_that_is_not_the_nodes_gets_not_even_the_page(api: Api) -> None:
    for path in ("/", files(api)[0]):
        assert http(api, "GET", path, host="evil.example").status == 403


def test_with_keys_the_page_is_there_and_nothing_behind_it(environ: dict[str, str]) -> None:
    """It has to ask for the key. Whoever has one may come from anywhere: no browser adds it by itself."""
    with serving(environ, auth=True) as api:
        secret, _ = api.keys.create(0.0, "", 0, 0, ())
        assert http(api, "GET", "/").status == 200
        assert http(api, "GET", files(api)[0], host="atmo.example").status == 200
        assert http(api, "GET", "/api/mesh").status == 401
        assert http(api, "GET", "/api/mesh", key=secret, origin="http://localhost:3000").status == 200


def test_to_look_at_the_page_leaves_no_trace(api: Api, tmp_path: Path) -> None:
    """It is read all the time: no line in the audit trail, and few labels in the metrics."""
    http(api, "GET", "/")
    http(api, "GET", files(api)[0])
    http(api, "GET", "/web/0/x")
    told = http(api, "GET", "/metrics").body.decode()
    assert 'endpoint="/"' in told
    assert 'endpoint="/web"' in told
    assert "main.js" not in told
