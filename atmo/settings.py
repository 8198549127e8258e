"""Single settings by their names, for people: what each is, where it comes from, and how a text becomes its value."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atmo.config import Config, Layers, layers, parse_labels, settle
from atmo.errors import ConfigError

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """name: `section.key`, or `home` and `runtime`; source: `default`, or where it was set: a file's path, a variable's
    name, `flag`."""

    name: str
    value: Any
    source: str


def names() -> list[str]:
    """All that can be set one by one; `serve` and `runtimes` are tables, which the file holds."""
    return [f"{section}.{key}" for section, kind in _sections().items() for key in kind.__struct_fields__]


def all_settings(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> list[Setting]:
    """Every setting with its value and source. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    read = layers(flags, environ, file)
    config = settle(read)
    found = [
        Setting("home", str(config.home), _place("home", flags, environ)),
        Setting("runtime", str(config.runtime), _place("runtime", flags, environ)),
    ]
    for name in names():
        section, _, key = name.partition(".")
        found.append(Setting(name, _plain(getattr(getattr(config, section), key)), _source(read, section, key)))
    for table in ("serve", "runtimes"):
        source = next(
            (_words(read, source, table, "") for source in ("flag", "file") if table in read.sources[source]), DEFAULT
        )
        found.append(Setting(table, _plain(getattr(config, table)), source))
    return found


def find(name: str, settings: list[Setting]) -> Setting:
    """Raises ConfigError with the nearest name."""
    for setting in settings:
        if setting.name == name:
            return setting
    raise _unknown(name, [setting.name for setting in settings])


def kind_of(name: str) -> Any:
    """The type of a setting. Raises ConfigError for one that cannot be set by itself."""
    section, _, key = name.partition(".")
    for field in msgspec.structs.fields(_sections()[section]) if section in _sections() else ():
        if field.name == key:
            return field.type
    if name in ("serve", "runtimes"):
        raise ConfigError(f"{name} is a list of tables.", hint="Write it into the file: atmo config edit")
    if name in ("home", "runtime"):
        raise ConfigError(f"{name} is set by ATMO_{name.upper()} alone.", hint=f"Set ATMO_{name.upper()}.")
    raise _unknown(name, names())


def parse(name: str, text: str) -> Any:
    """A value as it would stand in the file, from a text: lists with commas, labels as key=value with commas."""
    kind = kind_of(name)
    if kind is str:
        return text
    if "dict" in str(kind):
        return parse_labels(text.split(","), name)
    if "tuple" in str(kind):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{name} cannot be {text!r}: it is {_article(kind)}.", hint="See: atmo config --all"
        ) from None


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, str(kind))


def _sections() -> dict[str, type[msgspec.Struct]]:
    return {
        field.name: field.type
        for field in msgspec.structs.fields(Config)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }


def _source(read: Layers, section: str, key: str) -> str:
    for source in ("flag", "environment", "file"):
        if key in read.sources[source].get(section, {}):
            return _words(read, source, section, key)
    return DEFAULT


def _words(read: Layers, source: str, section: str, key: str) -> str:
    if source == "file":
        return str(read.file)
    return f"ATMO_{section}_{key}".upper() if source == "environment" else source


def _place(name: str, flags: Mapping[str, Any] | None, environ: Mapping[str, str]) -> str:
    if (flags or {}).get(name):
        return "flag"
    if environ.get(f"ATMO_{name.upper()}"):
        return f"ATMO_{name.upper()}"
    return "XDG_RUNTIME_DIR" if name == "runtime" and environ.get("XDG_RUNTIME_DIR") else DEFAULT


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _unknown(name: str, known: list[str]) -> ConfigError:
    near = [each for each in known if each.rpartition(".")[2] == name] or difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "See all: atmo config --all"
    return ConfigError(f"There is no setting {name!r}.", hint=hint)
