"""`atmo keys create | list | revoke`. No node needs to run; those that run notice within a second."""

from __future__ import annotations

import time

from atmo.cli import output, views
from atmo.config import load
from atmo.errors import UsageError
from atmo.gateway.api_keys import ApiKey, KeyFile


def create(home: str | None, name: str, *, per_minute: int, at_once: int, models: list[str], as_json: bool) -> None:
    if len(name) > 64 or not name.isprintable():
        raise UsageError("A key's name has up to 64 characters.", hint="Take a shorter one.")
    secret, made = _file(home).create(time.time(), name, per_minute, at_once, tuple(models))
    if as_json:
        output.print_json({"key": secret, **_public(made)})
        return
    output.console().print(secret, soft_wrap=True)
    output.aside().print("Keep it: it is shown this once. From now on the API's port asks for a key.", soft_wrap=True)


def show(home: str | None, *, as_json: bool) -> None:
    keys = [_public(key) for key in _file(home).all()]
    if as_json:
        output.print_json({"keys": keys})
    elif keys:
        output.console().print(views.keys(output.harmless(keys)))
    else:
        output.console().print("There are no API keys: on this machine the API takes requests without.")


def revoke(which: str, home: str | None, *, as_json: bool) -> None:
    gone = _public(_file(home).revoke(which, time.time()))
    if as_json:
        output.print_json({"revoked": gone})
    else:
        output.console().print(f"Revoked {gone['name'] or gone['id']}. Nodes that run refuse it within a second.")


def _file(home: str | None) -> KeyFile:
    return KeyFile(load({"home": home}).api_keys)


def _public(key: ApiKey) -> views.Json:
    return {
        "id": key.id,
        "name": key.name,
        "created_s": key.created_s,
        "per_minute": key.per_minute,
        "at_once": key.at_once,
        "models": list(key.models),
        "revoked_s": key.revoked_s or None,
    }
