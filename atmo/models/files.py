"""What the store asks of a file system: whole files or none, nothing lost when the power goes, bytes that are not
copied where that can be had. A refusal of the disk becomes one of the project's errors here."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from atmo.errors import StorageError, StorageFull

# Makes what was written to a handle last through a power failure. Handed in, so that a failing disk can be tested.
Sync: TypeAlias = Callable[[int], None]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FICLONE = 0x40049409  # linux/fs.h: share all blocks of another file, copied when one of them is changed


def sync_data(handle: int) -> None:
    """fdatasync where there is one; on macOS, F_FULLFSYNC, without which a disk may keep it in its own memory."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(handle)


@contextmanager
def disk(doing: str, path: Path) -> Iterator[None]:
    """Turns an OSError into StorageFull or StorageError. doing: such as "write the model"."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, path) from error


def storage_error(error: OSError, doing: str, path: Path) -> StorageError:
    if error.errno in _FULL:
        limit = "The disk is full" if error.errno == errno.ENOSPC else "A limit of this user's files is reached"
        return StorageFull(
            f"{limit}: cannot {doing} at {path}.",
            hint="Free some space (atmo models gc, atmo models rm), then run the same again: what is there is kept.",
        )
    return StorageError(
        f"Cannot {doing} at {path}: {error.strerror or error}.", hint="Check the disk and its permissions."
    )


def sync_folder(folder: Path, sync: Sync) -> None:
    """Make names that were made, moved or removed in a folder last."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes, sync: Sync) -> None:
    """A file is there with all of its bytes, or as it was before, whatever happens meanwhile. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent, sync)


def write_at(handle: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(handle, view[done:], offset + done)


def share_blocks(source: Path, target: Path) -> str:
    """Make `target`, which does not exist, the same file without copying a byte. Returns how: `reflink`, `hard link` or
    "" where neither can be had (another file system). Raises OSError for what copying could not do either."""
    if _clone(source, target):
        return "reflink"
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
            return ""
        raise
    return "hard link"


def _clone(source: Path, target: Path) -> bool:
    with open(source, "rb") as reader:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(writer, _FICLONE, reader.fileno())
        except OSError:
            os.unlink(target)
            return False
        finally:
            os.close(writer)
    return True


def free_bytes(folder: Path) -> int:
    """What the file system of a folder still takes."""
    return shutil.disk_usage(folder).free


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock between processes on a file; the kernel lets go of it when the process ends, however it ends. Without
    `wait` it yields False at once when another has it."""
    handle = try_lock(path, shared=shared, wait=wait)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def try_lock(path: Path, *, shared: bool = False, wait: bool = False) -> int | None:
    """A handle that holds the lock until it is closed; None when another has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
