"""Talk to a node on this machine, from a script or the command line.

The node listens on a Unix socket in the user's runtime folder, which only this user can open; `SyncClient` finds it by
itself. HTTP over that socket, newline-separated JSON for what streams. Import stays light: the command line pays for
it.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atmo.config import Config, load
from atmo.errors import AtmoError, NodeNotRunning, by_code
from atmo.transport.neighbours import NodeCard, running

# The socket answers at once or the node is stuck; an answer that streams has the request's own deadline.
CONNECT_TIMEOUT_S = 5.0
# A request that sets no deadline gets this one.
REQUEST_TIMEOUT_S = 120.0

LOAD_TIMEOUT_S = 600.0

Json = dict[str, Any]


class SyncClient:
    """A connection to one node. Every method raises an AtmoError: the node's own, or NodeNotRunning.

    >>> client = SyncClient()                                # doctest: +SKIP
    >>> for event in client.ask("What is Atmosphere?"):      # doctest: +SKIP
    ...     print(event.get("text", ""), end="")
    """

    def __init__(self, config: Config | None = None, *, socket_path: Path | None = None, node: str = "") -> None:
        config = config or load()
        self.socket_path = socket_path or find_socket(config, node)

    def status(self) -> Json:
        """The node itself: name, address, capabilities and their state, problems."""
        return self._get("/api/status")

    def mesh(self) -> Json:
        """All nodes this node knows, with their capabilities and load."""
        return self._get("/api/mesh")

    def events(self, since: int = 0, *, follow: bool = True) -> Iterator[Json]:
        """What happened at the node after event number `since`, as far as it is kept, and then what happens.

        Each is `{"seq": number, "at_s": seconds since 1970, "event": what, ...}`; which there are stands in
        docs/watch.md. Ends when the node stops, or at once without `follow`. A `pulse` each second says that nothing
        happened; a node that says nothing for longer than CONNECT_TIMEOUT_S raises NodeNotRunning.
        """
        path = f"/api/events?since={since}&follow={str(follow).lower()}"
        with self._request("GET", path, None, CONNECT_TIMEOUT_S) as response:
            for line in response:
                yield json.loads(line)

    def members(self) -> Json:
        """Who belongs to the mesh, by which invite, until when."""
        return self._get("/api/members")

    def revoke(self, whom: str) -> Json:
        """Take back a member or an invite; only on a machine of the mesh's owner."""
        return self._post("/api/revoke", {"whom": whom})

    def models(self) -> Json:
        """Models on this machine and models the mesh serves."""
        return self._get("/api/models")

    def transfers(self) -> list[Json]:
        """Models on their way to and from the node, and those that arrived lately."""
        return list(self._get("/api/transfers")["transfers"])

    def fetch(self, model: str) -> Json:
        """Begin to fetch a model from peers; `transfers` says how far it is."""
        return self._post("/api/fetch", {"model": model})

    def route(self, text: str, **wishes: Any) -> Json:
        """Where `text` would go and why; nothing is sent. `wishes` as for `ask`."""
        return self._post("/api/route", {"text": text, **wishes})

    def explain(self, request_id: str) -> Json:
        """The decision that was made for a request some time ago."""
        return self._get(f"/api/requests/{request_id}")

    def ask(self, text: str, **wishes: Any) -> Iterator[Json]:
        """Ask and stream what happens: events `route`, `text`, `vector`, `labels`, `retry` and at last `done`.

        Where the data have a boundary and a model has to come, before that: `plan` (the end of it, unless `agreed`),
        `transfer` again and again, `loading`; and after `done` the `receipt`.

        wishes: model, type, constraints (dict), system, history (list of turns), max_tokens, temperature, top_p, seed,
        stop, timeout_s, private, migrate (see docs/privacy.md). Leaving the iterator early cancels the request.
        """
        timeout_s = float(wishes.get("timeout_s") or REQUEST_TIMEOUT_S)
        if wishes.get("private") or wishes.get("migrate"):
            timeout_s = max(timeout_s, LOAD_TIMEOUT_S)  # a model may be loaded first, and says nothing meanwhile
        with self._request("POST", "/api/ask", {"text": text, **wishes}, timeout_s + CONNECT_TIMEOUT_S) as response:
            for line in response:
                event = json.loads(line)
                if event["event"] == "error":
                    raise _error(event)
                yield event

    def stop(self) -> Json:
        """Ask the node to stop; it withdraws what it offers and leaves the mesh."""
        return self._post("/api/stop", {})

    def _get(self, path: str) -> Json:
        with self._request("GET", path, None, CONNECT_TIMEOUT_S * 2) as response:
            return _object(response.read())

    def _post(self, path: str, body: Json) -> Json:
        with self._request("POST", path, body, CONNECT_TIMEOUT_S * 2) as response:
            return _object(response.read())

    @contextmanager
    def _request(
        self, method: str, path: str, body: Json | None, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.socket_path, timeout_s)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(_object(response.read()).get("error", {}))
            yield response
        except (ConnectionRefusedError, FileNotFoundError) as exc:
            raise _not_running() from exc
        except TimeoutError as exc:
            raise NodeNotRunning(
                "The node does not answer.", hint="See its log, or restart it: atmo node stop."
            ) from exc
        except (http.client.HTTPException, OSError) as exc:
            raise NodeNotRunning("The node went away before it had answered.", hint="See `atmo node status`.") from exc
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_TIMEOUT_S)
        self.sock.connect(str(self._path))
        self.sock.settimeout(self.timeout)


def find_socket(config: Config, node: str = "") -> Path:
    """The socket of the node of that name; without a name the configured one, or any node of this user that runs."""
    cards = [card for card in running_nodes(config) if card.api_socket]
    wanted = node or config.node.name
    for card in cards:
        if card.name == wanted:
            return Path(card.api_socket)
    if node:
        names = ", ".join(card.name for card in cards) or "none"
        raise NodeNotRunning(f"No node named {node!r} is running.", hint=f"Running: {names}.")
    if not cards:
        raise _not_running()
    return Path(cards[0].api_socket)


def running_nodes(config: Config) -> list[NodeCard]:
    """The nodes of this user that run on this machine, by name."""
    return sorted(running(config.runtime), key=lambda card: card.name)


def _object(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError as exc:
        raise NodeNotRunning("The node's answer cannot be read.", hint="Is another program on its socket?") from exc
    return value if isinstance(value, dict) else {}


def _error(event: Json) -> AtmoError:
    return by_code(
        event.get("code", "internal_error"),
        event.get("message", "The node refused."),
        hint=event.get("hint", ""),
        retry_after_s=float(event.get("retry_after_s") or 1.0),
    )


def _not_running() -> NodeNotRunning:
    return NodeNotRunning("No node is running on this machine.", hint="Start one: atmo node start")
