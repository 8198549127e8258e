"""docs/cli.md says what the program says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
