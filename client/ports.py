"""TCP ports on loopback: whether one is taken, and finding some that are not."""

import secrets
import socket
from typing import TypeAlias

Port: TypeAlias = int

_FIRST, _LAST = 20_000, 32_000
"""Below the range that Linux takes for outgoing connections, so that none of those can take a port found free."""
_ATTEMPTS = 1_000


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
    """Find `count` different ports that nobody listens on. Raises OSError where there are not enough."""
    found: set[Port] = set()
    for _ in range(_ATTEMPTS):
        if len(found) == count:
            return sorted(found)
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if not port_in_use(port):
            found.add(port)
    raise OSError(f"no {count} free ports were found between {_FIRST} and {_LAST}")
