"""`atmo mesh`, `atmo models list`."""

from __future__ import annotations

from pathlib import Path

from atmo.cli import output, views
from atmo.client import SyncClient, running_nodes
from atmo.config import load
from atmo.models.library import LocalModel, local_models


def show(node: str, *, as_json: bool) -> None:
    report = SyncClient(node=node).mesh()
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.mesh(output.harmless(report)))


def models(node: str, home: str | None, *, as_json: bool) -> None:
    config = load({"home": home})
    found, problems = local_models(config.home)
    served = SyncClient(config, node=node).models()["served"] if node or running_nodes(config) else []
    report = {"local": [_model(model) for model in found], "served": served, "problems": problems}
    if as_json:
        output.print_json(report)
    else:
        output.console().print(views.models(output.harmless(report)))


def _model(model: LocalModel) -> views.Json:
    return {
        "name": model.name,
        "type": model.type,
        "size_bytes": model.size_bytes,
        "context": model.info.context if model.info else 0,
        "parameters": model.info.parameters if model.info else 0,
        "quantisation": model.info.quantisation if model.info else "",
        "embedded": model.embedded,
        "path": str(Path(model.path)),
    }
