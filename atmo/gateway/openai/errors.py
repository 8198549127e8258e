"""Errors in OpenAI's shape: status, body and headers that its clients understand."""

from __future__ import annotations

import math

import msgspec

from atmo.errors import AtmoError, ModelCouldCome, NoRoute
from atmo.gateway.openai.replies import ErrorBody, ErrorReply

Header = tuple[bytes, bytes]


def error_reply(error: AtmoError) -> ErrorReply:
    """The message holds the hint, too: OpenAI's shape has no place of its own for it."""
    return ErrorReply(
        error=ErrorBody(
            message=str(error),
            type=_kind(error.http_status),
            param=getattr(error, "param", "") or None,
            code=error.code,
            plan=error.plan if isinstance(error, ModelCouldCome) else msgspec.UNSET,
        )
    )


def error_body(error: AtmoError) -> bytes:
    return msgspec.json.encode(error_reply(error))


def error_headers(error: AtmoError) -> list[Header]:
    """When to come again, where that is known; and whether to come again at all, which OpenAI's clients obey."""
    if isinstance(error, NoRoute):
        return [(b"x-should-retry", b"false")]
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None:
        return [(b"www-authenticate", b"Bearer")] if error.http_status == 401 else []
    return [
        (b"retry-after", str(max(1, math.ceil(retry_after_s))).encode()),
        (b"retry-after-ms", str(max(1, math.ceil(retry_after_s * 1000))).encode()),
    ]


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    return "invalid_request_error" if status < 500 else "server_error"


def wrong_address(method: str, path: str, status: int, *, openai: bool) -> tuple[bytes, str]:
    """The body and code for a path or method that is not there, in the shape of the API that was meant."""
    code = "unknown_url" if status == 404 else "method_not_allowed"
    what = f"Unknown request URL: {method} {path}." if status == 404 else f"Not allowed to {method} on {path}."
    if openai:
        body = ErrorBody(message=f"{what} See /docs.", type=_kind(status), param=None, code=code)
        return msgspec.json.encode(ErrorReply(error=body)), code
    return msgspec.json.encode({"error": {"code": code, "message": what, "hint": "See /docs."}}), code
