"""TCP ports on loopback: whether one is taken, and finding some that are not."""

import os
import secrets
import socket
import sys
from typing import TypeAlias

Port: TypeAlias = int

_FIRST, _LAST = 20_000, 32_000
"""Below the range that Linux takes for outgoing connections, so that none of those can take a port found free."""
_ATTEMPTS = 1_000
_MOST_RESERVED = 200
_reserved: dict[Port, int] = {}
"""Descriptors of bound sockets, the oldest first; held, as many as that, as long as this program runs."""


def port_in_use(port: Port) -> bool:
    """Say whether someone listens on the port. (gRPC itself would not notice: it shares ports.)"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_ports(count: int) -> list[Port]:
    """Find `count` different ports that nobody listens on. Raises OSError where there are not enough.

    No other program that asks here is given them as long as this one runs (or finds _MOST_RESERVED more): a port that
    is only planned looks free.
    """
    found: set[Port] = set()
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            return sorted(found)
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if not port_in_use(port) and _reserve(port):
            found.add(port)
    raise OSError(f"no {count} free ports were found between {_FIRST} and {_LAST}")


def _reserve(port: Port) -> bool:
    """Take the name that stands for a port; False where another program has, or where this one was given it before.

    A socket of Linux's abstract names: they leave no file, and are gone with their program. Elsewhere nobody is asked.
    """
    if port in _reserved:
        return False
    mark = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            mark.bind(f"\0penstock-port-{port}")
        except OSError:
            mark.close()
            return False
    _reserved[port] = mark.detach()
    if len(_reserved) > _MOST_RESERVED:
        os.close(_reserved.pop(next(iter(_reserved))))
    return True
