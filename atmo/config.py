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
RUNTIME_KINDS = ("auto", "openai", "ollama", "anthropic")
# Services that need no address: where they are, and where their key is kept unless the configuration says otherwise.
CLOUDS = {
    "openai": ("https://api.openai.com/v1", "env:OPENAI_API_KEY"),
    "anthropic": ("https://api.anthropic.com/v1", "env:ANTHROPIC_API_KEY"),
}
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
    """lan: announce and browse by zeroconf; seeds: multiaddrs dialled at the start; runtimes: look for Ollama, vLLM and
    the like on the usual ports of this machine; runtimes_every_s: pause between two looks."""

    lan: bool = True
    seeds: tuple[str, ...] = ()
    runtimes: bool = True
    runtimes_every_s: float = 10.0


class InferenceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """threads 0: one for each core; slots: requests one model answers at once; context 0: the model's own, in tokens;
    batch 0: the engine's own; gpu_layers -1: all that fit; queue: requests that may wait for a slot;
    own_first: requests asked on this machine wait before those of other nodes; drain_s: how long a node that is told to
    stop goes on with what it has begun; idle_unload_s: a model that nobody asks for so long is unloaded until the next
    request, 0 for never."""

    engine: str = "auto"
    threads: int = 0
    slots: int = 4
    context: int = 0
    batch: int = 0
    gpu_layers: int = -1
    queue: int = 16
    own_first: bool = True
    drain_s: float = 5.0
    idle_unload_s: float = 0.0


class GatewaySection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP API over TCP; the Unix socket is always there. host: address to bind; port: 0 takes 4680, or the next
    free one, -1 listens on no port; auth: ask for an API key even where none was made yet; allow_open: listen to other
    machines though no key is asked for; audit_days, audit_rows: what the audit trail keeps."""

    host: str = "127.0.0.1"
    port: int = 0
    auth: bool = False
    allow_open: bool = False
    max_body_bytes: int = 32 << 20  # an image of 20 MiB in base64 with a long conversation around it
    audit_days: float = 90.0
    audit_rows: int = 200_000  # about 50 MB


class ModelsSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """quota_gb: what the store of models may take on the disk, in 10^9 bytes, 0 for no limit; when a model comes, those
    that were not used for the longest time make room, never a pinned one or one in use; upload_mb_per_s: what giving
    models away may take of the line, in 10^6 bytes a second, 0 for all of it; fetch_for_others: other members may have
    this node fetch and serve a model, because the data are where it is; keep_migrated: what was fetched for a request
    is served on, and removed after it otherwise."""

    quota_gb: float = 0.0
    upload_mb_per_s: float = 0.0
    fetch_for_others: bool = True
    keep_migrated: bool = True


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


class RuntimeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[runtimes]]`: a server whose models are offered to the mesh.

    kind: `openai`, `ollama`, `anthropic`, or `auto` to find out; url: of the server, not needed for OpenAI and
    Anthropic themselves; models: only these, all that it has when empty; key_env, key_file: where its key is, a file
    that only its owner can read; slots: requests at once; price: US dollars for a million output tokens; strength:
    0 to 1.
    """

    kind: str = "auto"
    url: str = ""
    name: str = ""
    models: tuple[str, ...] = ()
    key_env: str = ""
    key_file: str = ""
    slots: int = 4
    price: float = 0.0
    strength: float = -1.0
    labels: dict[str, str] = {}

    @property
    def address(self) -> str:
        return self.url or CLOUDS[self.kind][0]

    @property
    def key(self) -> str:
        """Where the key is kept: `env:NAME`, `file:PATH` or ""."""
        if self.key_file:
            return f"file:{self.key_file}"
        if self.key_env:
            return f"env:{self.key_env}"
        return "" if self.url else CLOUDS[self.kind][1]


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a node. Build it with `load`."""

    home: Path
    runtime: Path
    node: NodeSection = NodeSection()
    transport: TransportSection = TransportSection()
    discovery: DiscoverySection = DiscoverySection()
    inference: InferenceSection = InferenceSection()
    gateway: GatewaySection = GatewaySection()
    models: ModelsSection = ModelsSection()
    log: LogSection = LogSection()
    serve: tuple[ServeSection, ...] = (ServeSection(model="atmo-nano"),)
    runtimes: tuple[RuntimeSection, ...] = ()

    @property
    def node_home(self) -> Path:
        """Keys, state and log of this one node."""
        return self.home / "nodes" / self.node.name

    @property
    def root_key(self) -> Path:
        """The key of the user's own mesh, shared by all nodes of this user on this machine."""
        return self.home / "mesh" / "root.key"

    @property
    def model_files(self) -> Path:
        """Where a user puts GGUF files, shared by all nodes of this user on this machine; the store lies in it."""
        return self.home / "models"

    @property
    def model_store(self) -> Path:
        return self.model_files / "store"

    @property
    def api_keys(self) -> Path:
        """The keys of the HTTP API, shared by all nodes of this user on this machine."""
        return self.home / "api-keys.json"

    @property
    def audit_file(self) -> Path:
        return self.node_home / "audit.db"

    @property
    def log_file(self) -> Path:
        return self.node_home / "node.log"


_SECTIONS: dict[str, type[Section]] = {
    "node": NodeSection,
    "transport": TransportSection,
    "discovery": DiscoverySection,
    "inference": InferenceSection,
    "gateway": GatewaySection,
    "models": ModelsSection,
    "log": LogSection,
}
_LISTS: dict[str, type[Section]] = {"serve": ServeSection, "runtimes": RuntimeSection}
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
        if name in _LISTS:
            for entry in value if isinstance(value, list) else [value]:
                _check_keys(entry, _LISTS[name], f"[[{name}]]", where)
        elif name in _SECTIONS:
            _check_keys(value, _SECTIONS[name], f"[{name}]", where)
        else:
            raise _unknown(name, [*_SECTIONS, *_LISTS], where)


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
    if not -1 <= config.gateway.port < 65536:
        raise ConfigError(f"{config.gateway.port} is not a port.", hint="Use 1 to 65535, 0 for any, -1 for none.")
    if config.gateway.max_body_bytes < 1 << 10 or config.gateway.audit_days <= 0 or config.gateway.audit_rows < 1:
        raise ConfigError("max_body_bytes, audit_days or audit_rows in [gateway] is too small.")
    for name, value, least in (
        ("slots", config.inference.slots, 1),
        ("queue", config.inference.queue, 0),
        ("context", config.inference.context, 0),
        ("threads", config.inference.threads, 0),
        ("idle_unload_s", config.inference.idle_unload_s, 0),
    ):
        if value < least:
            raise ConfigError(f"inference.{name} = {value} is too small.", hint=f"Use {least} or more.")
    if not 0 <= config.models.upload_mb_per_s < 1e9:
        raise ConfigError(
            f"models.upload_mb_per_s = {config.models.upload_mb_per_s} is no speed.", hint="Use 0 for no limit."
        )
    if not 0 <= config.models.quota_gb < 1e9:
        raise ConfigError(f"models.quota_gb = {config.models.quota_gb} is no size.", hint="Use 0 for no limit.")
    for runtime in config.runtimes:
        _check_runtime(runtime)


def _check_runtime(runtime: RuntimeSection) -> None:
    _one_of("runtimes.kind", runtime.kind, RUNTIME_KINDS)
    if not runtime.url and runtime.kind not in CLOUDS:
        raise ConfigError("A [[runtimes]] has no url.", hint="Write the address of its server, http://host:port.")
    if runtime.url and not runtime.url.startswith(("http://", "https://")):
        raise ConfigError(f"{runtime.url!r} is not the address of a server.", hint="Write http://host:port.")
    if runtime.key_env and runtime.key_file:
        raise ConfigError("A [[runtimes]] has both key_env and key_file.", hint="Leave one of them away.")
    if not runtime.url and not runtime.models:
        raise ConfigError(
            f"A [[runtimes]] for {runtime.kind} names no models.", hint='Say which may be used: models = ["..."].'
        )
    if runtime.slots < 1:
        raise ConfigError(f"runtimes.slots = {runtime.slots} is too small.", hint="Use 1 or more.")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(known)}."
        raise ConfigError(f"{name} cannot be {value!r}.", hint=hint)
