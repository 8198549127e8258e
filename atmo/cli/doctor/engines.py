"""What answers: llama.cpp, the encoder, the models that are to be served, and memory for them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from atmo.cli.doctor.finding import Finding, bad, failed, note, ok
from atmo.cli.doctor.nodes import Running
from atmo.config import Config
from atmo.errors import AtmoError, ModelInvalid, ModelNotFound
from atmo.host import THIS
from atmo.inference.engines import choose
from atmo.inference.engines.memory import Free, check
from atmo.inference.engines.sizing import size
from atmo.models.gguf import read_gguf
from atmo.models.library import find_model, local_models
from atmo.node.offers import offers

# package -> module
_ENGINES = {"xllamacpp": "xllamacpp", "llama-cpp-python": "llama_cpp", "onnxruntime": "onnxruntime"}
# Loading an engine's libraries takes a second; a disk that sleeps takes longer. A guess.
LOAD_WITHIN_S = 60.0


def examine(config: Config, running: list[Running]) -> Iterator[Finding]:
    yield from _engines()
    yield _encoder()
    yield from _models(config)
    if not running:  # else they are loaded, and their memory is not free
        yield from _memory(config)


def _engines() -> Iterator[Finding]:
    """Installed is not enough: a library that it needs may be missing, which only loading shows."""
    installed = {}
    for package in _ENGINES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    broken = {package: why for package in installed if (why := _why_not_loaded(_ENGINES[package]))}
    for package, why in broken.items():
        yield bad(
            "engines", f"{package} cannot be loaded: {why}", f"Install it anew: pip install --force-reinstall {package}"
        )
    works = [f"{package} {number}" for package, number in installed.items() if package not in broken]
    if any(entry.startswith(("xllamacpp", "llama-cpp-python")) for entry in works):
        yield ok("engines", f"Engines: {', '.join(works)}.")
    elif not broken:
        yield bad(
            "engines", f"No engine for llama.cpp. Engines: {', '.join(works) or 'none'}.", "Run: pip install xllamacpp"
        )


def _why_not_loaded(module: str) -> str:
    """In a process of its own: a broken library may take its process down. Empty if it loads."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOAD_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nothing for {LOAD_WITHIN_S:.0f} s."
    if tried.returncode == 0:
        return ""
    said = tried.stderr.strip().splitlines()
    return said[-1] if said else f"its process ended with {tried.returncode}."


def _encoder() -> Finding:
    from atmo.inference.encoder import Encoder

    try:
        encoder = Encoder.load()
        encoder.encode("Hello")
    except AtmoError as error:
        return failed("encoder", error)
    return ok("encoder", f"The text encoder works ({encoder.encoder_id}).")


def _models(config: Config) -> Iterator[Finding]:
    for problem in local_models(config.home)[1]:
        yield note("models", problem, "Put the whole file there, or delete it.")
    for section in config.serve:
        try:
            model = find_model(section.model, config.home)
            yield ok("models", f"The model {model.name} is here ({model.size_bytes / 1e6:.1f} MB).")
        except AtmoError as error:
            yield failed("models", error)


def _memory(config: Config) -> Iterator[Finding]:
    """Each model by itself, as its engine will reckon before it loads it."""
    try:
        wanted = offers(config)
    except (ModelNotFound, ModelInvalid):
        return  # said already
    except AtmoError as error:
        yield failed("models", error)
        return
    free = Free(THIS.free_bytes())
    for offer in wanted:
        try:
            choose(offer.spec)
            if offer.spec.kind == "gguf":
                info = read_gguf(Path(offer.spec.path))
                check(offer.spec, info, size(offer.spec, info), free)
        except AtmoError as error:
            yield failed("memory", error)
