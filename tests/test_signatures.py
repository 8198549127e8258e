"""Signatures that look right and are not, in the manner of Project Wycheproof's test vectors for Ed25519.

Invariant: a signature verifies for exactly the key, domain and payload it was made for, in exactly one encoding.
"""

from __future__ import annotations

import hashlib

import pytest

from atmo.keys import Identity, verify
from atmo.mesh.rows import ROW_DOMAIN

FIELD = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, section 5.1
SEED = bytes(range(32))
SIGNER = Identity(SEED)
PAYLOAD = b"a row"
SIGNATURE = SIGNER.sign(ROW_DOMAIN, PAYLOAD)
R, S = SIGNATURE[:32], int.from_bytes(SIGNATURE[32:], "little")


def genuine(signature: bytes, public: bytes = SIGNER.public) -> bool:
    return verify(public, ROW_DOMAIN, PAYLOAD, signature)


def encoded(number: int) -> bytes:
    return number.to_bytes(32, "little")


def secret_scalar() -> int:
    """The signer's scalar (RFC 8032, section 5.1.5)."""
    half = bytearray(hashlib.sha512(SEED).digest()[:32])
    half[0] &= 0xF8
    half[31] = half[31] & 0x7F | 0x40
    return int.from_bytes(half, "little")


def signed_with_nonce_zero(r: bytes) -> bytes:
    """What the signer itself makes with the nonce 0, whose point R is the neutral element, however `r` encodes it."""
    challenge = hashlib.sha512(r + SIGNER.public + ROW_DOMAIN + b"\0" + PAYLOAD).digest()
    return r + encoded(int.from_bytes(challenge, "little") * secret_scalar() % GROUP_ORDER)


FORGERIES = {
    "empty": b"",
    "half": SIGNATURE[:32],
    "one byte short": SIGNATURE[:-1],
    "one byte long": SIGNATURE + b"\0",
    "all zero": bytes(64),
    "S is zero": R + bytes(32),
    "S is the group's order": R + encoded(GROUP_ORDER),
    "R and S exchanged": SIGNATURE[32:] + R,
    "S big-endian": R + SIGNATURE[:31:-1],
    "R negated": R[:31] + bytes([R[31] ^ 0x80]) + SIGNATURE[32:],
    "S negated": R + encoded(GROUP_ORDER - S),
    "R not reduced": encoded(FIELD) + SIGNATURE[32:],
    "R beyond the field": b"\xff" * 32 + SIGNATURE[32:],
    "R not on the curve": encoded(2) + SIGNATURE[32:],
    "of another payload": SIGNER.sign(ROW_DOMAIN, PAYLOAD + b"\0"),
    "of another domain": SIGNER.sign(b"atmo/row/2", PAYLOAD),
    "of no domain": SIGNER.sign(b"", PAYLOAD),
    "of another key": Identity(bytes(32)).sign(ROW_DOMAIN, PAYLOAD),
    "neutral R in its second encoding": signed_with_nonce_zero(encoded(FIELD + 1)),
    "neutral R with the sign of minus zero": signed_with_nonce_zero(encoded(1 + (1 << 255))),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_does_not_verify(what: str) -> None:
    assert not genuine(FORGERIES[what])


@pytest.mark.parametrize("times", range(1, 16))
def test_a_signature_cannot_be_bent_by_multiples_of_the_group_s_order(times: int) -> None:
    bent = S + times * GROUP_ORDER
    assert bent < 1 << 256
    assert not genuine(R + encoded(bent))


def test_no_bit_of_a_signature_is_free() -> None:
    for bit in range(512):
        changed = bytearray(SIGNATURE)
        changed[bit // 8] ^= 1 << bit % 8
        assert not genuine(bytes(changed)), bit


def test_no_bit_of_a_key_is_free() -> None:
    for bit in range(256):
        changed = bytearray(SIGNER.public)
        changed[bit // 8] ^= 1 << bit % 8
        assert not genuine(SIGNATURE, bytes(changed)), bit


def test_no_signature_verifies_under_a_key_of_small_order_in_any_encoding() -> None:
    """y of the eight points (neutral; order 2; order 4; order 8, twice), with either sign, reduced and not."""
    eighth = 2707385501144840649318225287225658788936804267575313519463743609750303402022
    d = -121665 * pow(121666, -1, FIELD)
    x_squared = (eighth**2 - 1) * pow(d * eighth**2 + 1, -1, FIELD)
    assert (eighth**2 + x_squared) % FIELD == 0  # twice that point has y = 0, which is of order 4
    for y in (0, 1, FIELD - 1, eighth, FIELD - eighth):
        for number in (y, y + FIELD):
            for sign in (0, 1 << 255):
                if number < 1 << 255:
                    key = encoded(number | sign)
                    for signature in (encoded(1) + bytes(32), key + bytes(32), bytes(64), SIGNATURE):
                        assert not genuine(signature, key), key.hex()


def test_the_genuine_one_verifies_and_so_does_a_second_one_of_the_signer_s_own() -> None:
    """Or all of the above would prove nothing. The owner of a key may sign twice: rows count by payload alone."""
    assert genuine(SIGNATURE)
    assert genuine(signed_with_nonce_zero(encoded(1)))
