"""What passes through this machine's open TCP connections at this moment, as the kernel counts it.

Toxiproxy counts the bytes of a connection only when it has ended; clusters keep theirs for hours. Linux tells of each
socket by netlink (sock_diag(7)), to anybody. Elsewhere: None.
"""

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_INET_DIAG_INFO = 2
_OPEN = 1 << 1 | 1 << 8
"""States ESTABLISHED and CLOSE_WAIT: those that this side has not closed."""
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_REQUEST = struct.Struct("=BBBBI48x")  # inet_diag_req_v2, any socket
_MESSAGE = struct.Struct("=BBBB2s2s16s16s32x")  # inet_diag_msg: …, ports, addresses, …
_ATTRIBUTE = struct.Struct("=HH")
_COUNTS = struct.Struct("=120xQQ")  # tcp_info: bytes_acked, bytes_received
_BUFFER = 1 << 16
_PATIENCE_S = 5.0


class _UnavailableError(Exception):
    """The kernel does not answer."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of an open connection."""

    local: tuple[str, int]
    remote: tuple[str, int]
    received: int
    """Bytes."""
    sent: int
    """Bytes that the other end's kernel has confirmed."""


def open_connections() -> list[Connection] | None:
    """List the ends on this machine of all TCP connections; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    try:
        return [found for family in (socket.AF_INET, socket.AF_INET6) for found in _dump(family)]
    except (OSError, _UnavailableError):
        return None


def _dump(family: int) -> Iterator[Connection]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INET_DIAG_INFO - 1), 0, _OPEN)
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_PATIENCE_S)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body)
        while True:
            for kind, message in _messages(kernel.recv(_BUFFER)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise _UnavailableError
                yield from _connection(family, message)


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    while len(answer) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(answer)
        yield kind, answer[_HEADER.size : length]
        answer = answer[(length + 3) & ~3 :]


def _connection(family: int, message: bytes) -> Iterator[Connection]:
    *_, local_port, remote_port, local, remote = _MESSAGE.unpack_from(message)
    attributes = message[_MESSAGE.size :]
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _INET_DIAG_INFO and length - _ATTRIBUTE.size >= _COUNTS.size:
            sent, received = _COUNTS.unpack_from(attributes, _ATTRIBUTE.size)
            ends = (_end(family, local, local_port), _end(family, remote, remote_port))
            yield Connection(*ends, received=received, sent=sent)
        attributes = attributes[max((length + 3) & ~3, _ATTRIBUTE.size) :]


def _end(family: int, address: bytes, port: bytes) -> tuple[str, int]:
    # Not socket.inet_ntop: importing pysyncobj puts a function for Windows in its place, which fails elsewhere.
    found = ipaddress.ip_address(address[:4] if family == socket.AF_INET else address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found), int.from_bytes(port, "big")
