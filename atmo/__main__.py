"""The program `atmo`, also as `python -m atmo`."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    # Until a command runs Ctrl-C ends the process without a word: nothing was begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from atmo.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
