"""The wire format is what the golden vectors say, for this codec and for the `msgpack` package alike."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from atmo.keys import verify
from atmo.mesh.codec import PROTOCOL_VERSION, decode, encode
from atmo.mesh.messages import AnyMessage, Rows
from atmo.mesh.rows import BODY_TYPES, ROW_DOMAIN, Kind, NodeInfo, SignedRow, peek, read
from tests.vectors import make

VECTORS = {vector["name"]: vector for vector in json.loads(make.FILE.read_text())}
MESSAGES = make.messages()


def test_every_message_and_every_kind_of_row_has_a_vector() -> None:
    assert {type(message) for message in MESSAGES.values()} == set(AnyMessage.__args__)
    assert {kind for kind, _, body in make.BODIES.values() if body is not None} == set(Kind)
    assert VECTORS.keys() == MESSAGES.keys() | make.BODIES.keys()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_bytes_of_its_vector(name: str) -> None:
    frame = bytes.fromhex(VECTORS[name]["hex"])

    assert encode(MESSAGES[name]) == frame
    assert decode(frame) == MESSAGES[name]


@pytest.mark.parametrize("name", make.BODIES)
def test_a_row_has_the_bytes_of_its_vector(name: str) -> None:
    written = make.row(name)

    assert written.signed.payload == bytes.fromhex(VECTORS[name]["hex"])
    assert read(written.signed, peek(written.signed)) == written


@pytest.mark.parametrize("name", VECTORS)
def test_a_second_implementation_reads_the_vector(name: str) -> None:
    data = bytes.fromhex(VECTORS[name]["hex"])
    if name in MESSAGES:
        assert data[0] == PROTOCOL_VERSION
        data = data[1:]

    assert msgpack.unpackb(data) == make.from_json(VECTORS[name]["says"])


@pytest.mark.parametrize("name", MESSAGES)
def test_a_second_implementation_writes_the_same_frame(name: str) -> None:
    says = make.from_json(VECTORS[name]["says"])

    assert bytes([PROTOCOL_VERSION]) + msgpack.packb(says) == bytes.fromhex(VECTORS[name]["hex"])


@pytest.mark.parametrize("name", make.BODIES)
def test_what_a_second_implementation_writes_is_read_as_the_same_row(name: str) -> None:
    """Not byte for byte: a map's header may be longer than it needs to be. What was signed is what is passed on."""
    payload = msgpack.packb(make.from_json(VECTORS[name]["says"]))
    signed = SignedRow(payload, bytes(64))

    assert read(signed, peek(signed))._replace(signed=make.row(name).signed) == make.row(name)


def test_rows_written_by_a_second_implementation_are_read() -> None:
    """As a node in another language would write them: plain lists and maps, packed and signed."""
    header = make.from_json(VECTORS["row capability"]["says"])
    payload = msgpack.packb(header)
    frame = bytes([1]) + msgpack.packb([1, [[payload, make.ORIGIN.sign(ROW_DOMAIN, payload)]]])

    message = decode(frame)

    assert isinstance(message, Rows)
    (signed,) = message.rows
    assert verify(make.ORIGIN.public, ROW_DOMAIN, signed.payload, signed.signature)
    assert read(signed, peek(signed)).body == make.BODIES["row capability"][2]


def test_a_field_too_many_or_too_few_is_refused() -> None:
    fields: list[Any] = make.from_json(VECTORS["grant"]["says"])
    for wrong in (fields[:-1], [*fields, 0]):
        with pytest.raises(Exception, match="A frame does not decode"):
            decode(bytes([1]) + msgpack.packb(wrong))


def test_vectors_are_not_written_anew_in_passing() -> None:
    """The file was made once; what the maker would write today must still be the same."""
    for name, message in MESSAGES.items():
        assert msgspec.msgpack.encode(message) == bytes.fromhex(VECTORS[name]["hex"])[1:]


DOCS = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("message", AnyMessage.__args__, ids=lambda message: message.__name__)
def test_the_documentation_names_every_field_in_its_order(message: type[msgspec.Struct]) -> None:
    tag = message.__struct_config__.tag
    (line,) = [line for line in DOCS.splitlines() if line.startswith(f"| {tag} | {message.__name__} |")]
    fields = line.split("|")[3]

    places = [re.search(rf"\b{name}\b", fields) for name in message.__struct_fields__]

    assert None not in places
    assert [place.start() for place in places if place] == sorted(place.start() for place in places if place)


def test_the_documentation_names_every_kind_of_row() -> None:
    for kind, body in BODY_TYPES.items():
        (line,) = [line for line in DOCS.splitlines() if line.startswith(f"| {int(kind)} {kind.name} |")]
        if issubclass(body, NodeInfo):
            assert all(name in line for name in body.__struct_fields__)
