"""TCP ports on loopback: whether one is taken, and finding some that are not."""

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import IO, TypeAlias

Port: TypeAlias = int

_FIRST, _LAST = 20_000, 32_000
"""Below the range that Linux takes for outgoing connections, so that none of those can take a port found free."""
_ATTEMPTS = 1_000
_MOST_RESERVED = 200
_reserved: dict[Port, IO[bytes]] = {}
"""Locked files, the oldest first. As long as this program runs it holds so many of them: each is an open file."""


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
    """Lock the file that stands for a port; False where another program has, or where this one was given it before."""
    if port in _reserved:
        return False
    folder = Path(tempfile.gettempdir()) / f"penstock-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = (folder / str(port)).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _reserved[port] = file
    if len(_reserved) > _MOST_RESERVED:
        _reserved.pop(next(iter(_reserved))).close()
    return True
