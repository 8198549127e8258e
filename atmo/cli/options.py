"""Options that many commands share: one name, one help text."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
NodeName = Annotated[str, typer.Option("--node", help="Talk to the local node of this name.", metavar="NAME")]
Home = Annotated[str | None, typer.Option("--home", help="Folder for keys and models [ATMO_HOME, ~/.atmo].")]
ConfigFile = Annotated[str | None, typer.Option("--config", help="Configuration file [$ATMO_HOME/config.toml].")]
