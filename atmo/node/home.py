"""What a node keeps on disk: keys, generation, lock. All of it in `$ATMO_HOME/nodes/<name>`, readable by the user
alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atmo.clock import Clock
from atmo.config import Config
from atmo.errors import ConfigError
from atmo.ids import MeshId, PeerId
from atmo.keys import Credential, CurveKeys, Identity, load_or_create_secret
from atmo.node.membership import MeshHome, open_mesh

# A curve key that is older is replaced at the next start. A guess: a stolen one is of no use for longer, and a node
# that is started every day does not bother its peers with a new key each time.
CURVE_LIFE_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Home:
    """An opened and locked home. Close it to let another process have the node's name."""

    folder: Path
    identity: Identity
    curve: CurveKeys
    mesh_home: MeshHome
    credential: Credential
    generation: int
    lock: int

    @property
    def mesh(self) -> MeshId:
        return self.mesh_home.mesh

    def close(self) -> None:
        os.close(self.lock)


def open_home(config: Config, clock: Clock) -> Home:
    """Make or load everything the node needs to be itself. Raises ConfigError.

    The mesh's root key is the user's own: every node of this user on this machine finds it in the same place, which is
    why they need no invitation.
    """
    folder = config.node_home
    with _usable(config):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _lock(folder, config.node.name)
    try:
        with _usable(config):
            mesh_home = open_mesh(config)
            identity = Identity(load_or_create_secret(folder / "identity.key"))
            curve = _curve_keys(folder / "curve.key", clock.wall())
            generation = _next_generation(folder / "generation", clock.wall())
            credential = mesh_home.credential(folder, identity, curve, clock.wall(), generation)
    except ConfigError:
        os.close(lock)
        raise
    return Home(folder, identity, curve, mesh_home, credential, generation, lock)


def rotate(config: Config, wall_s: float) -> tuple[PeerId, PeerId, bool]:
    """Give a node that does not run new keys: its old peer id, its new one, and whether the old one was revoked, which
    only the owner of the mesh can do. Raises ConfigError.

    A crash in between leaves a node with a new identity whose other files are made anew at its next start.
    """
    folder = config.node_home
    if not (folder / "identity.key").exists():
        raise ConfigError(f"There is no node named {config.node.name!r} here.", hint="See: ls $ATMO_HOME/nodes")
    with _usable(config):
        lock = _lock(folder, config.node.name)
    try:
        with _usable(config):
            old = Identity(load_or_create_secret(folder / "identity.key")).public
            mesh_home = open_mesh(config)
            if mesh_home.root is not None:
                mesh_home.revoke(old, wall_s)
            for file in [folder / "identity.key", folder / "curve.key", *folder.glob("certificate-*")]:
                file.unlink(missing_ok=True)
            new = Identity(load_or_create_secret(folder / "identity.key")).public
    finally:
        os.close(lock)
    return old, new, mesh_home.root is not None


@contextmanager
def _usable(config: Config) -> Iterator[None]:
    """What the disk refuses, as a ConfigError."""
    try:
        yield
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise ConfigError(
            f"The home folder {config.home} cannot be used: {exc.strerror}{where}.",
            hint="Set ATMO_HOME or --home to a folder that you may write to.",
        ) from exc


def _curve_keys(file: Path, wall_s: float) -> CurveKeys:
    """Those of the last start, or new ones where they have been in use for long."""
    if file.exists() and wall_s - file.stat().st_mtime > CURVE_LIFE_S:
        file.unlink()
    return CurveKeys.from_secret(load_or_create_secret(file))


def remember_generation(folder: Path, generation: int) -> None:
    """Store the generation so that a crash at any moment leaves the old or the new one."""
    file = folder / "generation"
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(str(generation))
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(file)


def _lock(folder: Path, name: str) -> int:
    """Hold the node's name as long as this process lives, however it ends."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise ConfigError(
            f"A node named {name!r} runs already (process {holder or 'unknown'}).",
            hint="Give this one another name with --name, or stop the other: atmo node stop.",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _next_generation(file: Path, wall_s: float) -> int:
    """Beyond the last one, and beyond all former ones even if that was lost, as long as the clock is right."""
    try:
        last = int(file.read_text())
    except FileNotFoundError:
        last = 0
    except ValueError:
        raise ConfigError(
            f"The file {file} is damaged.", hint="Delete it: the node then finds its generation anew."
        ) from None
    generation = max(last + 1, int(wall_s))
    remember_generation(file.parent, generation)
    return generation
