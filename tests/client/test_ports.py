"""Ports that are found free: by one program at a time, and not twice."""

import socket
import subprocess
import sys

import pytest

from penstock.client import ports


def test_ports_differ_and_nobody_listens_on_them() -> None:
    found = [*ports.free_ports(50), *ports.free_ports(50)]
    assert len(set(found)) == 100
    assert not any(ports.port_in_use(port) for port in found)


@pytest.mark.skipif(sys.platform != "linux", reason="reservations need Linux's abstract socket names")
def test_a_port_that_another_program_plans_to_use_is_not_given_out() -> None:
    (port,) = ports.free_ports(1)
    code = f"from penstock.client import ports; print(ports._reserve({port}), ports.port_in_use({port}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "False"]


def test_it_is_free_again_when_that_program_has_ended() -> None:
    code = "from penstock.client import ports; print(ports.free_ports(1)[0])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ports._reserve(int(told))


def test_reservations_are_bounded() -> None:
    for _ in range(3):
        ports.free_ports(100)
    assert len(ports._reserved) == ports._MOST_RESERVED


def test_a_port_in_use_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert ports.port_in_use(server.getsockname()[1])
