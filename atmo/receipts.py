"""Receipts: what a node states, under its key, of a request whose data had to stay where it was.

A receipt is a file: `{"statement": TEXT, "signature": HEX}`. The statement is JSON; what is signed are its bytes as
they stand in the file (UTF-8), behind the domain name and a zero byte, so nothing has to be written in one certain way
to be verified. It names its signer, a peer id, which is the public key, and carries the certificate by which the root
of the mesh, whose id is a public key as well, made the signer a member: whoever knows a mesh's id needs nothing else.
It never holds the prompt or the answer.

A receipt proves that the holder of that key said so, not that it was so: a node that lies signs lies.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atmo.errors import AtmoError, RemoteProtocolError, UsageError
from atmo.ids import MeshId, format_peer, parse_peer
from atmo.keys import CLOCK_TOLERANCE_S, Certificate, Identity, check_certificate, verify

DOMAIN = b"atmo/receipt/2"
VERSION = 2
MAX_RECEIPT_BYTES = 1 << 20
FOLDER = "receipts"
# What a statement must say to be one.
_FIELDS = (
    "id", "signer", "mesh", "certificate", "asked_at_s", "done_at_s", "rule", "model", "answered_by",
    "request_bytes_out",
)  # fmt: skip

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """statement: as signed; says: the same, read."""

    statement: str
    signature: bytes
    says: Json

    @property
    def id(self) -> str:
        return str(self.says["id"])

    @property
    def genuine(self) -> bool:
        """Was it signed by whom it names, as it stands here?"""
        return verify(parse_peer(self.says["signer"]), DOMAIN, self.statement.encode(), self.signature)


def sign(identity: Identity, mesh: MeshId, certificate: Certificate, says: Json) -> Receipt:
    """A receipt of this node: version, signer, mesh and certificate are filled in."""
    said = {
        **says,
        "version": VERSION,
        "signer": format_peer(identity.public),
        "mesh": format_peer(mesh),
        "certificate": base64.b64encode(msgspec.msgpack.encode(certificate)).decode(),
    }
    statement = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Receipt(statement, identity.sign(DOMAIN, statement.encode()), said)


def keep(receipt: Receipt, folder: Path) -> Path:
    """Write it down as a whole or not at all. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{receipt.id}.json"
    fresh = file.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        json.dump({"statement": receipt.statement, "signature": receipt.signature.hex()}, handle, indent=2)
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(file)
    return file


def read(file: Path) -> Receipt:
    """Raises UsageError for what is not a receipt; whether it is genuine is another question."""
    try:
        if file.stat().st_size > MAX_RECEIPT_BYTES:
            raise _not_one(file, "it is too large")
        outer = json.loads(file.read_bytes())
        statement, signature = outer["statement"], bytes.fromhex(outer["signature"])
        says = json.loads(statement)
        if isinstance(says, dict) and says.get("version") != VERSION:
            told = str(says.get("version"))[:20]
            raise _not_one(file, f"its version is {told}, and this program reads {VERSION}")
        if not isinstance(says, dict) or any(name not in says for name in _FIELDS):
            raise _not_one(file, "fields are missing")
        parse_peer(says["signer"])
    except OSError as error:
        raise UsageError(
            f"The receipt {file} cannot be read: {error.strerror}.", hint="See: atmo receipt list"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _not_one(file, f"{type(error).__name__}") from error
    except AtmoError as error:
        if isinstance(error, UsageError):
            raise
        raise _not_one(file, error.message) from error
    return Receipt(statement, signature, says)


def problems(receipt: Receipt, signer: str = "", mesh: str = "") -> list[str]:
    """What is wrong with it, nothing if all is well. signer: the peer id that must have signed it; mesh: the id of the
    mesh whose member that must be.

    Besides the signature and the certificate: who answered, and whoever was sent any of the request, must be inside the
    rule that it names.
    """
    found = [] if receipt.genuine else ["the signature is not that of its signer over these words"]
    says = receipt.says
    if signer and says["signer"] != signer:
        found.append(f"it was signed by {says['signer']}")
    if mesh and says["mesh"] != mesh:
        found.append(f"it is of another mesh, {says['mesh']}")
    if not found:
        found += _membership(says)
    if not found and not _inside(says):
        found.append("by its own words the data left the boundary")
    return found


def _membership(says: Json) -> list[str]:
    """Did the root of the mesh that it names make its signer a member, for the time of which it speaks?"""
    try:
        sealed = base64.b64decode(says["certificate"], validate=True)
        standing = check_certificate(msgspec.msgpack.decode(sealed, type=Certificate), MeshId(parse_peer(says["mesh"])))
        done_s = float(says["done_at_s"])
    except RemoteProtocolError as error:
        return [f"its signer is not shown to be a member of the mesh: {error.message}"]
    except (UsageError, ValueError, TypeError, msgspec.DecodeError) as error:
        return [f"its certificate or the name of its mesh cannot be read: {type(error).__name__}"]
    if standing.peer != parse_peer(says["signer"]):
        return ["its certificate is that of another node"]
    if not standing.not_before_s - CLOCK_TOLERANCE_S <= done_s <= standing.not_after_s:
        return [
            f"it speaks of {_day(done_s)}, and its signer was a member from {_day(standing.not_before_s)} to "
            f"{_day(standing.not_after_s)}"
        ]
    return []


def _day(at_s: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(at_s))
    except (OverflowError, ValueError, OSError):
        return "no day at all"


def _inside(says: Json) -> bool:
    try:
        rule, server = says["rule"], says["answered_by"]
        others = [server, *says["request_bytes_out"]]
        if rule["local_only"]:
            return all(other["peer"] == says["signer"] for other in others)
        homes = rule["data_residency"]
        return not homes or all(other["labels"].get("residency") in homes for other in others)
    except (KeyError, TypeError, AttributeError):
        return False


def kept(home: Path) -> Iterator[Path]:
    """All receipts of this user's nodes, the newest first."""
    files = (home / "nodes").glob(f"*/{FOLDER}/*.json")
    return iter(sorted(files, key=lambda file: -file.stat().st_mtime))


def find(text: str, home: Path) -> Path:
    """By path, by id or by its beginning. Raises UsageError."""
    if Path(text).is_file():
        return Path(text)
    found = [file for file in kept(home) if text and file.stem.startswith(text)]
    if len(found) != 1:
        what = "Several receipts begin" if found else "There is no receipt that begins"
        raise UsageError(f"{what} with {text[:64]!r}.", hint="See: atmo receipt list")
    return found[0]


def _not_one(file: Path, why: str) -> UsageError:
    return UsageError(f"{file} is not a receipt: {why}.", hint="See: atmo receipt list")
