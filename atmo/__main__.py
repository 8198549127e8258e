"""The program `atmo`, also as `python -m atmo`."""

from __future__ import annotations

import gc
import signal
from typing import NoReturn


def main() -> NoReturn:
    # Until a command runs Ctrl-C ends the process without a word: nothing was begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # until all is imported, which stays: looking through it takes a tenth of the start
    from atmo.cli.running import run

    run()


if __name__ == "__main__":
    main()
