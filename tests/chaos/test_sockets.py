"""What the kernel tells of open connections."""

import socket
from typing import Any

import pytest

from penstock.chaos.sockets import open_connections


def test_it_works_in_a_process_where_inet_ntop_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Importing pysyncobj, as nodes do, replaces it by a function that works on Windows only.
    def fail(*_: Any) -> str:
        raise TypeError("not on Windows")

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        if open_connections() is None:
            pytest.skip("this system does not tell of its connections")
        monkeypatch.setattr(socket, "inet_ntop", fail)
        ends = {(one.local, one.remote) for one in open_connections() or []}
        assert (client.getsockname(), server.getsockname()) in ends
