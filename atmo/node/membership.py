"""Which mesh this user's nodes belong to: the user's own, or one that a token opened.

`$ATMO_HOME/mesh/root.key` is the user's own mesh, made when it is first needed. `atmo mesh join` puts `joined` beside
it, which holds the token's contents, and from then on the nodes of this home are guests of that mesh; `leave` removes
it. A token in the configuration does the same where nobody types commands. A guest's membership is made once, when the
node first starts after the join, and kept with the node's keys; a new one takes its place when the owner renews it, or
when the user joins again with another token.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from atmo.config import Config
from atmo.errors import AtmoError, ConfigError
from atmo.ids import MeshId, Multiaddr, PeerId, short
from atmo.invitation import MAX_ADDRESSES, Token, read_token
from atmo.keys import (
    Certificate,
    Credential,
    CurveKeys,
    Identity,
    Sealed,
    bind_curve,
    issue_invite,
    issue_membership,
    issue_revocation,
    load_or_create_secret,
    read_membership,
)
from atmo.trust import Guests

REVOKED = "revoked"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MeshHome:
    """root: the mesh's secret, where this user owns it; token: what let this user in, where not."""

    mesh: MeshId
    folder: Path
    root: Identity | None
    token: Token | None

    @property
    def seeds(self) -> list[Multiaddr]:
        return self.token.seeds if self.token is not None else []

    def credential(
        self, node_folder: Path, member: Identity, curve: CurveKeys, wall_s: float, serial: int
    ) -> Credential:
        """Renewed at each start in one's own mesh; kept as it was made in somebody else's. Raises ConfigError."""
        if self.root is not None:
            membership = issue_membership(self.root, member.public, wall_s=wall_s, serial=serial)
            return bind_curve(membership, member, curve, serial=serial)
        certificate = self._kept(node_folder, member.public, wall_s)
        if certificate is None:
            certificate = self._join(member, wall_s, serial)
            self.keep(node_folder, certificate)
        return bind_curve(certificate.membership, member, curve, serial=serial, invite=certificate.invite)

    def kept(self, node_folder: Path) -> Certificate | None:
        """What made a node of this home a member of somebody else's mesh. None if it has not joined yet."""
        file = self._certificate_file(node_folder)
        return _read(file, Certificate) if file.exists() else None

    def keep(self, node_folder: Path, certificate: Certificate) -> None:
        _write(self._certificate_file(node_folder), certificate)

    def _certificate_file(self, node_folder: Path) -> Path:
        return node_folder / f"certificate-{short(self.mesh)}"

    def _kept(self, node_folder: Path, peer: PeerId, wall_s: float) -> Certificate | None:
        """The same, if it is worth keeping: made for this very node, and either by the token that was used last or not
        to be replaced any more."""
        assert self.token is not None
        kept, terms = self.kept(node_folder), self.token.terms
        if kept is None:
            return None
        membership = read_membership(kept.membership)
        if membership.peer != peer:
            return None
        current = membership.invite == terms.key and wall_s <= membership.not_after_s
        return kept if current or wall_s > terms.not_after_s else None

    def _join(self, member: Identity, wall_s: float, serial: int) -> Certificate:
        assert self.token is not None
        if wall_s > self.token.terms.not_after_s:
            raise ConfigError("The invite to this mesh has expired.", hint="Ask for a new one: atmo mesh join TOKEN")
        invite = self.token.invite
        return Certificate(
            issue_membership(self.token.key, member.public, wall_s=wall_s, serial=serial, invite=invite), invite
        )

    def revoked(self) -> list[Sealed]:
        """What the root took back, as far as was heard here."""
        file = self.folder / REVOKED
        return _read(file, list[Sealed]) if file.exists() else []

    def invites(self) -> list[Sealed]:
        """The invites that were made here."""
        file = self.folder / "invites"
        return _read(file, list[Sealed]) if file.exists() else []

    def invite(
        self, addresses: list[str], wall_s: float, valid_s: int, uses: int, lifetime_s: int, *, renewable: bool = True
    ) -> Token:
        """Make a token. Raises ConfigError where this user does not own the mesh."""
        if self.root is None:
            raise ConfigError("Only the owner of a mesh can invite to it.", hint="Ask whoever invited you.")
        key = Identity.generate()
        sealed = issue_invite(
            self.root, key, wall_s=wall_s, valid_s=valid_s, uses=uses, lifetime_s=lifetime_s, renewable=renewable
        )
        _write(self.folder / "invites", [*self.invites(), sealed])
        return Token(self.mesh, sealed, key.secret, tuple(addresses[:MAX_ADDRESSES]))

    def remember_revoked(self, statements: tuple[Sealed, ...]) -> None:
        """Add to what is known: several nodes of this home hear of it, each at its own time."""
        known = self.revoked()
        _write(self.folder / REVOKED, [*known, *(statement for statement in statements if statement not in known)])

    def revoke(self, key: bytes, wall_s: float) -> None:
        """The owner takes a member back while no node runs; the next one to start tells the others."""
        assert self.root is not None
        self.remember_revoked((issue_revocation(self.root, key, wall_s),))

    def guests(self) -> Guests:
        """Who was met by which invite, so that a restart does not make an invite good for more."""
        file = self.folder / "guests"
        known = _read(file, dict[bytes, list[bytes]]) if file.exists() else {}
        return {invite: frozenset(PeerId(peer) for peer in peers) for invite, peers in known.items()}

    def remember_guests(self, guests: Guests) -> None:
        """The same merging. The last writer of two at once wins; what it did not know is counted when met again."""
        known = self.guests()
        merged = {key: sorted(guests.get(key, frozenset()) | known.get(key, frozenset())) for key in {*guests, *known}}
        _write(self.folder / "guests", merged)


def open_mesh(config: Config) -> MeshHome:
    """The mesh of this home. Joins that of the configuration's token, or else makes the user's own root key if there is
    none and nothing was joined. Raises ConfigError or UsageError."""
    _follow(config)
    joined = config.root_key.parent / "joined"
    if joined.exists():
        token = _read(joined, Token)
        mesh = MeshId(token.mesh)
        return MeshHome(mesh, _folder(config, mesh), None, token)
    root = Identity(load_or_create_secret(config.root_key))
    mesh = MeshId(root.public)
    return MeshHome(mesh, _folder(config, mesh), root, None)


def join(config: Config, text: str, wall_s: float) -> Token:
    """Make this home a guest of the token's mesh, from the next start on. Raises UsageError or ConfigError."""
    _refuse_if_configured(config)
    token = read_token(text)
    if wall_s > token.terms.not_after_s:
        raise ConfigError("This token has expired.", hint="Ask for a new one: atmo mesh invite")
    if _owns(config, token):
        raise ConfigError("This token is for your own mesh.", hint="Use it on another machine.")
    _become_guest(config, token)
    return token


def _follow(config: Config) -> None:
    """Belong to the mesh of the configured token. One that has expired is no mistake: the node may have used it long
    ago."""
    text = _configured_token(config)
    if not text:
        return
    token = read_token(text)
    joined = config.root_key.parent / "joined"
    if not _owns(config, token) and not (joined.exists() and _read(joined, Token) == token):
        _become_guest(config, token)


def _configured_token(config: Config) -> str:
    """Empty if there is none. Raises ConfigError for a file that cannot be read or is empty."""
    if not config.mesh.token_file:
        return config.mesh.token.strip()
    file = Path(config.mesh.token_file).expanduser()
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ConfigError(
            f"The mesh token cannot be read from {file}: {why}.", hint="See token_file in [mesh]."
        ) from exc
    if not text:
        raise ConfigError(f"The file {file} holds no mesh token.", hint="Put one in: atmo mesh invite > FILE")
    return text


def _refuse_if_configured(config: Config) -> None:
    """What a command changed would be undone by the next start."""
    if config.mesh.token or config.mesh.token_file:
        raise ConfigError(
            "The configuration says which mesh this node belongs to.",
            hint="Change it there: ATMO_MESH_TOKEN, ATMO_MESH_TOKEN_FILE, or [mesh] in config.toml.",
        )


def _owns(config: Config, token: Token) -> bool:
    own = config.root_key
    return own.exists() and Identity(load_or_create_secret(own)).public == token.mesh


def _become_guest(config: Config, token: Token) -> None:
    folder = config.root_key.parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / "joined", token)


def leave(config: Config) -> bool:
    """Go back to the user's own mesh. False if no other was joined. Raises ConfigError."""
    _refuse_if_configured(config)
    joined = config.root_key.parent / "joined"
    if not joined.exists():
        return False
    joined.unlink()
    return True


def create(config: Config) -> MeshId:
    """A new mesh of the user's own; the old root key is kept beside it. Raises ConfigError while another is joined."""
    if (config.root_key.parent / "joined").exists():
        raise ConfigError("You are a guest of another mesh.", hint="Leave it first: atmo mesh leave")
    if config.root_key.exists():
        old = Identity(load_or_create_secret(config.root_key))
        config.root_key.rename(config.root_key.with_name(f"root-{short(old.public)}.key"))
    return MeshId(Identity(load_or_create_secret(config.root_key)).public)


def _folder(config: Config, mesh: MeshId) -> Path:
    folder = config.root_key.parent / short(mesh)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _write(file: Path, value: object) -> None:
    """So that a crash at any moment leaves the old or the new content; mode 600."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(msgspec.msgpack.encode(value))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(file)


def _read(file: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, AtmoError) as exc:
        raise ConfigError(
            f"The file {file} is damaged.", hint="Restore it, or join again: atmo mesh join TOKEN"
        ) from exc
