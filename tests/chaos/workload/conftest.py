"""Clusters of real penstockd processes for workloads, ended with the module's tests; their logs beside a failure."""

import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

_started: list[DevCluster] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the nodes' logs to the report of a failure."""
    report = yield
    if report.failed:
        for cluster in _started:
            report.sections += [(f"node {node_id}", cluster.log_tail(node_id)) for node_id in cluster.node_ids]
    return report


@pytest.fixture(scope="module")
def start_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], DevCluster]]:
    """Start clusters of three nodes that live as long as the module's tests."""

    def start() -> DevCluster:
        home: Path = tmp_path_factory.mktemp("cluster")
        cluster = DevCluster.create(home, make_plan(free_ports(6)))
        _started.append(cluster)
        cluster.start()
        cluster.wait_serving()
        return cluster

    yield start
    nodes = [(cluster, node_id) for cluster in _started for node_id in cluster.node_ids]
    for cluster, node_id in nodes:
        cluster.signal(node_id, signal.SIGKILL)
    for cluster, node_id in nodes:
        cluster.kill(node_id)
    if not request.session.testsfailed:  # else the files may tell why
        for cluster in _started:
            shutil.rmtree(cluster.home)
    _started.clear()


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[[], DevCluster]) -> DevCluster:
    """Three nodes that the module's tests share."""
    return start_cluster()
