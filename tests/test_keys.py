"""Credentials prove who belongs to a mesh, and only that."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from atmo.errors import ConfigError, RemoteProtocolError
from atmo.ids import MeshId
from atmo.keys import (
    _SMALL_ORDER,
    CLOCK_TOLERANCE_S,
    YEAR_S,
    Credential,
    CurveKeys,
    Identity,
    Sealed,
    check_credential,
    issue_credential,
    load_or_create_secret,
    verify,
)

NOW_S = 1_780_000_000.0
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def root() -> Identity:
    return Identity.generate()


@pytest.fixture
def member() -> Identity:
    return Identity.generate()


def test_a_credential_names_mesh_peer_and_curve_key(root: Identity, member: Identity) -> None:
    curve = CurveKeys.generate()
    passport = check_credential(issue_credential(root, member, curve, wall_s=NOW_S), MeshId(root.public), NOW_S)
    assert (bytes(passport.mesh), passport.peer, passport.curve) == (root.public, member.public, curve.public)
    assert passport.not_after_s == int(NOW_S) + YEAR_S


def test_another_mesh_is_told_apart(root: Identity, member: Identity) -> None:
    credential = issue_credential(root, member, CurveKeys.generate(), wall_s=NOW_S)
    with pytest.raises(RemoteProtocolError, match="another mesh"):
        check_credential(credential, MeshId(Identity.generate().public), NOW_S)


def test_nobody_signs_for_the_root(root: Identity, member: Identity) -> None:
    """A thief who names the right mesh but signs with another key."""
    thief = Identity.generate()
    honest = issue_credential(root, member, CurveKeys.generate(), wall_s=NOW_S)
    payload = honest.membership.payload
    forged = Credential(Sealed(payload, thief.sign(b"atmo/membership/1", payload)), honest.binding)
    with pytest.raises(RemoteProtocolError, match="not signed by this mesh"):
        check_credential(forged, MeshId(root.public), NOW_S)


def test_a_stolen_membership_does_not_carry_the_thiefs_curve_key(root: Identity, member: Identity) -> None:
    thief = Identity.generate()
    stolen = issue_credential(root, member, CurveKeys.generate(), wall_s=NOW_S).membership
    own = issue_credential(root, thief, CurveKeys.generate(), wall_s=NOW_S).binding
    with pytest.raises(RemoteProtocolError, match="different peers"):
        check_credential(Credential(stolen, own), MeshId(root.public), NOW_S)
    resigned = Sealed(own.payload.replace(thief.public, member.public), own.signature)
    with pytest.raises(RemoteProtocolError, match="did not sign its curve key"):
        check_credential(Credential(stolen, resigned), MeshId(root.public), NOW_S)


@pytest.mark.parametrize(("later_s", "says"), [(YEAR_S + 1, "has expired"), (-CLOCK_TOLERANCE_S - 1, "not valid yet")])
def test_dates_count(root: Identity, member: Identity, later_s: float, says: str) -> None:
    credential = issue_credential(root, member, CurveKeys.generate(), wall_s=NOW_S)
    with pytest.raises(RemoteProtocolError, match=says):
        check_credential(credential, MeshId(root.public), NOW_S + later_s)


def test_garbage_in_a_credential_is_an_error_of_the_peer(root: Identity, member: Identity) -> None:
    good = issue_credential(root, member, CurveKeys.generate(), wall_s=NOW_S)
    for garbage in (b"", b"\xc1", os.urandom(40), msgspec.msgpack.encode([1, 2, 3]), good.membership.payload + b"\0"):
        with pytest.raises(RemoteProtocolError):
            check_credential(
                Credential(Sealed(garbage, good.membership.signature), good.binding), MeshId(root.public), NOW_S
            )


def test_a_signature_fits_one_domain_one_payload_one_key(member: Identity) -> None:
    signature = member.sign(b"a", b"payload")
    assert verify(member.public, b"a", b"payload", signature)
    assert not verify(member.public, b"b", b"payload", signature)
    assert not verify(member.public, b"a", b"Payload", signature)
    assert not verify(Identity.generate().public, b"a", b"payload", signature)
    assert not verify(member.public, b"a", b"payload", signature[:63])


def test_a_signature_cannot_be_bent_into_a_second_one(member: Identity) -> None:
    """Malleability: S + group order satisfies the equation, and must be refused (RFC 8032, 5.1.7)."""
    signature = member.sign(b"a", b"payload")
    bent = signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    assert not verify(member.public, b"a", b"payload", bent)


def test_small_order_keys_verify_nothing() -> None:
    for key in _SMALL_ORDER:
        for signature in (key + bytes(32), bytes([1]) + bytes(63), bytes(64)):
            assert not verify(key, b"a", b"payload", signature)


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "root.key"
    secret = load_or_create_secret(file)
    assert load_or_create_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_secret_that_others_can_read_or_that_is_damaged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "root.key"
    load_or_create_secret(file)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_secret(file)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        load_or_create_secret(file)


def test_no_representation_shows_a_secret(member: Identity) -> None:
    curve = CurveKeys.generate()
    assert member.secret.hex() not in repr(member)
    assert curve.secret.hex() not in repr(curve)
