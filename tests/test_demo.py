"""`make demo` does what the README says, and ends by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_runs_to_its_end_and_everything_works() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ATMO_")}
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**environ, "COLUMNS": "120"},
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All as it should be" in done.stdout
    assert "5 of 5 prompts" in done.stdout
    assert "clinic-chat: 100%" in done.stdout
    assert "Signed by hospital, member of your mesh, and unchanged since." in done.stdout
