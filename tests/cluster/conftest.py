"""Clusters of real penstockd processes on free ports, ended with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

CALM = {"session_timeout_ms": 60_000, "replica_lag_max_ms": 60_000}
"""For tests that are not about silence: a node that stands still for seconds, as on a busy machine, keeps its places.

Whose port refuses connections is still replaced at once.
"""


@pytest.fixture(scope="module")
def start_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DevCluster]]:
    """Start clusters that live as long as the module's tests."""
    started: list[DevCluster] = []

    def start(nodes: int = 3, **limits: int) -> DevCluster:
        home: Path = tmp_path_factory.mktemp("cluster")
        cluster = DevCluster.create(home, make_plan(free_ports(2 * nodes), limits=limits))
        started.append(cluster)
        cluster.start()
        cluster.wait_serving()
        return cluster

    yield start
    for cluster in started:
        for node_id in cluster.node_ids:
            cluster.kill(node_id)


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """Three nodes with the usual limits that the module's tests share."""
    return start_cluster()


@pytest.fixture(scope="module")
def calm_cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """Three nodes that the module's tests share, where leaderships do not move unless a node ends."""
    return start_cluster(**CALM)
