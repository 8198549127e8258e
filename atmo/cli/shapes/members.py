"""Who belongs to a mesh, and how they come in."""

from __future__ import annotations

from atmo.cli.shapes.shape import Shape


class Made(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The new mesh's id."""

    mesh: str


class Invited(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """token: a password; warnings: what will keep the other machine from finding anybody."""

    token: str
    until_s: int
    uses: int
    warnings: list[str]


class Joined(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """addresses: whom the node will dial."""

    mesh: str
    addresses: list[str]


class Left(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """False where no other mesh had been joined."""

    left: bool


class Member(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """invite: the id of the invite it came by, empty if none."""

    id: str
    name: str
    invite: str
    until_s: int
    linked: bool
    revoked: bool


class Invite(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An invite that was made here."""

    id: str
    until_s: int
    uses: int
    used: int
    renewable: bool
    revoked: bool


class Members(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """owner: whether this user owns the mesh."""

    mesh: str
    owner: bool
    members: list[Member]
    invites: list[Invite]


class Revoked(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """kind: `member` or `invite`."""

    revoked: str
    kind: str
