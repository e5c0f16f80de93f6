"""Observers note what each node shows itself, and clients reach nodes the way their host is told to."""

from collections import defaultdict
from pathlib import Path

from penstock.chaos.history import Recorder, entries
from penstock.chaos.workload import Access, Workload, WorkloadOptions
from penstock.chaos.workload.observers import Observer, content_hash
from penstock.chaos.workload.process import Common
from penstock.client import Admin
from penstock.client.devcluster import DevCluster
from penstock.client.ports import free_ports
from penstock.v1 import cluster_service_pb2 as pb
from tests.chaos.workload.running import check_rules, nodes_of, until
from tests.chaos.workload.test_workload import LIVELY


def test_the_hash_is_of_what_is_replicated() -> None:
    one = pb.ClusterMetadata(cluster_id="c", metadata_version=5, controller=1)
    one.brokers.add(node_id=1, host="a")
    other = pb.ClusterMetadata()
    other.CopyFrom(one)
    other.controller, other.metadata_version = 2, 6
    assert content_hash(one) == content_hash(other)
    other.brokers[0].fenced = True
    assert content_hash(one) != content_hash(other)
    assert one.controller == 1  # it is left as it was


def test_the_same_is_not_noted_twice(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        observer = Observer(Common(recorder, WorkloadOptions(), 1), 4, "127.0.0.1:1")
        for controller in (1, 1, 2, 2):
            observer._note(0.0, pb.ClusterMetadata(metadata_version=5, controller=controller))
        observer._note(0.0, pb.ClusterMetadata(metadata_version=6))
    views = [(entry["node"], entry["version"], entry["controller"]) for entry in entries(path)]
    assert views == [(4, 5, 1), (4, 5, 2), (4, 6, None)]


async def test_every_node_shows_each_version_alike(cluster: DevCluster, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        workload = Workload(recorder, {"c1": Access(cluster.bootstrap)}, WorkloadOptions().only(), 1, nodes_of(cluster))
        workload.start()
        async with Admin(cluster.bootstrap) as admin:
            created = [await admin.create_topic(f"seen-{number}", 2, 3) for number in range(3)]
        await until(lambda: _shown(recorder, path) == {1, 2, 3}, workload)
        await workload.stop(10)
    hashes = defaultdict(set)
    seen: dict[int, list[object]] = defaultdict(list)
    for entry in entries(path):
        assert (entry["f"], entry["process"]) == ("view", f"observer/node{entry['node']}.0")
        hashes[entry["version"]].add(entry["hash"])
        seen[entry["node"]].append((entry["version"], entry["hash"], entry["controller"]))
        last = entry
    assert all(len(found) == 1 for found in hashes.values())
    for views in seen.values():
        assert len(views) == len(set(views))  # only what has changed
    rows = {(row[0], row[2]): row for row in last["partitions"]}
    for topic in created:
        for index in (0, 1):
            name, topic_id, _, leader, epoch, _, isr, _, replicas = rows[topic.name, index]
            assert (name, topic_id) == (topic.name, topic.topic_id.hex())
            assert leader in isr
            assert epoch >= 0
            assert sorted(replicas) == [1, 2, 3]


def _shown(recorder: Recorder, path: Path) -> set[int]:
    """Nodes that show the last topic."""
    recorder.flush()
    views = [entry for entry in entries(path) if entry["f"] == "view"]
    return {view["node"] for view in views if any(row[0] == "seen-2" for row in view["partitions"])}


async def test_clients_go_through_the_addresses_of_their_host(cluster: DevCluster, tmp_path: Path) -> None:
    """The bootstrap address leads nowhere but by the map: so every client uses it."""
    (port,) = free_ports(1)
    nowhere = f"127.0.0.1:{port}"
    access = Access(nowhere, {nowhere: nodes_of(cluster)[1]})
    path = tmp_path / "history.jsonl"
    options = LIVELY.only("senders", "appenders", "readers", "ends", "changers")
    with Recorder(path) as recorder:
        workload = Workload(recorder, {"c1": access}, options, 3)
        await workload.prepare()
        workload.start()
        progress = workload.progress
        await until(lambda: progress.acked >= 400 and progress.read >= 100, workload)
        await until(lambda: _at_work(recorder, path) >= {"send", "append", "read", "ends", "change"}, workload)
        await workload.stop(30)
        await workload.final(cluster.bootstrap, 60)
    check_rules(list(entries(path)))


def _at_work(recorder: Recorder, path: Path) -> set[str]:
    """Roles of processes that were answered."""
    recorder.flush()
    done = [entry["process"] for entry in entries(path) if entry["type"] == "ok" and entry["f"] != "assign"]
    return {name.partition("/")[2].partition(".")[0].rstrip("0123456789") for name in done}
