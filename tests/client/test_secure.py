"""Behind HTTPS: a node whose certificate is trusted is talked to, another one is not told a word."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from atmo import Client, SyncClient
from atmo.errors import NodeNotRunning

REPLY = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"served": []}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "desk")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "desk.pem"
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return file


@pytest.fixture
def heard(certificate: Path) -> Iterator[dict[str, Any]]:
    """A server of one reply: its URL, and what it was told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listening = socket.create_server(("127.0.0.1", 0))
    told: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with plain:
                try:
                    with context.wrap_socket(plain, server_side=True) as wire:
                        told.append(wire.recv(65536))
                        wire.sendall(REPLY)
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield {"url": f"https://127.0.0.1:{listening.getsockname()[1]}", "told": told}
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10.0)


def test_a_certificate_that_is_trusted_opens_the_door(heard: dict[str, Any], certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    assert SyncClient(url=heard["url"], key="sk-1", trust=trust).models().served == []
    assert asyncio.run(Client(url=heard["url"], key="sk-1", trust=trust).models()).served == []
    assert all(b"Authorization: Bearer sk-1" in request for request in heard["told"])
    assert len(heard["told"]) == 2


def test_one_that_is_not_hears_no_key(heard: dict[str, Any]) -> None:
    with pytest.raises(NodeNotRunning, match="certificate"):
        SyncClient(url=heard["url"], key="sk-1").models()
    with pytest.raises(NodeNotRunning, match="certificate"):
        asyncio.run(Client(url=heard["url"], key="sk-1").models())
    assert heard["told"] == []
