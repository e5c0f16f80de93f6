"""Clusters of real penstockd processes on free ports, ended with the test; their logs are shown where a test fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports


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
    """Three nodes that the module's tests share and do not break."""
    return start_cluster()
