"""What a receipt proves to somebody who has nothing but the mesh's id, and what it does not let pass."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atmo import receipts
from atmo.errors import UsageError
from atmo.ids import MeshId, PeerId, format_peer, parse_peer
from atmo.keys import Certificate, Identity, issue_membership
from atmo.receipts import problems, read
from tests.cli.inside import inside
from tests.vectors import make

STRANGER = Identity(bytes(range(128, 160)))
MESH = format_peer(make.MESH)


def signed_by(whose: Identity, mesh: MeshId, certificate: Certificate, **changes: Any) -> receipts.Receipt:
    return receipts.sign(whose, mesh, certificate, {**make.receipt().says, **changes})


def test_a_second_implementation_checks_the_whole_chain() -> None:
    """By docs/privacy.md alone: four signatures, from the mesh's id down to the words."""
    kept = json.loads(make.RECEIPT.read_text())
    words = kept["statement"].encode()
    says = json.loads(words)
    membership, invite = msgpack.unpackb(base64.b64decode(says["certificate"]))

    def genuine(key: bytes, domain: bytes, payload: bytes, signature: bytes) -> None:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, domain + b"\0" + payload)

    root = parse_peer(says["mesh"])
    genuine(root, b"atmo/invite/1", *invite)
    mesh, invited, *_ = msgpack.unpackb(invite[0])
    genuine(invited, b"atmo/membership/1", *membership)
    _, member, _, begins_s, ends_s, by = msgpack.unpackb(membership[0])
    genuine(member, b"atmo/receipt/2", words, bytes.fromhex(kept["signature"]))
    assert (mesh, by, member) == (root, invited, parse_peer(says["signer"]))
    assert begins_s <= says["done_at_s"] <= ends_s


def test_a_receipt_has_the_bytes_of_its_vector_and_verifies() -> None:
    kept = read(make.RECEIPT)
    assert kept == make.receipt()
    assert problems(kept) == []
    assert problems(kept, kept.says["signer"], MESH) == []


def test_another_mesh_another_signer_and_other_words_are_refused() -> None:
    kept = make.receipt()
    other = format_peer(STRANGER.public)
    assert problems(kept, mesh=other) == [f"it is of another mesh, {MESH}"]
    assert problems(kept, signer=other) == [f"it was signed by {kept.says['signer']}"]
    (changed,) = problems(receipts.Receipt(kept.statement.replace("ward", "bath"), kept.signature, kept.says))
    assert "signature" in changed


@pytest.mark.parametrize(
    ("receipt", "why"),
    [
        (signed_by(STRANGER, make.MESH, Certificate(make.MEMBERSHIP)), "certificate is that of another node"),
        (
            signed_by(
                STRANGER, make.MESH, Certificate(issue_membership(STRANGER, STRANGER.public, wall_s=1.75e9, serial=1))
            ),
            "belongs to another mesh",
        ),
        (signed_by(make.ORIGIN, make.MESH, Certificate(make.GUEST)), "not signed by this mesh"),
        (
            signed_by(make.ORIGIN, MeshId(STRANGER.public), Certificate(make.MEMBERSHIP)),
            "belongs to another mesh",
        ),
        (make.receipt(done_at_s=1.7e9), "speaks of 2023-11-14, and its signer was a member from 2025-06-15"),
        (make.receipt(done_at_s="soon"), "cannot be read"),
        (
            make.receipt(request_bytes_out=[{"peer": format_peer(PeerId(STRANGER.public)), "labels": {}, "bytes": 9}]),
            "left the boundary",
        ),
    ],
)
def test_who_is_no_member_proves_nothing(receipt: receipts.Receipt, why: str) -> None:
    (problem,) = problems(receipt)
    assert why in problem


def test_receipts_of_other_versions_and_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    kept = make.receipt()
    file = receipts.keep(kept, tmp_path)
    assert read(file) == kept
    old: Any = {**kept.says, "version": 1}
    for says, why in ((old, "its version is 1"), ({"version": 2}, "fields are missing"), ([], "is not a receipt")):
        file.write_text(json.dumps({"statement": json.dumps(says), "signature": "00"}))
        with pytest.raises(UsageError, match=why) as caught:
            read(file)
        assert "\n" not in str(caught.value)
    assert msgspec.json.decode(make.RECEIPT.read_bytes())["signature"] == kept.signature.hex()


def test_a_person_is_told_which_mesh_it_is_and_whether_it_is_the_one_meant(environ: dict[str, str]) -> None:
    verify = ("receipt", "verify", str(make.RECEIPT))
    told = inside(*verify)
    assert (told.code, f"Signed by ward, member of mesh {MESH}" in told.out) == (0, True)
    assert "Is it the one you mean?" in told.out
    assert "Is it the one you mean?" not in inside(*verify, "--mesh", MESH).out
    foreign = inside(*verify, "--mesh", format_peer(STRANGER.public))
    assert (foreign.code, f"it is of another mesh, {MESH}" in foreign.err) == (2, True)
    assert "is not a peer id" in inside(*verify, "--mesh", "mine").err
