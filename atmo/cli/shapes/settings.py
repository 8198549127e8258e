"""The configuration."""

from __future__ import annotations

from typing import Any

from atmo.cli.shapes.shape import Shape


class Setting(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """source: `default`, the file's path, the variable's name or `flag`."""

    name: str
    value: Any
    source: str


class Settings(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, also those that have their default. file: it need not be there."""

    file: str
    settings: list[Setting]


class Written(Setting, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting as it holds now, which a variable of the environment may decide."""

    file: str


class ConfigPath(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the file is, or would be."""

    file: str
    exists: bool


class Checked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """serve: models that a node would serve. What is wrong comes as `error`, with exit code 2."""

    valid: bool
    file: str
    serve: list[str]
