"""penstockd from the outside: each way in which it cannot start gives a clear message and an exit code."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.client.devplan import ClusterPlan, make_plan, node_config
from penstock.client.ports import free_ports


def penstockd(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "penstock.node.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


class Node:
    """A node's files, and what starting it says."""

    def __init__(self, path: Path) -> None:
        self.plan: ClusterPlan = make_plan(free_ports(2))
        self.data = path / "data"
        self.config = path / "node.toml"
        self.config.write_text(node_config(self.plan, self.plan.nodes[0], self.data))

    def format(self, *how: str, node_id: int = 1, cluster_id: str = "c") -> subprocess.CompletedProcess[str]:
        identity = ("--node-id", str(node_id), "--cluster-id", cluster_id)
        return penstockd("format", "--data-dir", str(self.data), *identity, *how)

    def refusal(self, code: int = 1) -> str:
        """Start it, which must fail with this exit code; what it said."""
        done = penstockd("start", "--config", str(self.config))
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_an_unformatted_directory_never_starts(node: Node) -> None:
    assert "penstockd format" in node.refusal()


def test_format_wants_to_know_how(node: Node) -> None:
    assert node.format().returncode == 2
    assert node.format("--join", "--new-cluster").returncode == 2
    assert not node.data.exists()


def test_format_never_overwrites(node: Node) -> None:
    assert node.format("--new-cluster").returncode == 0
    again = node.format("--new-cluster")
    assert again.returncode == 1
    assert "formatted already" in again.stderr


def test_another_nodes_directory_never_starts(node: Node) -> None:
    node.format("--new-cluster", node_id=7)
    assert "belongs to node 7, not 1" in node.refusal()


def test_directories_of_two_clusters_never_start(node: Node, tmp_path: Path) -> None:
    node.format("--new-cluster")
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other")
    other.format("--new-cluster", cluster_id="d")
    (node.data / "raft").rename(tmp_path / "aside")
    (other.data / "raft").rename(node.data / "raft")
    assert "'d'" in node.refusal()


def test_a_malformed_configuration_is_a_usage_error(node: Node) -> None:
    node.config.write_text("node_id = ]")
    assert "is not valid TOML" in node.refusal(code=2)


def test_a_port_in_use_is_named(node: Node) -> None:
    node.format("--new-cluster")
    with socket.create_server(("127.0.0.1", node.plan.nodes[0].client_port)):
        text = node.refusal()
    assert f"cannot listen on 127.0.0.1:{node.plan.nodes[0].client_port} (listen.client)" in text


def test_a_second_process_on_the_same_directory_is_refused(node: Node) -> None:
    node.format("--new-cluster")
    command = [sys.executable, "-P", "-m", "penstock.node.main", "start", "--config", str(node.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        try:
            assert first.stderr is not None
            while "serving, node_epoch" not in (line := first.stderr.readline()):
                assert line, "the first process ended"
            assert "in use by another process" in node.refusal()
        finally:
            first.terminate()
            first.communicate(timeout=200)
    assert first.returncode == 0
