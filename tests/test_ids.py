"""Peer ids and addresses read and print as libp2p and multiformats define them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmo.errors import UsageError
from atmo.ids import (
    Multiaddr,
    PeerId,
    base58_decode,
    base58_encode,
    format_peer,
    parse_multiaddr,
    parse_peer,
    short,
)

# The Ed25519 example of libp2p's peer-id specification, and the key inside it.
SPEC_ID = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
SPEC_KEY = bytes.fromhex("2ffa35a99d3a3cfbb17bb7c1dc5561b18a8dcca4df38dc613ea859c37eb1336b")


def test_a_key_is_written_in_libp2ps_form() -> None:
    assert format_peer(PeerId(SPEC_KEY)) == SPEC_ID
    assert parse_peer(SPEC_ID) == SPEC_KEY
    assert short(PeerId(SPEC_KEY)) == SPEC_ID[-8:]


@given(st.binary(min_size=32, max_size=32))
def test_every_key_survives_being_written_and_read(key: bytes) -> None:
    text = format_peer(PeerId(key))
    assert len(text) == 52
    assert parse_peer(text) == key


@given(st.binary(max_size=64))
def test_base58_keeps_leading_zeros(data: bytes) -> None:
    assert base58_decode(base58_encode(data)) == data


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("/ip4/192.168.1.4/tcp/4600", "192.168.1.4", 4600),
        ("/ip6/fe80::1/tcp/1", "fe80::1", 1),
        ("/dns/gpu-box.local/tcp/65535", "gpu-box.local", 65535),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, host: str, port: int) -> None:
    address = parse_multiaddr(text)
    assert (address.host, address.port, address.peer) == (host, port, None)
    assert str(address) == text
    named = Multiaddr(host, port, PeerId(SPEC_KEY))
    assert parse_multiaddr(str(named)) == named


def test_ipv6_is_bracketed_for_sockets() -> None:
    assert Multiaddr("::1", 4600).zmq == "tcp://[::1]:4600"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.168.1.4:4600",
        "/ip4/192.168.1.4/udp/4600",
        "/ip4/192.168.1.400/tcp/4600",
        "/ip4/::1/tcp/4600",
        "/ip4/1.2.3.4/tcp/0",
        "/ip4/1.2.3.4/tcp/70000",
        "/ip4/1.2.3.4/tcp/٤٦٠٠",
        "/dns/-bad-/tcp/1",
        "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "/ip4/1.2.3.4/tcp/1/p2p/0OIl",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_multiaddr(text)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
