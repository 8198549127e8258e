"""What the shell may offer after Tab: names of nodes, models, settings. Never an error, and never for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atmo.config import Config

EMBEDDED = ("atmo-encoder", "atmo-nano", "atmo-shapes", "atmo-tone")
TYPES = ("chat", "classification", "embedding", "vision")
CONSTRAINTS = (
    "allow_nodes=",
    "data_residency=",
    "deny_nodes=",
    "local_only=true",
    "max_cost=",
    "max_latency_ms=",
    "max_load=",
    "min_context=",
    "min_tps=",
    "strict=true",
    "version=",
)


def running_names(incomplete: str) -> list[str]:
    from atmo.client import running_nodes

    return _offered(incomplete, lambda config: (card.name for card in running_nodes(config)))


def names_of_this_home(incomplete: str) -> list[str]:
    return _offered(incomplete, lambda config: (folder.name for folder in (config.home / "nodes").glob("*")))


def models_here(incomplete: str) -> list[str]:
    """What could be served: those that come along, files by name, which are not opened, and those of the store."""

    def found(config: Config) -> Iterable[str]:
        import json

        yield from EMBEDDED
        yield from (file.name for file in config.model_files.glob("*.gguf"))
        yield from (json.loads(file.read_text())["name"] for file in config.model_store.glob("*/model.json"))

    return _offered(incomplete, found)


def receipts(incomplete: str) -> list[str]:
    from atmo.receipts import kept

    return _offered(incomplete, lambda config: (file.stem for file in kept(config.home)))


def sources(incomplete: str) -> list[str]:
    return _starting(incomplete, ("file", "hub", "peers", "url"))


def served_models(incomplete: str) -> list[str]:
    """What the mesh serves now."""

    def served(config: Config) -> Iterable[str]:
        from atmo.client import SyncClient

        return (entry["model"] for entry in SyncClient(config).models()["served"])

    return _offered(incomplete, served)


def types(incomplete: str) -> list[str]:
    return _starting(incomplete, TYPES)


def modes(incomplete: str) -> list[str]:
    from atmo.config import MODES

    return _starting(incomplete, MODES)


def constraints(incomplete: str) -> list[str]:
    return _starting(incomplete, CONSTRAINTS)


def settings(incomplete: str) -> list[str]:
    """Names of settings, `section.key`."""
    from atmo.settings import names

    return _starting(incomplete, names())


def members(incomplete: str) -> list[str]:
    def met(config: Config) -> Iterable[str]:
        from atmo.client import SyncClient

        return (member["name"] for member in SyncClient(config).members()["members"])

    return _offered(incomplete, met)


def key_names(incomplete: str) -> list[str]:
    def good(config: Config) -> Iterable[str]:
        from atmo.gateway.api_keys import KeyFile

        return (key.name or key.id for key in KeyFile(config.api_keys).all() if not key.revoked_s)

    return _offered(incomplete, good)


def _offered(incomplete: str, names: Callable[[Config], Iterable[str]]) -> list[str]:
    """Whatever is wrong with the configuration or the node is no matter for the Tab key."""
    from atmo.config import load
    from atmo.errors import AtmoError

    try:
        return _starting(incomplete, names(load()))
    except (AtmoError, OSError, ValueError, KeyError):
        return []


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
