"""The image's steps without Docker: a wheel is built of what the Dockerfile copies, put into an environment of its own
without a network, and its node starts and is healthy in a bare home."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import eventually
from tests.deploy.containers import PATIENCE_S, Container
from tests.deploy.ports import free_ports, lanes
from tests.deploy.recipes import DOCKERFILE, ROOT, image, stages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as the first stage does, of what it copies and what .dockerignore lets through."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    source, made = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("wheels")
    for line in stages(DOCKERFILE.read_text())[0].all("COPY"):
        for name in line.split()[:-1]:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(ROOT / name, source / name)
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(made), str(source))
    (built,) = made.glob("*.whl")
    return built


def test_the_wheel_has_all_of_the_package_its_licences_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {entry.filename: entry for entry in archive.infolist()}
        licences = {Path(name).name for name in packed if "/licenses/" in name}
    here = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "atmo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in packed if ".dist-info/" not in name} == here
    assert licences == {"LICENSE", "NOTICE"}
    assert {name.split("/")[0] for name in packed if ".dist-info/" not in name} == {"atmo"}
    assert all(entry.file_size == (ROOT / name).stat().st_size for name, entry in packed.items() if name in here)
    assert not any(entry.external_attr >> 16 & 0o170000 == 0o120000 for entry in packed.values()), "a link"


@pytest.fixture
def container(wheel: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[Container]:
    """A node of that wheel, in an environment that has this one's packages but not this one's `atmo`."""
    place = Path(environ["ATMO_HOME"]).parent
    programs = _installed(wheel, tmp_path / "opt")
    told = image().environment | {
        "ATMO_PORT": str(free_ports(1)[0]),
        "ATMO_TRANSPORT_LANE_PORT": str(lanes()),
        "ATMO_GATEWAY_PORT": str(free_ports(1)[0]),
    }
    swaps = {"/var/lib/atmo": str(place / "home"), "/tmp/atmo": str(place / "run"), "0.0.0.0": "127.0.0.1"}
    made = Container(told, swaps, programs)
    made.start()
    yield made
    assert made.stop() == 0


def _installed(wheel: Path, folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    _pip("--python", str(python), "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return folder / "bin"


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr


def test_a_node_of_the_wheel_starts_is_healthy_and_stops(container: Container) -> None:
    eventually(container.healthy, "the health check passes", PATIENCE_S)
    where = container.run("python", "-c", "import atmo; print(atmo.__file__)").out
    assert "/opt/lib/" in where
    port = container.environ["ATMO_GATEWAY_PORT"]
    for path in ("health", "ready"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            assert answer.status == 200
    answered = container.run("atmo", "ask", "What is 2+2?")
    assert "4" in answered.out, answered.err
