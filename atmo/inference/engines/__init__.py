"""Native engines, and the choice among them. Each is imported only when it is opened: a worker starts in its own
time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from atmo.errors import ConfigError, EngineUnavailable
from atmo.inference.engine import Engine, ModelSpec

# engine -> (module that must be importable, what to install)
_LLAMA = {
    "xllamacpp": ("xllamacpp", "pip install xllamacpp"),
    "llama-cpp-python": ("llama_cpp", "pip install 'atmosphere-mesh[llama-cpp-python]', which needs a C++ compiler"),
}
_ONNX_KINDS = ("encoder", "classifier", "vision")


def installed_llama_engines() -> list[str]:
    """The llama.cpp engines on this machine, the preferred one first."""
    return [name for name, (module, _) in _LLAMA.items() if find_spec(module) is not None]


def takes_projector(engine: str) -> bool:
    """Whether models get to see images here, with this engine or the one that `auto` stands for."""
    return (installed_llama_engines() or [""])[0] == "xllamacpp" if engine == "auto" else engine == "xllamacpp"


def choose(spec: ModelSpec) -> str:
    """The engine for `spec`: the one it names, or the best that is installed.

    Raises EngineUnavailable when it is not installed, ConfigError when kind and engine do not go together.
    """
    if spec.kind in _ONNX_KINDS and spec.engine in ("auto", "onnx"):
        return "onnx"
    if spec.kind != "gguf" or spec.engine not in ("auto", *_LLAMA):
        raise ConfigError(
            f"There is no engine {spec.engine!r} for a model of kind {spec.kind!r}.", hint='Use engine = "auto".'
        )
    installed = installed_llama_engines()
    if spec.engine == "auto" and installed:
        return installed[0]
    if spec.engine in installed:
        return spec.engine
    wanted = "xllamacpp" if spec.engine == "auto" else spec.engine
    raise EngineUnavailable(
        f"{spec.name} needs the engine {wanted}, which is not installed.", hint=f"{_LLAMA[wanted][1]}."
    )


def open_engine(spec: ModelSpec, folder: Path) -> Engine:
    """Load the model of `spec` in this process, which waits until it is done. folder: a private one for whatever the
    engine must put into a file system.

    Raises EngineUnavailable, ConfigError, ModelNotFound, ModelInvalid.
    """
    name = choose(spec)
    if name == "onnx":
        from atmo.inference.engines.onnx import open_onnx

        return open_onnx(spec)
    if name == "xllamacpp":
        from atmo.inference.engines.xllama import open_xllama

        return open_xllama(spec, folder)
    from atmo.inference.engines.llama_py import open_llama_py

    return open_llama_py(spec)
