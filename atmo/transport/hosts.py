"""Hosts: what is an address, and which one to tell peers."""

from __future__ import annotations

import ipaddress
import socket

WILDCARDS = ("", "*", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Is only this machine meant?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable_host(host: str) -> str:
    """What to tell peers when bound to `host`: itself, or for a wildcard this machine's address on its network.

    The address is that of the route to a documentation network (RFC 5737, RFC 3849); nothing is sent. Without a route
    it is the loopback address, under which peers on this machine at least can come.
    """
    if host not in WILDCARDS:
        return host
    family, target, loopback = (
        (socket.AF_INET6, "2001:db8::1", "::1") if host == "::" else (socket.AF_INET, "192.0.2.1", "127.0.0.1")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])
