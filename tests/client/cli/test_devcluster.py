"""The cluster runner: starting, finding, stopping processes, and never touching one that is not its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.client.devcluster import DevCluster, DevClusterError, NodeState
from penstock.client.devplan import ClusterPlan, NodePlan, make_plan, node_config
from penstock.client.ports import free_ports, port_in_use
from penstock.client.processes import DetachedProcess
from penstock.node import config as node_configuration

PROGRAM = (sys.executable, str(Path(__file__).parent / "fake_penstockd.py"))
Make = Callable[[int], DevCluster]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[DevCluster] = []

    def one(nodes: int) -> DevCluster:
        made.append(DevCluster.create(tmp_path, make_plan(free_ports(2 * nodes)), PROGRAM))
        return made[-1]

    yield one
    for cluster in made:
        cluster.stop(timeout_s=0.1)


def test_start_serves_and_another_program_finds_and_stops_it(make: Make, tmp_path: Path) -> None:
    cluster = make(3)
    assert cluster.start() == [1, 2, 3]
    cluster.wait_serving()
    assert cluster.start() == []
    found = DevCluster.find(tmp_path)
    assert found is not None
    assert found.bootstrap == ",".join(node.client for node in cluster.plan.nodes)
    assert [found.state(node_id) for node_id in found.node_ids] == [NodeState.SERVING] * 3
    assert found.stop(timeout_s=60.0) == []
    assert [cluster.state(node_id) for node_id in cluster.node_ids] == [NodeState.STOPPED] * 3


def test_data_and_format_mark_outlive_a_restart_and_go_with_delete(make: Make, tmp_path: Path) -> None:
    cluster = make(1)
    cluster.start()
    cluster.kill(1)
    (cluster.node_dir(1) / "data" / "kept").touch()
    assert cluster.start() == [1]  # the fake refuses to format a second time
    assert (cluster.node_dir(1) / "data" / "kept").exists()
    (tmp_path / "not ours").touch()
    cluster.delete()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not ours"]
    assert not cluster.is_running(1)


def test_a_voter_with_a_new_disk_joins_and_never_founds_the_cluster_again(make: Make) -> None:
    cluster = make(3)
    cluster.start()
    cluster.wait_serving()
    founding = cluster.data_dir(2) / "founding"
    assert founding.read_text() == "--new-cluster"
    (cluster.data_dir(2) / "damaged").touch()
    cluster.replace_disk(2)
    assert founding.read_text() == "--join"
    assert not (cluster.data_dir(2) / "damaged").exists()
    assert not cluster.is_running(2)
    assert cluster.start() == [2]
    (cluster.node_dir(2) / "formatted").unlink()  # a format that was cut off
    cluster.kill(2)
    assert cluster.start() == [2]
    assert founding.read_text() == "--join"


def test_a_cut_off_format_is_done_again(make: Make) -> None:
    cluster = make(1)
    (cluster.node_dir(1) / "data").mkdir(parents=True)
    assert cluster.start() == [1]


def test_a_node_that_ends_while_starting_is_told_with_its_log(make: Make) -> None:
    cluster = make(3)
    cluster.node_dir(2).mkdir()
    (cluster.node_dir(2) / "broken").touch()
    cluster.start()
    with pytest.raises(DevClusterError, match=r"(?s)node 2 ended while starting.*the disk is on fire"):
        cluster.wait_serving()


def test_the_log_that_is_told_is_that_of_the_last_start(make: Make) -> None:
    cluster = make(1)
    cluster.node_dir(1).mkdir()
    cluster.log_path(1).write_text("long ago\n")
    (cluster.node_dir(1) / "broken").touch()
    cluster.start()
    with pytest.raises(DevClusterError, match="on fire") as caught:
        cluster.wait_serving()
    assert "long ago" not in str(caught.value)
    assert cluster.log_path(1).read_text().startswith("long ago\n")


def test_a_node_that_never_serves_is_told(make: Make) -> None:
    cluster = make(1)
    cluster.node_dir(1).mkdir()
    (cluster.node_dir(1) / "mute").touch()
    cluster.start()
    with pytest.raises(DevClusterError, match="node 1 does not serve after 1 s"):
        cluster.wait_serving(timeout_s=1.0)
    assert cluster.state(1) is NodeState.STARTING


def test_a_node_that_ignores_sigterm_is_killed(make: Make) -> None:
    cluster = make(1)
    cluster.node_dir(1).mkdir()
    (cluster.node_dir(1) / "stubborn").touch()
    cluster.start()
    cluster.wait_serving()
    assert cluster.stop(timeout_s=0.3) == [1]
    assert not cluster.is_running(1)


def test_a_taken_port_is_told_before_anything_starts(make: Make) -> None:
    cluster = make(2)
    port = cluster.plan.nodes[1].peer_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert port_in_use(port)
        with pytest.raises(DevClusterError, match=f"port {port}, wanted by node 2, is in use"):
            cluster.start()
    assert not cluster.is_running(1)


def test_a_reused_pid_is_never_signalled(make: Make) -> None:
    cluster = make(1)
    cluster.node_dir(1).mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        DetachedProcess(stranger.pid, "started at another time").save(cluster.node_dir(1) / "process.json")
        assert not cluster.is_running(1)
        cluster.stop()
        cluster.kill(1)
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_a_process_that_ended_is_gone_though_nobody_waited_for_it(tmp_path: Path) -> None:
    process = DetachedProcess.spawn([sys.executable, "-c", "pass"], tmp_path / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.client.processes._children", {})  # as another program sees it: a zombie
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not process.is_alive()
        assert not process.send(signal.SIGTERM)
    process.is_alive()  # reaps


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="threads are seen by /proc alone")
def test_a_zombie_whose_threads_still_run_is_not_gone(tmp_path: Path) -> None:
    code = (
        "import ctypes, threading as t; t.Thread(target=t.Event().wait).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    process = DetachedProcess.spawn([sys.executable, "-c", code], tmp_path / "log")
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert process.is_alive()
    assert process.is_alive()
    process.send(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive()


def test_two_programs_at_once_are_kept_apart(make: Make, tmp_path: Path) -> None:
    cluster, other = make(1), DevCluster.find(tmp_path)
    assert other is not None
    with cluster.locked(), pytest.raises(DevClusterError, match="another"), other.locked():
        pass


def test_an_unreadable_plan_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(DevClusterError, match="reset"):
        DevCluster.find(tmp_path)


@pytest.mark.parametrize(("nodes", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (7, 5)])
def test_voters_are_an_odd_number(nodes: int, voters: int) -> None:
    assert len(make_plan(list(range(2 * nodes))).voters) == voters


def test_the_configuration_file_is_what_penstockd_reads(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\ ü'
    odd.mkdir()
    node = NodePlan(
        2,
        9094,
        9095,
        rack="east",
        peer_override={1: "127.0.0.1:7001"},
        client_advertise="127.0.0.1:7002",
        data_dir="/elsewhere",
        wrapper=("env", "A=b c"),
    )
    plan = ClusterPlan("c", (NodePlan(1, 9092, 9093), node, NodePlan(3, 9096, 9097)), limits={"store_bytes": 5})
    assert ClusterPlan.from_json(plan.to_json()) == plan
    (odd / "node.toml").write_text(node_config(plan, node, odd / "data"))
    config = node_configuration.load(odd / "node.toml")
    assert (config.node_id, config.rack, config.data_dir) == (2, "east", odd / "data")
    assert {key: str(at) for key, at in config.voters.items()} == {
        1: "127.0.0.1:9093",
        2: "127.0.0.1:9095",
        3: "127.0.0.1:9097",
    }
    assert str(config.peer_override[1]) == "127.0.0.1:7001"
    assert (str(config.client_advertise), str(config.client_listen)) == ("127.0.0.1:7002", "127.0.0.1:9094")
    assert config.limits.store_bytes == 5
    assert plan.on_ports_from(20_000).nodes[2].peer == "127.0.0.1:20005"


def test_data_may_be_elsewhere_and_the_server_run_by_another_program(make: Make, tmp_path: Path) -> None:
    cluster = make(1)
    (node,) = cluster.plan.nodes
    elsewhere = tmp_path / "disk" / "data"
    elsewhere.parent.mkdir()
    wrapper = ("env", f"MARK={elsewhere}")
    cluster.save_plan(replace(cluster.plan, nodes=(replace(node, data_dir=str(elsewhere), wrapper=wrapper),)))
    cluster.start()
    cluster.wait_serving()
    process = cluster.process(1)
    assert process is not None
    assert f"MARK={elsewhere}".encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    assert elsewhere.is_dir()
    assert not (cluster.node_dir(1) / "data").exists()
