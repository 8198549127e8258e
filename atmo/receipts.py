"""Receipts: what a node states, under its key, of a request whose data had to stay where it was.

A receipt is a file: `{"statement": TEXT, "signature": HEX}`. The statement is JSON; what is signed are its bytes as
they stand in the file (UTF-8), behind the domain name and a zero byte, so nothing has to be written in one certain way
to be verified. It names its signer, a peer id, which is the public key. It never holds the prompt or the answer.

A receipt proves that the holder of that key said so, not that it was so: a node that lies signs lies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmo.errors import AtmoError, UsageError
from atmo.ids import format_peer, parse_peer
from atmo.keys import Identity, verify

DOMAIN = b"atmo/receipt/1"
MAX_RECEIPT_BYTES = 1 << 20
FOLDER = "receipts"
# What a statement must say to be one.
_FIELDS = ("id", "signer", "mesh", "asked_at_s", "done_at_s", "rule", "model", "answered_by", "request_bytes_out")

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


def sign(identity: Identity, says: Json) -> Receipt:
    """A receipt of this node: the signer is filled in."""
    said = {**says, "signer": format_peer(identity.public)}
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


def problems(receipt: Receipt, signer: str = "") -> list[str]:
    """What is wrong with it, nothing if all is well. signer: the peer id that must have signed it.

    Besides the signature: who answered, and whoever was sent any of the request, must be inside the rule that it names.
    """
    found = [] if receipt.genuine else ["the signature is not that of its signer over these words"]
    says = receipt.says
    if signer and says["signer"] != signer:
        found.append(f"it was signed by {says['signer']}")
    if not found and not _inside(says):
        found.append("by its own words the data left the boundary")
    return found


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
