"""`penstock dev` with the real server: up, status, down, up again with its data, reset."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.client.devcluster import DevCluster, remove
from penstock.client.ports import free_ports

Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Run]:
    env = {**os.environ, "PENSTOCK_HOME": str(tmp_path)}
    env.pop("PENSTOCK_BOOTSTRAP", None)

    def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-P", "-m", "penstock.client.cli", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, env=env, timeout=250, check=False)

    yield run
    remove(tmp_path / "dev")


def base_port() -> str:
    """A port with another free one behind it (one node takes two)."""
    return next(str(port) for port in free_ports(50) if _free(port + 1))


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_one_node_from_up_to_reset(penstock: Run, tmp_path: Path) -> None:
    up = penstock("dev", "up", "--nodes", "1", "--base-port", base_port(), "--format", "json")
    assert up.returncode == 0, up.stderr.decode()
    assert json.loads(up.stdout)["serving"]
    assert penstock("topic", "create", "orders").returncode == 0  # finds the running dev cluster by itself
    assert penstock("produce", "orders", stdin=b"kept\n").returncode == 0
    assert penstock("dev", "up").returncode == 0
    assert penstock("dev", "status").returncode == 0
    assert penstock("dev", "up", "--nodes", "3").returncode == 1

    assert penstock("dev", "down").returncode == 0
    status = penstock("dev", "status", "--format", "json")
    assert (status.returncode, json.loads(status.stdout)["nodes"][0]["state"]) == (10, "stopped")
    again = penstock("dev", "up")
    assert again.returncode == 0, again.stderr.decode()
    assert penstock("consume", "orders", "--from-beginning", "--exit-at-end").stdout == b"kept\n"

    assert penstock("dev", "reset").returncode == 2  # no terminal to ask on
    assert penstock("dev", "reset", "--yes").returncode == 0
    assert sorted(path.name for path in (tmp_path / "dev").iterdir()) == ["lock"]
    assert penstock("dev", "status").returncode == 1


def test_a_taken_port_is_told_and_another_base_port_helps(penstock: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = penstock("dev", "up", "--nodes", "1", "--base-port", str(port))
        assert up.returncode == 1
        assert f"port {port}".encode() in up.stderr
        assert b"--base-port" in up.stderr
        moved = penstock("dev", "up", "--base-port", base_port())
        assert moved.returncode == 0, moved.stderr.decode()


def test_a_half_started_cluster_is_told_with_the_log_and_stopped(penstock: Run, tmp_path: Path) -> None:
    assert penstock("dev", "up", "--nodes", "1", "--base-port", base_port()).returncode == 0
    assert penstock("dev", "down").returncode == 0
    cluster = DevCluster.find(tmp_path / "dev")
    assert cluster is not None
    for path in (cluster.node_dir(1) / "data" / "store").iterdir():
        path.unlink()
    up = penstock("dev", "up", "--format", "json")
    assert up.returncode == 1
    message = json.loads(up.stdout)["error"]["message"]
    assert message.startswith("node 1 ended while starting")
    assert "penstockd format" in message
    assert not cluster.is_running(1)
