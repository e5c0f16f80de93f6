"""Nodes as processes without proxies: the least that faults of processes and of membership need."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.faults.base import Site
from penstock.chaos.roles import Roles
from penstock.client import Admin, PenstockError
from penstock.client.devcluster import DevCluster, DevClusterError
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports
from penstock.protocol.reasons import Reason

POLL_S = 0.02


class ProcessCluster:
    """A `chaos.cluster.Cluster` of DevCluster's; one action at a time."""

    def __init__(self, cluster: DevCluster) -> None:
        self.dev = cluster
        self._lock = asyncio.Lock()
        self.done: list[tuple[Action, int]] = []
        """What was asked of it, in order."""

    @property
    def node_ids(self) -> tuple[int, ...]:
        return self.dev.node_ids

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple(node.node_id for node in self.dev.plan.voters)

    @property
    def bootstrap(self) -> str:
        return self.dev.bootstrap

    def client_address(self, node_id: int) -> str:
        return next(node.client for node in self.dev.plan.nodes if node.node_id == node_id)

    def peer_address(self, node_id: int) -> str | None:
        return next(node.peer for node in self.dev.plan.nodes if node.node_id == node_id)

    def missing(self, action: Action) -> str | None:
        return None

    async def do(self, action: Action, node_id: int) -> None:
        actions: dict[Action, Callable[[], object]] = {
            Action.KILL: lambda: self.dev.kill(node_id),
            Action.START: lambda: self.dev.start([node_id]),
            Action.STOP: lambda: self.dev.stop([node_id], 30.0),
            Action.PAUSE: lambda: self._signal(node_id, signal.SIGSTOP),
            Action.RESUME: lambda: self._signal(node_id, signal.SIGCONT),
        }
        async with self._lock:
            self.done.append((action, node_id))
            try:
                await asyncio.to_thread(actions[action])
            except DevClusterError as error:
                raise ClusterError(str(error)) from error

    def _signal(self, node_id: int, number: signal.Signals) -> None:
        if not self.dev.signal(node_id, number):
            raise ClusterError(f"node {node_id} does not run")

    async def is_running(self, node_id: int) -> bool:
        return await asyncio.to_thread(self.dev.is_running, node_id)

    def data_dir(self, node_id: int) -> Path | None:
        return self.dev.data_dir(node_id)

    def log_path(self, node_id: int) -> Path | None:
        return self.dev.log_path(node_id)


@contextmanager
def running_cluster(home: Path, voters: int = 3, spare: int = 0, **limits: int) -> Iterator[DevCluster]:
    """Voters that serve, and further nodes that were only planned; all killed at the end."""
    cluster = DevCluster.create(home, make_plan(free_ports(2 * (voters + spare)), limits=limits))
    try:
        cluster.start(cluster.node_ids[:voters])
        cluster.wait_serving(cluster.node_ids[:voters])
        yield cluster
    finally:
        for node_id in cluster.node_ids:
            cluster.signal(node_id, signal.SIGKILL)
        for node_id in cluster.node_ids:
            cluster.kill(node_id)


def site_of(cluster: DevCluster) -> Site:
    """A site without proxies and disks."""
    adapter = ProcessCluster(cluster)
    return Site(adapter, Roles(adapter))


async def until(holds: Callable[[], bool]) -> None:
    """Let others go on until it holds; the test's timeout is the bound."""
    while not holds():  # noqa: ASYNC110  any condition
        await asyncio.sleep(0)


async def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Create it with three replicas, as soon as there are nodes enough."""
    async with Admin(bootstrap) as admin:
        while True:
            try:
                await admin.create_topic(name, partitions=partitions, replication_factor=3)
            except PenstockError as error:
                if error.reason is not Reason.INVALID_REPLICATION_FACTOR:
                    raise
            else:
                return
            await asyncio.sleep(POLL_S)
