"""`atmo models list | import | inspect | rm | gc | verify | share | pin | where`. None needs a running node."""

from __future__ import annotations

from pathlib import Path

from atmo.cli import model_views, output
from atmo.cli.progress import Bar
from atmo.client import SyncClient, running_nodes
from atmo.config import Config, load, parse_labels
from atmo.errors import AtmoError, ModelDamaged, ModelNotFound, UsageError
from atmo.models.library import LocalModel, find_model, local_models
from atmo.models.records import StoredModel
from atmo.models.staging import incoming
from atmo.models.store import Store
from atmo.models.trees import check_usable

Json = model_views.Json


def open_store(config: Config) -> Store:
    return Store(config.model_store, int(config.models.quota_gb * 1e9))


def show(node: str, home: str | None, *, as_json: bool) -> None:
    config = load({"home": home})
    store = open_store(config)
    found, problems = local_models(config.home)
    kept = {model.root.hex(): model for model in store.models()}
    mesh = _mesh(config, node)
    report = {
        "local": [_local(model, kept.get(model.root)) for model in found],
        "partial": _partial(store),
        "served": mesh["served"],
        "problems": problems,
    }
    _say(report, as_json, model_views.models)


def take(path: str, name: str, home: str | None, *, copy: bool, pin: bool, share: bool, as_json: bool) -> None:
    store = open_store(load({"home": home}))
    place = Path(path).expanduser()
    check_usable(place)
    known = {model.root for model in store.models()}
    with Bar(f"Reading {place.name}", quiet=as_json) as bar:
        model = store.import_(place, name, copy=copy, progress=bar.more)
    if pin or share:
        model = store.mark(model.root, pinned=pin or None, shared=share or None)
    report = {"model": stored(model), "new": model.root not in known}
    _say(report, as_json, model_views.taken)


def inspect(which: str, home: str | None, *, as_json: bool) -> None:
    config = load({"home": home})
    store = open_store(config)
    try:
        kept: StoredModel | None = store.find(which)
    except ModelNotFound:
        kept = None
    try:
        model: LocalModel | None = find_model(kept.root.hex() if kept else which, config.home)
    except AtmoError:
        if kept is None:
            raise
        model = None  # kept, and no engine here can run it
    report = {"stored": stored(kept) if kept else None, "model": _facts(model) if model else None}
    _say(report, as_json, model_views.inspected)


def remove(names: list[str], home: str | None, *, as_json: bool) -> None:
    store = open_store(load({"home": home}))
    doomed = [_removable(store, name) for name in names]  # all of them are there, or none is removed
    for model in doomed:
        store.remove(model.root)
    _say({"removed": [stored(model) for model in doomed]}, as_json, model_views.removed)


def collect(quota_gb: float | None, home: str | None, *, dry: bool, as_json: bool) -> None:
    store = open_store(load({"home": home}))
    quota_bytes = store.quota_bytes if quota_gb is None else int(quota_gb * 1e9)
    found = store.gc(max(1, quota_bytes) if quota_gb is not None else quota_bytes, dry=dry)
    report = {
        "removed": [stored(model) for model in found.removed],
        "freed_bytes": found.freed_bytes,
        "used_bytes": found.used_bytes,
        "quota_bytes": quota_bytes,
        "fits": found.fits,
        "dry_run": dry,
    }
    _say(report, as_json, model_views.collected)


def verify(names: list[str], home: str | None, *, as_json: bool) -> None:
    """Raises ModelDamaged when one is not what it was."""
    store = open_store(load({"home": home}))
    models = [store.find(name) for name in names] if names else store.models()
    found = []
    with Bar("Verifying", quiet=as_json, total_bytes=sum(model.size_bytes for model in models)) as bar:
        for model in models:
            found.append({**stored(model), "bad": store.verify(model.root, bar.more)})
    _say({"verified": found}, as_json, model_views.verified)
    bad = [entry["name"] for entry in found if entry["bad"]]
    if bad:
        raise SystemExit(ModelDamaged.exit_code)


def share(which: str, only: list[str], home: str | None, *, off: bool, as_json: bool) -> None:
    config = load({"home": home})
    store = open_store(config)
    labels = parse_labels(only, "--only") if only else {}
    if off and only:
        raise UsageError("--off and --only do not go together.", hint="Leave one of them away.")
    model = store.mark(_shareable(store, which, config).root, shared=not off, only={} if off else labels)
    _say({"model": stored(model)}, as_json, model_views.shared)


def pin(which: str, home: str | None, *, off: bool, as_json: bool) -> None:
    store = open_store(load({"home": home}))
    model = store.mark(store.find(which).root, pinned=not off)
    _say({"model": stored(model)}, as_json, model_views.pinned)


def where(which: str, node: str, home: str | None, *, as_json: bool) -> None:
    config = load({"home": home})
    store = open_store(config)
    here = [model for model in (*store.models(), *store.models(partial=True)) if _is(model, which)]
    seeds = [seed for seed in _mesh(config, node)["seeds"] if _seeds(seed, which, here)]
    report: Json = {"model": which, "here": [stored(model) for model in here], "seeds": seeds, "loose": None}
    if not here and not seeds:  # a file or an embedded model, or the error that says what is near
        report["loose"] = _facts(find_model(which, config.home))
    _say(report, as_json, model_views.where)


def stored(model: StoredModel) -> Json:
    record = model.record
    return {
        "name": model.name,
        "root": model.root.hex(),
        "size_bytes": model.size_bytes,
        "done_bytes": model.done_bytes,
        "files": [{"path": entry.path, "size_bytes": entry.size} for entry in model.entries],
        "folder": str(model.folder),
        "source": record.source,
        "added_s": record.added_s,
        "used_s": model.used_s,
        "pinned": record.pinned,
        "shared": record.shared,
        "only": record.only,
    }


def _say(report: Json, as_json: bool, view: model_views.View) -> None:
    if as_json:
        output.print_json(report)
    else:
        output.console().print(view(output.harmless(report)))


def _mesh(config: Config, node: str) -> Json:
    """What a node that runs knows of others; nothing when none runs."""
    told = SyncClient(config, node=node).models() if node or running_nodes(config) else {}
    return {"served": told.get("served", []), "seeds": told.get("seeds", [])}


def _local(model: LocalModel, kept: StoredModel | None) -> Json:
    return {
        **_facts(model),
        "root": model.root,
        "pinned": kept.record.pinned if kept else False,
        "shared": kept.record.shared if kept else False,
        "source": kept.record.source if kept else "",
    }


def _facts(model: LocalModel) -> Json:
    info = model.info
    return {
        "name": model.name,
        "type": model.type,
        "size_bytes": model.size_bytes,
        "context": info.context if info else 0,
        "parameters": info.parameters if info else 0,
        "quantisation": info.quantisation if info else "",
        "architecture": info.architecture if info else "",
        "licence": model.licence,
        "description": model.description,
        "embedded": model.embedded,
        "path": str(model.path),
    }


def _partial(store: Store) -> list[Json]:
    begun = [(model.name, model.size_bytes, model.done_bytes) for model in store.models(partial=True)]
    begun += [(about.source, about.total_bytes, done_bytes) for about, done_bytes, _ in incoming(store.folder)]
    return [{"name": name, "size_bytes": size, "done_bytes": done} for name, size, done in begun]


def _removable(store: Store, which: str) -> StoredModel:
    try:
        return store.find(which)
    except ModelNotFound:
        begun = [model for model in store.models(partial=True) if _is(model, which)]
        if len(begun) != 1:
            raise
        return begun[0]


def _is(model: StoredModel, which: str) -> bool:
    if which == model.record.source:
        return True
    return which.lower() == model.name.lower() or (len(which) >= 6 and model.root.hex().startswith(which.lower()))


def _seeds(seed: Json, which: str, here: list[StoredModel]) -> bool:
    named = which.lower() == seed["model"].lower() or (len(which) >= 6 and seed["root"].startswith(which.lower()))
    return named or which == seed["source"] or seed["root"] in [model.root.hex() for model in here]


def _shareable(store: Store, which: str, config: Config) -> StoredModel:
    """A model of the store; a file of this machine becomes one."""
    try:
        return store.find(which)
    except ModelNotFound:
        model = find_model(which, config.home)
        if model.embedded:
            raise UsageError(f"{model.name} comes with Atmosphere: every node has it.") from None
        return store.import_(model.path)
