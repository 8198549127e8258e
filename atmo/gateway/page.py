"""The API page at `/docs`: one HTML page without a script or anything from elsewhere, so it works offline."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any

from atmo.gateway.handle import Json

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; text-transform: capitalize; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem 1rem; overflow-x: auto; border-radius: 6px; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } summary b { display: inline-block; width: 3.2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .15rem .6rem .15rem 0; }
td:first-child { white-space: nowrap; } tr + tr td { border-top: 1px solid var(--line); }
"""
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
GUARDS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
_EXAMPLE = """curl {base}v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is Atmosphere?"}}]}}'"""


def page(description: Json, base: str) -> str:
    """description: OpenAPI; base: the URL under which the reader came, with a slash at its end."""
    sections: dict[str, list[str]] = {}
    for path, methods in sorted(description["paths"].items()):
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            sections.setdefault(tag, []).append(_operation(method, path, operation, description))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(sections[tag])}" for tag in sorted(sections, reverse=True))
    types = "".join(_type(name, schema) for name, schema in sorted(description["components"]["schemas"].items()))
    info = description["info"]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style><h1>{escape(info['title'])} API</h1>"
        f"<p>Version {escape(info['version'])}. {escape(info['description'])}"
        f' <a href="/openapi.json">openapi.json</a></p>'
        f"<pre>{escape(_EXAMPLE.format(base=base))}</pre>{body}<h2>Types</h2>{types}</html>"
    )


def _operation(method: str, path: str, operation: Json, description: Json) -> str:
    about = operation.get("description") or operation.get("summary") or ""
    rows = [
        (parameter["name"], f"{parameter['in']}. {parameter.get('description', '')}")
        for parameter in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {})
    rows += [(kind, f"body: {_kind(content.get('schema'))}") for kind, content in body.items()]
    for status, reply in operation.get("responses", {}).items():
        kinds = ", ".join(_kind(content.get("schema", {})) for content in reply.get("content", {}).values())
        rows.append((status, f"{reply['description']} {kinds}"))
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code></summary>"
        f"<p>{escape(about)}</p>{_table(rows)}</details>"
    )


def _type(name: str, schema: Json) -> str:
    wanted = schema.get("required", ())
    rows = [(field + ("*" if field in wanted else ""), _kind(of)) for field, of in schema.get("properties", {}).items()]
    about = escape(str(schema.get("description", "")))
    return f"<details><summary><code>{escape(name)}</code></summary><p>{about}</p>{_table(rows)}</details>"


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>" if rows else ""


def _kind(schema: Any) -> str:
    """A schema in a few words."""
    if not isinstance(schema, dict) or not schema:
        return "anything"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(repr(one) for one in schema["enum"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(schema.get('items'))}"
    low, high = schema.get("minimum"), schema.get("maximum")
    return f"{kind}, {low} to {high}" if low is not None and high is not None else kind
