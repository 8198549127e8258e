"""The image's steps without Docker: a wheel is built of what the Dockerfile copies, and put into an environment of its
own without a network (conftest.py). test_compose_mesh.py runs its nodes from there."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from tests.deploy.recipes import ROOT


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


def test_the_image_has_its_own_atmo_and_nothing_of_this_folder(programs: Path) -> None:
    """What test_compose_mesh.py starts, and its engines' workers with it, is what was installed."""
    done = subprocess.run(
        [programs / "python", "-c", "import atmo; print(atmo.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert done.stdout.startswith(str(programs.parent / "lib"))
    assert (programs / "atmo").exists()
