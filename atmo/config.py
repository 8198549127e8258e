"""Configuration: defaults < `config.toml` < `ATMO_*` < flags, read once and frozen.

An environment variable is named after its section and key: `ATMO_TRANSPORT_PORT=4600` sets `port` in `[transport]`.
What a container usually sets has a short name besides (environment.py). Three stand outside the sections: `ATMO_HOME`
(where keys and models live), `ATMO_RUNTIME` (where running nodes find each other) and `ATMO_CONFIG` (another file than
`$ATMO_HOME/config.toml`). Whatever is unknown is an error with a suggestion.

docs/configuration.md is made of this file: a section's docstring says what each key is for, as `key: what it is;`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atmo.environment import merge_environment, unknown
from atmo.environment import parse_labels as parse_labels
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
# Lowest and highest heartbeat, in seconds. Guesses: more often is only noise, and who is silent for three times the
# highest is missed by people first.
HEARTBEATS_S = (0.1, 30.0)
# Settings that are passwords: no list of settings shows them.
SECRETS = frozenset(("mesh.token",))
# A node has three encrypted lanes, each with a port.
LANES = 3


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class NodeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """name: tells the nodes of one user apart; mode: `participant` asks and serves, `provider` asks nobody else,
    `headless` has no API, `standalone` opens no network socket; labels: such as `residency = "eu"`, matched by
    constraints."""

    name: str = "default"
    mode: str = "participant"
    labels: dict[str, str] = {}


class TransportSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """host: address to bind, loopback unless asked otherwise; port: 0 takes 4600 if it is free and any other if not;
    lane_port: for a firewall, the first of three ports in a row for what follows a greeting at `port`, 0 takes any;
    advertise: the host name or address that others should dial, if it is not `host`; heartbeat_s: how often a silent
    neighbour is asked, it is given up after three times as long."""

    host: str = "127.0.0.1"
    port: int = 0
    lane_port: int = 0
    advertise: str = ""
    heartbeat_s: float = 0.5


class MeshSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which mesh to belong to, where nobody types `atmo mesh join`. token: from `atmo mesh invite`, joined when a node
    starts, ignored by the mesh's own owner; token_file: a file that holds it."""

    token: str = ""
    token_file: str = ""

    def __repr__(self) -> str:
        """A token is a password."""
        return f"MeshSection(token={'...' if self.token else ''!r}, token_file={self.token_file!r})"


class DiscoverySection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """lan: announce and browse by zeroconf; seeds: addresses dialled at the start, such as
    `/dns4/gpu-box/tcp/4600`; runtimes: look for Ollama, vLLM and
    the like on the usual ports of this machine; runtimes_every_s: pause between two looks."""

    lan: bool = True
    seeds: tuple[str, ...] = ()
    runtimes: bool = True
    runtimes_every_s: float = 10.0


class InferenceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """engine: `auto` takes what is installed and fits the model; threads: 0 is one for each core this process may use;
    slots: requests one model answers at once; context: in tokens, 0 is the model's own; batch: tokens read at once, 0
    is the engine's own; gpu_layers: how much of a model a GPU holds, -1 is all that fits; queue: requests that may wait
    for a slot; own_first: requests asked on this machine wait before those of other nodes; drain_s: how long a node
    that is told to stop goes on with what it has begun; idle_unload_s: a model that nobody asks for so long is unloaded
    until the next request, 0 for never."""

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
    machines though no key is asked for; keys_file: where the digests of API keys are, if not in
    `$ATMO_HOME/api-keys.json`; max_body_bytes: the largest request; audit_days: how long the audit trail keeps a
    request; audit_rows: how many it keeps."""

    host: str = "127.0.0.1"
    port: int = 0
    auth: bool = False
    allow_open: bool = False
    keys_file: str = ""
    max_body_bytes: int = 32 << 20  # an image of 20 MiB in base64 with a long conversation around it
    audit_days: float = 90.0
    audit_rows: int = 200_000  # about 50 MB


class ModelsSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """quota_gb: what the store of models may take on the disk, in 10^9 bytes, 0 for no limit; when a model comes, those
    that were not used for the longest time make room, never a pinned one or one in use; upload_mb_per_s: what giving
    models away may take of the line, in 10^6 bytes a second, 0 for all of it; fetch_for_others: other members may have
    this node fetch and serve a model, because the data are where it is; keep_migrated: what was fetched for a request
    is served on, and removed after it otherwise; prefetch: fetch what is asked for here often and is not here, within
    the quota, which must be set; plain_lane: send models that any member may have unencrypted to nodes that set this,
    too, on a network where everybody may read them; its port, where transport.lane_port is set, is the fourth."""

    quota_gb: float = 0.0
    upload_mb_per_s: float = 0.0
    fetch_for_others: bool = True
    keep_migrated: bool = True
    prefetch: bool = False
    plain_lane: bool = False


class LogSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """level: `debug`, `info`, `warning` or `error`; json: one JSON object a line instead of text."""

    level: str = "info"
    json: bool = False


class ServeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[serve]]`: a model and how it is offered. Only `model` is needed; the rest is derived from the model.

    model: an embedded model's name, or a path to a .gguf file; name: short name in the capability's id; type: what it
    does, such as `chat` or `embedding`; description: what it is for, as prompts are matched with it; examples: prompts
    that it should get; system: a system prompt for this capability; version: of the model, as you count it; strength:
    0 to 1; price: US dollars for a million output tokens; labels: of this capability, besides those of the node.
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
    Anthropic themselves; name: in the capabilities' ids; models: only these, all that it has when empty; key_env: the
    environment variable that has its key; key_file: the file that has it, which only its owner can read; slots:
    requests at once; price: US dollars for a million output tokens; strength: 0 to 1; labels: of its capabilities.
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
    mesh: MeshSection = MeshSection()
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
        return _folder(self.gateway.keys_file) if self.gateway.keys_file else self.home / "api-keys.json"

    @property
    def audit_file(self) -> Path:
        return self.node_home / "audit.db"

    @property
    def log_file(self) -> Path:
        return self.node_home / "node.log"


_SECTIONS: dict[str, type[Section]] = {
    "node": NodeSection,
    "transport": TransportSection,
    "mesh": MeshSection,
    "discovery": DiscoverySection,
    "inference": InferenceSection,
    "gateway": GatewaySection,
    "models": ModelsSection,
    "log": LogSection,
}
_LISTS: dict[str, type[Section]] = {"serve": ServeSection, "runtimes": RuntimeSection}


@dataclass(frozen=True, slots=True)
class Layers:
    """What was set where, before it is put together and checked. sources: name -> section -> key -> value, the later
    ones beat the earlier ones; file: the configuration file, which need not be there."""

    home: Path
    runtime: Path
    file: Path
    sources: dict[str, dict[str, Any]]


def layers(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Layers:
    """Read every source. Raises ConfigError for names that are not known."""
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    home = _folder(given.pop("home", None) or environ.get("ATMO_HOME") or "~/.atmo")
    runtime = _folder(given.pop("runtime", None) or environ.get("ATMO_RUNTIME") or _default_runtime(environ))
    file, wanted = _which_file(file, environ, home)
    from_environment: dict[str, Any] = {}
    from_flags: dict[str, Any] = {}
    from_file = _read_toml(file, wanted)
    merge_environment(from_environment, environ, _SECTIONS)
    _merge_flags(from_flags, given)
    return Layers(home, runtime, file, {"file": from_file, "environment": from_environment, "flag": from_flags})


def load(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Config:
    """The effective configuration. `flags` maps `section.key`, `home`, `runtime` or `serve` to values; None is unset.

    Raises ConfigError that names the key, where it stands, and the nearest known one.
    """
    return settle(layers(flags, environ, file))


def settle(read: Layers) -> Config:
    """Put the layers together and check the outcome. Raises ConfigError."""
    settings: dict[str, Any] = {}
    for source in read.sources.values():
        for name, value in source.items():
            settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    try:
        config = msgspec.convert({**settings, "home": read.home, "runtime": read.runtime}, Config, dec_hook=_as_path)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"The configuration is not right: {_readable(exc)}.", hint=f"Look into {read.file}.") from exc
    _check(config)
    return config


def config_file(home: str | None = None, file: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Where the configuration file is, or would be, even if nothing in it is right."""
    environ = os.environ if environ is None else environ
    return _which_file(file, environ, _folder(home or environ.get("ATMO_HOME") or "~/.atmo"))[0]


def _which_file(file: Path | None, environ: Mapping[str, str], home: Path) -> tuple[Path, bool]:
    """The file to read, and whether it must exist."""
    named = file or (Path(environ["ATMO_CONFIG"]) if environ.get("ATMO_CONFIG") else None)
    return (named.expanduser(), True) if named else (home / "config.toml", False)


def _folder(text: str | Path) -> Path:
    return Path(text).expanduser().absolute()


def _default_runtime(environ: Mapping[str, str]) -> Path:
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "atmo"
    import tempfile  # here, because the command line waits for this module

    return Path(tempfile.gettempdir()) / f"atmo-{os.getuid()}"


def _read_toml(file: Path, wanted: bool) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as exc:
        if wanted:
            raise ConfigError(f"There is no configuration file {file}.", hint="Check the path.") from exc
        return {}
    except OSError as exc:
        raise ConfigError(
            f"The configuration file {file} cannot be read: {exc.strerror}.", hint=f"Whose is it? ls -l {file}"
        ) from exc
    import tomllib  # here, because the command line waits for this module

    try:
        settings = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"The configuration file {file} is not valid TOML: {exc}.", hint="Mend it: atmo config edit"
        ) from exc
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
            raise unknown(name, [*_SECTIONS, *_LISTS], where)


def _check_keys(table: Any, kind: type[Section], section: str, where: str) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{section} in {where} must be a table.", hint=f"Write {section} on a line of its own.")
    for key in table:
        if key not in kind.__struct_fields__:
            raise unknown(key, list(kind.__struct_fields__), f"{section} of {where}")


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
    _check_transport(config.transport)
    if config.mesh.token and config.mesh.token_file:
        raise ConfigError("[mesh] has both token and token_file.", hint="Leave one of them away.")
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
    lane_port = config.transport.lane_port
    if config.models.plain_lane and lane_port and config.transport.port == lane_port + LANES:
        raise ConfigError(
            f"transport.port {config.transport.port} is the plain lane's, the fourth from transport.lane_port on.",
            hint=f"Use {config.transport.port + 1} for lane_port.",
        )
    if config.models.plain_lane and lane_port + LANES > 65535:
        raise ConfigError(f"{lane_port} is not the first of four ports.", hint="Use 1 to 65532, or 0.")
    if config.models.prefetch and not config.models.quota_gb:
        raise ConfigError("models.prefetch needs a bound.", hint="Set models.quota_gb, too.")
    if not 0 <= config.models.quota_gb < 1e9:
        raise ConfigError(f"models.quota_gb = {config.models.quota_gb} is no size.", hint="Use 0 for no limit.")
    for runtime in config.runtimes:
        _check_runtime(runtime)


def _check_transport(transport: TransportSection) -> None:
    if not 0 <= transport.port < 65536:
        raise ConfigError(f"{transport.port} is not a port.", hint="Use 1 to 65535, or 0 for any.")
    lanes = range(transport.lane_port, transport.lane_port + LANES)
    if transport.lane_port and not 0 < transport.lane_port <= 65536 - LANES:
        raise ConfigError(f"{transport.lane_port} is not the first of three ports.", hint="Use 1 to 65533, or 0.")
    if transport.lane_port and transport.port in lanes:
        raise ConfigError(
            f"transport.port {transport.port} is one of the three from transport.lane_port on.",
            hint=f"Use {transport.port + 1} for lane_port.",
        )
    least_s, most_s = HEARTBEATS_S
    if not least_s <= transport.heartbeat_s <= most_s:
        raise ConfigError(
            f"A heartbeat every {transport.heartbeat_s:g} s is no use.", hint=f"Use {least_s:g} to {most_s:g} seconds."
        )


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
