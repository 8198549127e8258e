"""Models on this machine by their content: `$ATMO_HOME/models/store`.

    <root>/        a whole model: manifest, model.json, `used`, and its files under files/, plain, as an engine maps
    them <root>.part/   one on its way: the same, a journal and a lock lock           held for an instant by whoever
    makes, finishes or removes a model

A model becomes whole by one rename, so it is there with every byte verified or not at all. Files are shared, not
copied, between models and with the files they were imported from, where the file system can (a reflink, or a hard
link). Whoever runs a model holds it (`hold`): then neither a person nor the garbage collection can remove it. Any
number of processes may use one store.
"""

from __future__ import annotations

import difflib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from atmo.errors import ModelDamaged, ModelInUse, ModelNotFound, StorageError, StorageFull, UsageError
from atmo.models import files
from atmo.models.collecting import Collected, collect
from atmo.models.files import Sync, disk, locked, sync_data, sync_folder
from atmo.models.hashing import hash_file
from atmo.models.importing import take_in
from atmo.models.manifest import Manifest
from atmo.models.partial import JOURNAL, Partial, done_bytes, read_journal
from atmo.models.reading import Head, OpenFile, no_head, print_of
from atmo.models.records import FILES, MANIFEST, USED, Record, StoredModel, read_manifest, read_record
from atmo.models.reuse import fill_from
from atmo.models.shape import whole_name

_PART = ".part"
_LOCK = "lock"
# A root in full, or enough of its beginning to be meant.
_ROOT_CHARS, _LEAST_PREFIX = 64, 6
MAX_NAME_CHARS = 200


class Store:
    """folder: made when the first model comes; quota_bytes: what it may take on the disk, 0 for no limit; sync: makes
    written bytes last; now: seconds since 1970."""

    def __init__(
        self, folder: Path, quota_bytes: int = 0, *, sync: Sync = sync_data, now: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.quota_bytes = quota_bytes
        self.sync = sync
        self._now = now
        self._manifests: dict[bytes, Manifest] = {}
        self._open: dict[Path, OpenFile] = {}
        self._guard = threading.Lock()

    # What is here

    def has(self, root: bytes) -> bool:
        return self._place(root).is_dir()

    def models(self, *, partial: bool = False) -> list[StoredModel]:
        """All whole models, by name; with `partial` those on their way instead. One that cannot be read is left out,
        and stands in `problems`."""
        return self._look(partial)[0]

    def problems(self) -> list[str]:
        """One line for each model that is here and cannot be used."""
        return self._look(False)[1] + self._look(True)[1]

    def get(self, root: bytes) -> StoredModel:
        """Raises ModelNotFound, ModelDamaged."""
        return self._model(root, self._place(root))

    def find(self, text: str) -> StoredModel:
        """By name, by root or its first six digits or more, or by where it came from. Raises ModelNotFound with what is
        near."""
        whole = self.models()
        for found in (
            [model for model in whole if model.name.lower() == text.lower()],
            [model for model in whole if len(text) >= _LEAST_PREFIX and model.root.hex().startswith(text.lower())],
            [model for model in whole if model.record.source == text],
        ):
            if len(found) == 1:
                return found[0]
        near = difflib.get_close_matches(text, [model.name for model in whole], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "See what there is: atmo models list"
        raise ModelNotFound(f"There is no model {text!r} in the store.", hint=hint)

    def manifest(self, root: bytes) -> Manifest:
        """Of a whole model. Raises ModelNotFound, ModelDamaged."""
        if not self.has(root):
            raise _gone(root)
        if root not in self._manifests:
            try:
                self._manifests[root] = read_manifest(self._place(root), root)
            except FileNotFoundError as error:
                raise _gone(root) from error
        return self._manifests[root]

    def read(self, root: bytes, number: int, head: Head = no_head) -> memoryview:
        """One chunk of a whole model behind its head, as it lies on the disk: not hashed again, but refused when its
        file was written to since. Raises ModelNotFound, ModelDamaged, StorageError, IndexError."""
        path, offset, length = self.manifest(root).chunk(number)
        place = self._place(root) / FILES / path
        with disk("read a model", place):
            file = self._open.get(place)
            if file is None or not file.unchanged:
                model = self.get(root)
                file = self._open[place] = OpenFile(place, model.record.prints.get(path))
                if not file.unchanged:
                    raise _changed(model.name, place)
            return file.read(offset, length, head)

    def close_unused(self) -> None:
        """Let go of files that nothing was read from since the last call: one that was removed keeps its place on the
        disk for as long as it is open."""
        for place, file in list(self._open.items()):
            if not file.lately:
                self._open.pop(place, None)
            file.lately = False

    # Bringing a model in

    def partial(self, manifest: Manifest, name: str = "", source: str = "", *, reuse: bool = True) -> Partial:
        """Begin or go on with a model, held by this process alone until it is finished or closed.

        reuse: first take what other models here have in common with it. Raises ModelInUse when another process is at
        it, StorageFull when the disk has no room for what is missing, StorageError when the model is here already.
        """
        folder = self._place(manifest.root, _PART)
        with self._locked():
            if self.has(manifest.root):
                raise StorageError(f"The model {manifest.root.hex()[:12]} is here already.")
            fresh = not (folder / MANIFEST).exists()
            with disk("keep a model", folder):
                folder.mkdir(exist_ok=True)
                lock = files.try_lock(folder / _LOCK)
            if lock is None:
                raise ModelInUse(
                    f"The model {manifest.root.hex()[:12]} is being fetched by another process.", hint="Wait for it."
                )
            try:
                if fresh:
                    self._begin(folder, manifest, name, source)
                made = Partial(folder, manifest, self.sync, lock, self._finish)
            except BaseException:
                os.close(lock)
                raise
        try:
            if fresh and reuse:
                fill_from(made, self)
            self.make_room(manifest.size - made.done_bytes)
        except BaseException:
            made.close()
            raise
        return made

    def import_(
        self,
        path: Path,
        name: str = "",
        *,
        source: str = "",
        copy: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> StoredModel:
        """Take a file or folder in: the parts of a split GGUF and an ONNX model's external data come along.

        Nothing is copied where the file system can share; copy: copy all the same. progress is told how many more bytes
        were read. Returns the model that is here already when it has the same bytes. Raises ModelNotFound,
        ModelInvalid, StorageError, UsageError when another model has the name.
        """
        return take_in(self, path, name, source=source, copy=copy, progress=progress)

    # Keeping and removing

    @contextmanager
    def hold(self, root: bytes) -> Iterator[StoredModel]:
        """Use a model: it counts as used now and cannot be removed meanwhile. Raises ModelNotFound."""
        model = self.get(root)
        used = self._place(root) / USED
        try:
            handle = files.try_lock(used, shared=True, wait=True)
            os.utime(used)
        except FileNotFoundError as error:
            raise _gone(root) from error
        try:
            yield model
        finally:
            with suppress(FileNotFoundError):
                os.utime(used)
            if handle is not None:
                os.close(handle)

    def mark(
        self,
        root: bytes,
        *,
        name: str | None = None,
        pinned: bool | None = None,
        shared: bool | None = None,
        only: dict[str, str] | None = None,
        source: str | None = None,
    ) -> StoredModel:
        """Change what is remembered of a model; None leaves it. Raises ModelNotFound, UsageError, StorageError."""
        changes = {"name": name, "pinned": pinned, "shared": shared, "only": only, "source": source}
        with self._locked():
            if name is not None:
                self.check_name(name, root)
            record = self.get(root).record
            given = {key: value for key, value in changes.items() if value is not None}
            with disk("write", self._place(root)):
                msgspec.structs.replace(record, **given).keep(self._place(root), self.sync)
        return self.get(root)

    def remove(self, root: bytes) -> None:
        """A whole model or one on its way. Raises ModelNotFound, ModelInUse, StorageError."""
        with self._locked():
            self._remove(root)

    def gc(self, quota_bytes: int = 0, *, dry: bool = False) -> Collected:
        """Remove what was not used for the longest time until the store fits (0: its own quota); see `collecting`."""
        return collect(self, quota_bytes or self.quota_bytes, self._now(), dry=dry)

    def check_unused(self, root: bytes) -> None:
        """Raises ModelInUse when a process holds the model or fetches it, ModelNotFound."""
        os.close(self._lock_for_removal(root)[1])

    def verify(self, root: bytes, progress: Callable[[int], None] | None = None) -> list[str]:
        """Read every byte again. The paths of files that are no longer what the root names, none if all is well."""
        manifest, model = self.manifest(root), self.get(root)
        bad, prints = [], {}
        for at, entry in enumerate(manifest.entries):
            place = model.folder / entry.path
            first, last = manifest.first_chunks[at : at + 2]
            try:
                found = hash_file(place, progress)
            except OSError:
                bad.append(entry.path)
                continue
            prints[entry.path] = (found.size, found.mtime_ns)
            if found.size != entry.size or found.hashes != manifest.hashes[first * 32 : last * 32]:
                bad.append(entry.path)
        if not bad and prints != model.record.prints:  # touched, and still right
            with self._locked(), disk("write", self._place(root)):
                msgspec.structs.replace(self.get(root).record, prints=prints).keep(self._place(root), self.sync)
        return bad

    def __repr__(self) -> str:
        return f"<Store {self.folder} {len(self.models())} models>"

    # Inside

    def _place(self, root: bytes, suffix: str = "") -> Path:
        return self.folder / (root.hex() + suffix)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Between threads and processes; for an instant only."""
        with self._guard, disk("use the store of models", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(self.folder / _LOCK):
                yield

    def _look(self, partial: bool) -> tuple[list[StoredModel], list[str]]:
        found, problems = [], []
        try:
            names = sorted(os.listdir(self.folder))
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        for name in names:
            root = _root(name.removesuffix(_PART))
            if root is None or name.endswith(_PART) != partial:
                continue
            try:
                found.append(self._model(root, self.folder / name))
            except ModelNotFound:
                continue  # it was removed, finished or is only just begun
            except (ModelDamaged, StorageError) as error:
                problems.append(str(error))
        return sorted(found, key=lambda model: (model.name, model.root)), problems

    def _model(self, root: bytes, folder: Path) -> StoredModel:
        try:
            record = read_record(folder)
            manifest = self._manifests.get(root) or read_manifest(folder, root)
            self._manifests[root] = manifest
            done = manifest.size
            if folder.suffix == _PART:
                there = read_journal(folder, manifest)
                done = done_bytes(manifest, [each for each in range(manifest.chunk_count) if each not in there])
            used_s = (folder / USED).stat().st_mtime
        except FileNotFoundError as error:
            raise _gone(root) from error
        except OSError as error:
            raise files.storage_error(error, "read a model", folder) from error
        return StoredModel(root, record, manifest.entries, manifest.size, done, folder / FILES, used_s)

    def _begin(self, folder: Path, manifest: Manifest, name: str, source: str) -> None:
        with disk("keep a model", folder):
            name = (name or whole_name(manifest.entries[0].path).lower()).replace("/", "-")[:MAX_NAME_CHARS]
            name = "".join(char for char in name if char.isprintable()) or manifest.root.hex()[:12]  # a stranger's word
            Record(name=name, source=source, added_s=self._now()).keep(folder, self.sync)
            (folder / USED).touch(mode=0o600)
            files.write_whole(folder / MANIFEST, manifest.encode(), self.sync)  # last: with it, the model is begun
            sync_folder(self.folder, self.sync)

    def make_room(self, needed: int) -> None:
        """See that so many bytes fit. Raises StorageFull when neither quota nor disk have room for them."""
        if self.quota_bytes and not collect(self, self.quota_bytes, self._now(), needed_bytes=needed).fits:
            raise StorageFull(
                f"The quota of {self.quota_bytes / 1e9:g} GB has no room for this model: {needed / 1e9:.2f} GB are "
                "missing, and what is left is pinned or in use.",
                hint="Raise quota_gb in [models], or remove something: atmo models rm.",
            )
        with disk("keep a model", self.folder):
            free = files.free_bytes(self.folder)
        if needed > free:
            raise StorageFull(
                f"The disk has no room for this model: {needed / 1e9:.2f} GB are missing, and {free / 1e9:.2f} GB are "
                f"free at {self.folder}.",
                hint="Free some space: atmo models gc, atmo models rm.",
            )

    def check_name(self, name: str, root: bytes) -> None:
        """Raises UsageError when the model cannot be called so."""
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or "/" in name:
            raise UsageError(f"{name!r} is not a name for a model.", hint="Use letters, digits, dots and hyphens.")
        if any(model.name.lower() == name.lower() and model.root != root for model in self.models()):
            raise UsageError(f"Another model is called {name!r}.", hint="Choose a name: --name, or remove the other.")

    def _finish(self, partial: Partial) -> None:
        folder, root = partial.folder, partial.manifest.root
        with self._locked():
            record = read_record(folder)
            taken = {model.name.lower() for model in self.models()}
            name = record.name if record.name.lower() not in taken else f"{record.name}-{root.hex()[:8]}"
            prints = {entry.path: print_of((folder / FILES / entry.path).stat()) for entry in partial.manifest.entries}
            msgspec.structs.replace(record, name=name, prints=prints, added_s=self._now()).keep(folder, self.sync)
            for place, _, _ in os.walk(folder / FILES):
                sync_folder(Path(place), self.sync)
            os.utime(folder / USED)
            folder.rename(self._place(root))
            sync_folder(self.folder, self.sync)
            for spare in (JOURNAL, _LOCK):
                with suppress(FileNotFoundError):
                    (self._place(root) / spare).unlink()

    def _remove(self, root: bytes) -> None:
        folder, handle = self._lock_for_removal(root)
        try:
            doomed = folder.with_name(f".{folder.name}.{os.getpid()}")
            with disk("remove a model", folder):
                folder.rename(doomed)  # gone at once, though a crash may leave its bytes for the next collection
                shutil.rmtree(doomed)
        finally:
            os.close(handle)
        self._manifests.pop(root, None)
        for place in [place for place in self._open if place.is_relative_to(self._place(root))]:
            self._open.pop(place, None)

    def _lock_for_removal(self, root: bytes) -> tuple[Path, int]:
        """The model's folder and a lock that nobody else has."""
        for folder, name in ((self._place(root), USED), (self._place(root, _PART), _LOCK)):
            if folder.is_dir():
                with disk("remove a model", folder):
                    handle = files.try_lock(folder / name)
                if handle is None:
                    raise ModelInUse(
                        f"The model {root.hex()[:12]} is in use by another process.", hint="Stop what uses it first."
                    )
                return folder, handle
        raise _gone(root)


def _root(name: str) -> bytes | None:
    if len(name) != _ROOT_CHARS:
        return None
    try:
        return bytes.fromhex(name)
    except ValueError:
        return None


def _gone(root: bytes) -> ModelNotFound:
    return ModelNotFound(
        f"There is no model {root.hex()[:12]} in the store.", hint="See what there is: atmo models list"
    )


def _changed(name: str, place: Path) -> ModelDamaged:
    return ModelDamaged(
        f"{place} was changed since {name} came.", hint=f"See what is left of it: atmo models verify {name}"
    )
