"""Configuration: defaults < `config.toml` < `ATMO_*` < flags, read once and frozen.

An environment variable is named after its section and key: `ATMO_TRANSPORT_PORT=4600` sets `port` in `[transport]`.
Three stand outside the sections: `ATMO_HOME` (where keys and models live), `ATMO_RUNTIME` (where running nodes find
each other) and `ATMO_CONFIG` (another file than `$ATMO_HOME/config.toml`). Whatever is unknown is an error with a
suggestion.
"""

from __future__ import annotations

import difflib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from atmo.errors import ConfigError

MODES = ("standalone", "provider", "participant", "headless")
ENGINES = ("auto", "xllamacpp", "llama-cpp-python")
LEVELS = ("debug", "info", "warning", "error")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class NodeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """name: tells the nodes of one user apart; labels: such as `residency = "eu"`, matched by constraints."""

    name: str = "default"
    mode: str = "participant"
    labels: dict[str, str] = {}


class TransportSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """host: address to bind, loopback unless asked otherwise; port: 0 takes 4600 if it is free and any other if not;
    advertise: the host name or address that others should dial, if it is not `host`."""

    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""


class DiscoverySection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lan: announce and browse by zeroconf; seeds: multiaddrs dialled at the start."""

    lan: bool = True
    seeds: tuple[str, ...] = ()


class InferenceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """threads 0: one for each core; slots: requests one model answers at once; context 0: the model's own, in tokens;
    batch 0: the engine's own; gpu_layers -1: all that fit; queue: requests that may wait for a slot;
    own_first: requests asked on this machine wait before those of other nodes; drain_s: how long a node that is told to
    stop goes on with what it has begun."""

    engine: str = "auto"
    threads: int = 0
    slots: int = 4
    context: int = 0
    batch: int = 0
    gpu_layers: int = -1
    queue: int = 16
    own_first: bool = True
    drain_s: float = 5.0


class LogSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: str = "info"
    json: bool = False


class ServeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[serve]]`: a model and how it is offered. Only `model` is needed; the rest is derived from the model.

    model: an embedded model's name, or a path to a .gguf file; name: short name in the capability's id; system: a
    system prompt for this capability; strength: 0 to 1; price: US dollars for a million output tokens.
    """

    model: str
    name: str = ""
    type: str = ""
    description: str = ""
    examples: tuple[str, ...] = ()
    system: str = ""
    version: str = ""
    strength: float = -1.0
    price: float = 0.0
    labels: dict[str, str] = {}


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a node. Build it with `load`."""

    home: Path
    runtime: Path
    node: NodeSection = NodeSection()
    transport: TransportSection = TransportSection()
    discovery: DiscoverySection = DiscoverySection()
    inference: InferenceSection = InferenceSection()
    log: LogSection = LogSection()
    serve: tuple[ServeSection, ...] = (ServeSection(model="atmo-nano"),)

    @property
    def node_home(self) -> Path:
        """Keys, state and log of this one node."""
        return self.home / "nodes" / self.node.name

    @property
    def root_key(self) -> Path:
        """The key of the user's own mesh, shared by all nodes of this user on this machine."""
        return self.home / "mesh" / "root.key"

    @property
    def log_file(self) -> Path:
        return self.node_home / "node.log"


_SECTIONS: dict[str, type[Section]] = {
    "node": NodeSection,
    "transport": TransportSection,
    "discovery": DiscoverySection,
    "inference": InferenceSection,
    "log": LogSection,
}
_ALONE = {"ATMO_HOME", "ATMO_RUNTIME", "ATMO_CONFIG"}


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Config:
    """The effective configuration. `flags` maps `section.key`, `home`, `runtime` or `serve` to values; None is unset.

    Raises ConfigError that names the key, where it stands, and the nearest known one.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    home = _folder(given.pop("home", None) or environ.get("ATMO_HOME") or "~/.atmo")
    runtime = _folder(given.pop("runtime", None) or environ.get("ATMO_RUNTIME") or _default_runtime(environ))
    file, wanted = _which_file(file, environ, home)
    settings = _read_toml(file, wanted)
    _merge_environment(settings, environ)
    _merge_flags(settings, given)
    try:
        config = msgspec.convert({**settings, "home": home, "runtime": runtime}, Config, dec_hook=_as_path)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"The configuration is not right: {_readable(exc)}.", hint=f"Look into {file}.") from exc
    _check(config)
    return config


def _which_file(file: Path | None, environ: Mapping[str, str], home: Path) -> tuple[Path, bool]:
    """The file to read, and whether it must exist."""
    named = file or (Path(environ["ATMO_CONFIG"]) if environ.get("ATMO_CONFIG") else None)
    return (named.expanduser(), True) if named else (home / "config.toml", False)


def _folder(text: str | Path) -> Path:
    return Path(text).expanduser().absolute()


def _default_runtime(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "atmo"
    return Path(tempfile.gettempdir()) / f"atmo-{os.getuid()}"


def _read_toml(file: Path, wanted: bool) -> dict[str, Any]:
    try:
        with file.open("rb") as handle:
            settings = tomllib.load(handle)
    except (FileNotFoundError, NotADirectoryError) as exc:
        if wanted:
            raise ConfigError(f"There is no configuration file {file}.", hint="Check the path.") from exc
        return {}
    except OSError as exc:
        raise ConfigError(f"The configuration file {file} cannot be read: {exc.strerror}.") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"The configuration file {file} is not valid TOML: {exc}.") from exc
    _check_names(settings, str(file))
    return settings


def _check_names(settings: dict[str, Any], where: str) -> None:
    for name, value in settings.items():
        if name == "serve":
            for entry in value if isinstance(value, list) else [value]:
                _check_keys(entry, ServeSection, "[[serve]]", where)
        elif name in _SECTIONS:
            _check_keys(value, _SECTIONS[name], f"[{name}]", where)
        else:
            raise _unknown(name, [*_SECTIONS, "serve"], where)


def _check_keys(table: Any, kind: type[Section], section: str, where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{section} in {where} must be a table.", hint=f"Write {section} on a line of its own.")
    for key in table:
        if key not in kind.__struct_fields__:
            raise _unknown(key, list(kind.__struct_fields__), f"{section} of {where}")


def _unknown(name: str, known: list[str], where: str) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
    return ConfigError(f"Unknown key {name!r} in {where}.", hint=hint)


def _merge_environment(settings: dict[str, Any], environ: Mapping[str, str]) -> None:
    known = {f"ATMO_{s}_{k}".upper(): (s, k) for s, kind in _SECTIONS.items() for k in kind.__struct_fields__}
    for name, text in environ.items():
        if name.startswith("ATMO_") and name not in _ALONE:
            if name not in known:
                raise _unknown(name, [*known, *_ALONE], "the environment")
            section, key = known[name]
            settings.setdefault(section, {})[key] = _from_text(text, _SECTIONS[section], key, name)


def _from_text(text: str, kind: type[Section], key: str, name: str) -> Any:
    """Lists are written with commas, tables as `key=value` with commas."""
    field_type = kind.__annotations__[key]
    if "dict" in field_type:
        return parse_labels(text.split(","), name)
    if "tuple" in field_type:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    target = {"int": int, "float": float, "bool": bool}.get(field_type, str)
    try:
        return msgspec.convert(text, target, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"{name}={text!r} is not a {target.__name__}.", hint=f"Set {name} to one, or unset it."
        ) from exc


def parse_labels(pairs: list[str] | tuple[str, ...], where: str) -> dict[str, str]:
    """`["residency=eu", "tier=lab"]` -> `{"residency": "eu", "tier": "lab"}`. Raises ConfigError."""
    labels = {}
    for pair in (pair.strip() for pair in pairs):
        key, separator, value = pair.partition("=")
        if pair and not (separator and key.strip() and value.strip()):
            raise ConfigError(f"{pair!r} in {where} is not a label.", hint="Write labels as key=value.")
        if pair:
            labels[key.strip()] = value.strip()
    return labels


def _merge_flags(settings: dict[str, Any], flags: Mapping[str, Any]) -> None:
    for name, value in flags.items():
        if name == "serve":
            settings["serve"] = [{"model": model} for model in value]
            continue
        section, _, key = name.partition(".")
        if section not in _SECTIONS or key not in _SECTIONS[section].__struct_fields__:
            raise ValueError(f"no such setting: {name}")
        settings.setdefault(section, {})[key] = value


def _as_path(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value


def _readable(exc: msgspec.ValidationError) -> str:
    text = str(exc)
    what, _, path = text.partition(" - at ")
    return f"{path.strip('`').removeprefix('$.')}: {what[0].lower()}{what[1:]}" if path else text


def _check(config: Config) -> None:
    _one_of("node.mode", config.node.mode, MODES)
    _one_of("inference.engine", config.inference.engine, ENGINES)
    _one_of("log.level", config.log.level, LEVELS)
    if not config.node.name or len(config.node.name) > 64 or not config.node.name.replace("-", "").isalnum():
        raise ConfigError(f"{config.node.name!r} is not a node name.", hint="Use up to 64 letters, digits and hyphens.")
    if not 0 <= config.transport.port < 65536:
        raise ConfigError(f"{config.transport.port} is not a port.", hint="Use 1 to 65535, or 0 for any.")
    for name, value, least in (
        ("slots", config.inference.slots, 1),
        ("queue", config.inference.queue, 0),
        ("context", config.inference.context, 0),
        ("threads", config.inference.threads, 0),
    ):
        if value < least:
            raise ConfigError(f"inference.{name} = {value} is too small.", hint=f"Use {least} or more.")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(known)}."
        raise ConfigError(f"{name} cannot be {value!r}.", hint=hint)
