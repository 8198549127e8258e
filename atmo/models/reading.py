"""Chunks as they leave: files that stay open between two chunks, and a chunk read to where it is sent from.

A chunk costs one `fstat` and one `preadv`. It is read behind what stands before it in its frame, so that putting the
frame together copies nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Head: TypeAlias = Callable[[int], bytes]
"""What stands before a chunk of so many bytes."""
Print: TypeAlias = tuple[int, int]
"""Of a file: its size, and when it was written to last."""


def no_head(length: int) -> bytes:
    return b""


class OpenFile:
    """Closed when nobody holds it any more, so that no thread reads from a handle that means another file by now.

    verified: the file's print when its bytes were known to be right.
    """

    __slots__ = ("_handle", "lately", "verified")

    def __init__(self, place: Path, verified: Print | None) -> None:
        """Raises OSError."""
        self._handle = -1
        self._handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        self.verified = verified
        self.lately = True  # it was read from since somebody last looked

    @property
    def unchanged(self) -> bool:
        """Nobody wrote to it since. Raises OSError."""
        return print_of(os.fstat(self._handle)) == self.verified

    def read(self, offset: int, length: int, head: Head) -> memoryview:
        """Raises OSError."""
        self.lately = True
        return read_behind(head(length), self._handle, offset, length)

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)


def print_of(found: os.stat_result) -> Print:
    return found.st_size, found.st_mtime_ns


def read_behind(head: bytes, handle: int, offset: int, length: int) -> memoryview:
    """`head`, then so many bytes of the file. Raises OSError when the file ends early."""
    import numpy as np  # late: `atmo models` reads no chunk, and would wait a tenth of a second for it

    frame = np.empty(len(head) + length, dtype=np.uint8).data  # not filled with zeros first
    frame[: len(head)] = head
    done = len(head)
    while done < len(frame):
        got = os.preadv(handle, [frame[done:]], offset + done - len(head))
        if not got:
            raise OSError(errno.ESTALE, "it became shorter while it was read")
        done += got
    return frame
