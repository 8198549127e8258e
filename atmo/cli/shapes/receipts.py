"""Receipts of private requests."""

from __future__ import annotations

from typing import Any

from atmo.cli.shapes.shape import Shape


class Receipt(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node stated of a request whose data had to stay; docs/privacy.md says what each part means. version: of
    the statement; signer: whose signature it is; certificate: what makes it a member of the mesh."""

    version: int
    id: str
    mesh: str
    certificate: str
    node: dict[str, Any]
    asked_at_s: float
    done_at_s: float
    rule: dict[str, Any]
    model: dict[str, Any]
    answered_by: dict[str, Any]
    request_bytes_out: list[dict[str, Any]]
    transfer: dict[str, Any] | None
    decision: list[str]
    signer: str


class KeptReceipt(Receipt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """genuine: it was signed by whom it names, as it stands in the file."""

    file: str
    genuine: bool


class Receipts(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Those of this home."""

    receipts: list[KeptReceipt]


class CheckedReceipt(KeptReceipt, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """genuine: nothing is wrong with it; problems: what is, and the exit code is 1; own_mesh: it is of the mesh of this
    home; revoked_at_s: when that mesh took its signer back, as far as is known here."""

    problems: list[str]
    own_mesh: bool
    revoked_at_s: int | None
