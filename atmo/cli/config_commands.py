"""`atmo config show | get | set | unset | path | edit | check`."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from rich.text import Text

from atmo import settings
from atmo.cli import output, views
from atmo.client import running_nodes
from atmo.config import Config, config_file, load
from atmo.errors import AtmoError, ConfigError, UsageError
from atmo.settings import Setting

TEMPLATE = """# Atmosphere's settings. All of them, with what they are now: atmo config --all
# Nodes take them when they start. Check this file: atmo config check

# [node]
# labels = { residency = "eu" }

# [[serve]]
# model = "qwen2.5-coder-7b-q4.gguf"    # in the models folder of the home, or a path
# description = "Writes, explains and debugs source code in Python, TypeScript and Rust."
# examples = ["Why does this function leak memory?"]
"""


def show(home: str | None, file: str | None, *, every: bool, as_json: bool) -> None:
    found = settings.all_settings({"home": home}, file=_path(file))
    shown = [each for each in found if every or as_json or each.source != settings.DEFAULT]
    if as_json:
        output.print_json({"file": str(_file(home, file)), "settings": [_json(each) for each in shown]})
    else:
        rows = [_json(each) for each in shown]
        output.console().print(views.settings(output.harmless(rows), str(_file(home, file)), every=every))


def get(name: str, home: str | None, file: str | None, *, as_json: bool) -> None:
    found = settings.find(name, settings.all_settings({"home": home}, file=_path(file)))
    if as_json:
        output.print_json(_json(found))
    else:
        output.console().print(Text(views.setting_value(found.value)), soft_wrap=True)


def put(name: str, text: str | None, home: str | None, file: str | None, *, as_json: bool) -> None:
    """Set, or with None take out. The file is written only if a node could start with it."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    value = settings.parse(name, text) if text is not None else settings.kind_of(name) and None
    place = _file(home, file)
    section, _, key = name.partition(".")
    try:
        document = tomlkit.parse(place.read_text()) if place.exists() else tomlkit.document()
    except (OSError, UnicodeDecodeError, TOMLKitError) as exc:
        raise ConfigError(f"The configuration file {place} cannot be read: {exc}.", hint="atmo config edit") from exc
    if text is None:
        table = document.get(section, {})
        was_set = table.pop(key, None) is not None
    else:
        was_set = key in document.setdefault(section, tomlkit.table())
        document[section][key] = value
    _write(place, tomlkit.dumps(document), home)
    after = settings.find(name, settings.all_settings({"home": home}, file=_path(file)))
    if as_json:
        output.print_json({**_json(after), "file": str(place)})
        return
    if text is None and not was_set:
        output.console().print(f"{name} was not set in {place}.", soft_wrap=True)
    output.console().print(Text(f"{name} = {views.setting_value(after.value)}"), soft_wrap=True)
    _warn(after, place, home)


def _warn(after: Setting, place: Path, home: str | None) -> None:
    """What keeps the file's value from holding."""
    if after.source not in (settings.DEFAULT, str(place)):
        output.aside().print(f"[yellow]![/] {after.source} is set and beats the file.")
    names = [card.name for card in running_nodes(load({"home": home}, file=place if place.exists() else None))]
    if names:
        output.aside().print(f"Nodes that run keep what they started with: {', '.join(names)}.", style="dim")


def _write(place: Path, text: str, home: str | None) -> None:
    """Beside it, checked, and moved into place. Raises ConfigError and leaves the old file then."""
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.write_text(text)
        load({"home": home}, file=fresh)
        fresh.replace(place)
    except OSError as exc:
        raise ConfigError(
            f"The configuration file {place} cannot be written: {exc.strerror}.", hint="Set ATMO_HOME, or use --config."
        ) from exc
    except ConfigError as error:
        raise ConfigError(error.message, hint=error.hint.replace(str(fresh), str(place))) from error
    finally:
        fresh.unlink(missing_ok=True)


def path(home: str | None, file: str | None, *, as_json: bool) -> None:
    place = _file(home, file)
    if as_json:
        output.print_json({"file": str(place), "exists": place.exists()})
    else:
        output.console().print(Text(str(place)), soft_wrap=True)


def edit(home: str | None, file: str | None, *, as_json: bool) -> None:
    place = _file(home, file)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not place.exists():
            place.write_text(TEMPLATE)
        code = subprocess.run([*shlex.split(editor), str(place)], check=False).returncode
    except FileNotFoundError:
        raise UsageError(f"There is no editor {editor!r}.", hint="Set EDITOR to one, such as nano.") from None
    except OSError as exc:
        raise ConfigError(f"{place} cannot be edited: {exc.strerror}.", hint="Use --home or --config.") from exc
    if code != 0:
        raise AtmoError(f"The editor ended with exit code {code}.", hint="The file is as it left it.")
    check(home, file, as_json=as_json)


def check(home: str | None, file: str | None, *, as_json: bool) -> None:
    config = load({"home": home}, file=_path(file))
    place = _file(home, file)
    if as_json:
        output.print_json({"valid": True, "file": str(place), "serve": [entry.model for entry in config.serve]})
        return
    output.console().print(_said(config, place), soft_wrap=True)


def _said(config: Config, place: Path) -> Text:
    what = f"{place} can be used" if place.exists() else f"There is no {place}: all settings are as they come"
    return Text(f"{what}. Served: {', '.join(entry.model for entry in config.serve) or 'nothing'}.")


def _file(home: str | None, file: str | None) -> Path:
    return config_file(home, _path(file))


def _path(file: str | None) -> Path | None:
    return Path(file).expanduser() if file else None


def _json(setting: Setting) -> dict[str, Any]:
    return {"name": setting.name, "value": setting.value, "source": setting.source}
