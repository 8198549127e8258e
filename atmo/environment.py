"""Settings from the environment: `ATMO_<SECTION>_<KEY>`, and the short names that a container usually sets."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from atmo.errors import ConfigError

ALONE = {"ATMO_HOME", "ATMO_RUNTIME", "ATMO_CONFIG"}
# What other servers call these settings, and what the options of `atmo node start` are called.
SHORT_NAMES = {
    "ATMO_MODEL_PATH": "serve",
    "ATMO_HOST": "transport.host",
    "ATMO_PORT": "transport.port",
    "ATMO_NODE_ID": "node.name",
    "ATMO_BOOTSTRAP_NODES": "discovery.seeds",
    "ATMO_HEARTBEAT_INTERVAL": "transport.heartbeat_s",
    "ATMO_N_CTX": "inference.context",
    "ATMO_N_BATCH": "inference.batch",
    "ATMO_N_GPU_LAYERS": "inference.gpu_layers",
}

# How values are read, and what they are called.
_KINDS: dict[str, tuple[type, str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (bool, "true or false"),
}


def merge_environment(
    settings: dict[str, Any], environ: Mapping[str, str], sections: Mapping[str, type[msgspec.Struct]]
) -> None:
    """Put what the environment says into `settings`, over what is there. Raises ConfigError."""
    known = {variable(f"{s}.{k}"): f"{s}.{k}" for s, kind in sections.items() for k in kind.__struct_fields__}
    known |= SHORT_NAMES
    given: dict[str, str] = {}
    for name, text in environ.items():
        if not name.startswith("ATMO_") or name in ALONE:
            continue
        if name not in known:
            raise unknown(name, [*known, *ALONE], "the environment")
        setting = known[name]
        if setting in given:
            raise ConfigError(f"{given[setting]} and {name} are two names of one setting.", hint="Unset one of them.")
        given[setting] = name
        _set_from_text(settings, sections, setting, text, name)


def variable(setting: str) -> str:
    """`transport.port` -> `ATMO_TRANSPORT_PORT`."""
    return f"ATMO_{setting.replace('.', '_').upper()}"


def spelled(setting: str, environ: Mapping[str, str]) -> str:
    """By which of its names a setting that the environment holds was set."""
    return next(
        (name for name, meant in SHORT_NAMES.items() if meant == setting and name in environ), variable(setting)
    )


def _set_from_text(
    settings: dict[str, Any], sections: Mapping[str, type[msgspec.Struct]], setting: str, text: str, name: str
) -> None:
    if setting == "serve":
        settings["serve"] = [{"model": part.strip()} for part in text.split(",") if part.strip()]
        return
    section, _, key = setting.partition(".")
    settings.setdefault(section, {})[key] = _from_text(text, sections[section], key, name)


def _from_text(text: str, kind: type[msgspec.Struct], key: str, name: str) -> Any:
    """Lists are written with commas, tables as `key=value` with commas."""
    field_type = kind.__annotations__[key]
    if "dict" in field_type:
        return parse_labels(text.split(","), name)
    if "tuple" in field_type:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    target, called = _KINDS.get(field_type, (str, "text"))
    try:
        return msgspec.convert(text, target, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"{name} cannot be {text!r}: it is {called}.", hint=f"Set {name} to one, or unset it."
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


def unknown(name: str, known: list[str], where: str) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
    return ConfigError(f"Unknown key {name!r} in {where}.", hint=hint)
