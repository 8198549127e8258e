"""One tree of errors.

Every error that can reach a user says what happened, to what, and what to do. `exit_code` is what the command line
exits with, `http_status` what the gateway answers, `hint` the one next step. Third-party exceptions are translated
into this tree at the boundary where they occur (`raise ... from exc`).
"""

from __future__ import annotations

from typing import Any


class AtmoError(Exception):
    """Root of all errors raised on purpose. You do not get it for programming mistakes: those stay what they are."""

    exit_code = 1
    http_status = 500
    code = "internal_error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(AtmoError):
    """The configuration, a flag or the environment cannot be used as given."""

    exit_code = 2
    http_status = 400
    code = "config_error"


class UsageError(AtmoError):
    """The caller asked for something that makes no sense, such as an empty prompt."""

    exit_code = 2
    http_status = 400
    code = "invalid_request"


class BadParameter(UsageError):
    """A field of an API request is missing, of another type, out of bounds or not supported. `param` names it."""

    def __init__(self, message: str, *, param: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


class BodyTooLarge(UsageError):
    """The body of an API request exceeds the node's limit."""

    http_status = 413
    code = "request_too_large"


class UnsupportedMedia(UsageError):
    """The body of an API request does not say that it is JSON."""

    http_status = 415
    code = "unsupported_media_type"


class SlowRequest(UsageError):
    """The body of an API request did not arrive in time."""

    http_status = 408
    code = "request_timeout"


class Unauthorized(AtmoError):
    """The API wants a key, and this one is missing, unknown or revoked."""

    exit_code = 2
    http_status = 401
    code = "invalid_api_key"


class Forbidden(AtmoError):
    """The API key, or the way in, does not allow this."""

    exit_code = 2
    http_status = 403
    code = "forbidden"


class NodeNotRunning(AtmoError):
    """A command needs a running node and there is none on this machine."""

    exit_code = 3
    http_status = 503
    code = "node_not_running"


class ProtocolError(AtmoError):
    """Somebody broke the wire protocol. Raised as one of the two below, which say who."""

    http_status = 502
    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """This node was about to send something the protocol forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """A peer sent bytes that do not decode, exceed a limit or carry a bad signature."""


class BadChunk(RemoteProtocolError):
    """Bytes that were sent as a chunk of a model are not that chunk. Nothing of them was written."""

    code = "bad_chunk"


class Untrusted(RemoteProtocolError):
    """A certificate does not let its bearer in. `why` is one word for programs: forged, mesh, expired, early (not valid
    yet: a clock is off), revoked, used (its invite was used up) or replaced (its curve key)."""

    code = "untrusted"

    def __init__(self, message: str, *, why: str = "forged", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why


class TransportError(AtmoError):
    """The network did not carry what it was given."""

    exit_code = 4
    http_status = 502
    code = "transport_error"


class PeerUnreachable(TransportError):
    """No link to the peer, or its link went down before the frame was handed over."""

    code = "peer_unreachable"


class Refused(PeerUnreachable):
    """One end did not trust the other: `why` as in Untrusted, `by_peer` if the other end refused this one."""

    code = "refused"

    def __init__(self, message: str, *, why: str = "forged", by_peer: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.why = why
        self.by_peer = by_peer


class FrameTooLarge(TransportError):
    """A frame exceeds the limit of its lane."""

    code = "frame_too_large"


class PortInUse(TransportError):
    """The address a socket should bind is taken."""

    code = "port_in_use"


class RoutingError(AtmoError):
    """The request could not be routed."""

    exit_code = 5
    http_status = 503
    code = "routing_error"


class NoRoute(RoutingError):
    """No node can serve the request; the message says which condition excluded whom."""

    code = "no_route"


class ModelCouldCome(NoRoute):
    """No node can serve the request, and a model could come that would. `plan`: which, from where, to where, how long;
    nothing of it happens unless the request says so."""

    def __init__(self, message: str, *, plan: dict[str, Any], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.plan = plan


class OutsideBoundary(RoutingError):
    """A request came to a node where its data may not be. Nothing of it was read."""

    code = "outside_boundary"


class RequestError(AtmoError):
    """The request was routed and then failed."""

    exit_code = 6
    http_status = 502
    code = "request_error"


class RequestTimeout(RequestError):
    """The deadline passed before the answer was complete."""

    http_status = 504
    code = "timeout"


class Overloaded(RequestError):
    """Every slot and every place in the queue is taken. Try again after `retry_after_s` seconds."""

    http_status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    """An API key asked more often, or more at once, than it may."""

    code = "rate_limit_exceeded"


class Cancelled(RequestError):
    """The requester went away; nothing failed."""

    http_status = 499
    code = "cancelled"


class InferenceError(AtmoError):
    """An engine could not do what it was asked."""

    exit_code = 7
    http_status = 500
    code = "inference_error"


class ModelNotFound(InferenceError):
    """The named model is not here."""

    http_status = 404
    code = "model_not_found"


class ModelInvalid(InferenceError):
    """The file is not a model this engine can load: truncated, damaged or of another kind."""

    http_status = 422
    code = "model_invalid"


class EngineUnavailable(InferenceError):
    """The engine's worker is not installed, is starting, died or does not answer."""

    http_status = 503
    code = "engine_unavailable"


class ContextOverflow(InferenceError):
    """Prompt and wanted answer do not fit into the model's context."""

    http_status = 400
    code = "context_length_exceeded"


class StorageError(AtmoError):
    """The disk did not keep or give back what it was asked to."""

    exit_code = 8
    http_status = 507
    code = "storage_error"


class StorageFull(StorageError):
    """The disk, a quota or a limit on the size of files is reached. What was kept so far stays."""

    code = "storage_full"


class ModelInUse(StorageError):
    """Another process runs, fetches or removes this model at this moment."""

    http_status = 409
    code = "model_in_use"


class ModelDamaged(StorageError):
    """A stored model's bytes are no longer those that its root names."""

    http_status = 500
    code = "model_damaged"


def by_code(code: str, message: str, *, hint: str = "", retry_after_s: float = 1.0) -> AtmoError:
    """The error a peer or a worker reported by `code`; an unknown code becomes a plain `RequestError`."""
    kind = _BY_CODE.get(code, RequestError)
    if issubclass(kind, Overloaded):
        return kind(message, retry_after_s=retry_after_s, hint=hint)
    return kind(message, hint=hint)


def _tree(root: type[AtmoError]) -> dict[str, type[AtmoError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found = _tree(child) | found  # the parent that defines a code wins over children that inherit it
    return found


_BY_CODE = _tree(AtmoError)
