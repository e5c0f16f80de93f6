"""A cluster of a run's own: penstockd processes on this machine, proxies between all of them, disks as the run wants.

Owns the folder `cluster/` of the run and everything in it. Every connection passes a proxy: nodes dial each other
through one a directed pair (`peer_override`), they advertise themselves to clients by another, and each of the clients'
hosts has its own to each node (by its address map). Only observers go past them.

Invariant: what `start` or `do` has begun is over when they end, also where they are cancelled; so `end` finds every
node that there will be.
"""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.chaos.cluster import Action, ClusterError
from penstock.chaos.disks import Disks
from penstock.chaos.ending import to_the_end
from penstock.chaos.links import Link, Links
from penstock.chaos.toxiproxy import ToxiproxyServer
from penstock.client.devcluster import PENSTOCKD, DevCluster, DevClusterError
from penstock.client.devplan import HOST, NodePlan, make_plan
from penstock.client.ports import free_ports

ANY_HOST = "any"
"""Source of the links that nodes advertise: of whichever client has none of its own."""
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What the cluster is made of."""

    nodes: int = 3
    """Voters that are started at once: 1, 3 or 5."""
    spare: int = 0
    """Further nodes, planned and not started: for faults that add them. With 3 voters at most 1."""
    hosts: tuple[str, ...] = ("c1", "c2")
    limits: Mapping[str, int] = field(default_factory=dict)
    durability: str = "commit"
    log_level: str = "info"
    program: Sequence[str] = PENSTOCKD
    """The server. The tests' own one has a bug built in."""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The links of a planned cluster."""

    upstreams: Mapping[Link, str]
    listen: Mapping[Link, str]

    def make(self, server: ToxiproxyServer) -> Links:
        """Make them. Blocks. Raises ToxiproxyError."""
        return Links.create(server, self.upstreams, self.listen)


class LocalCluster:
    """See the module. A `chaos.cluster.Cluster`."""

    def __init__(self, cluster: DevCluster, options: LocalOptions) -> None:
        self._cluster = cluster
        self._options = options
        self._plans = {node.node_id: node for node in cluster.plan.nodes}
        self._lock = asyncio.Lock()

    @classmethod
    def plan(cls, folder: Path, options: LocalOptions, disks: Disks) -> "tuple[LocalCluster, LinkPlan]":
        """Plan it on free ports, and with it the links that are then to be made (see `route`). Raises ClusterError."""
        nodes = options.nodes + options.spare
        sources = nodes - 1 + len(options.hosts) + 1
        ports = free_ports(nodes * (2 + sources))  # at once: a port that is only planned does not look taken
        plan = make_plan(
            ports[: 2 * nodes], durability=options.durability, log_level=options.log_level, limits=options.limits
        )
        if len(plan.voters) != options.nodes:
            raise ClusterError(f"{options.nodes} voters with {options.spare} spare nodes cannot be planned")
        on_disks = [
            replace(node, data_dir=str(disks.data_dir(node.node_id)), wrapper=tuple(disks.wrapper(node.node_id)))
            for node in plan.nodes
        ]
        cluster = cls(DevCluster.create(folder, replace(plan, nodes=tuple(on_disks)), options.program), options)
        upstreams = cluster._upstreams()
        listen = {link: f"{HOST}:{port}" for link, port in zip(upstreams, ports[2 * nodes :], strict=True)}
        return cluster, LinkPlan(upstreams, listen)

    def _upstreams(self) -> dict[Link, str]:
        nodes = tuple(self._plans.values())
        peers = {Link(a.node_id, b.node_id): b.peer for a in nodes for b in nodes if a is not b}
        hosts = (*self._options.hosts, ANY_HOST)
        return peers | {Link(host, node.node_id): node.client for host in hosts for node in nodes}

    def route(self, links: Links) -> None:
        """Lead every connection through its link, from the next start of each node on."""
        nodes = [self._routed(node, links) for node in self._cluster.plan.nodes]
        self._cluster.save_plan(replace(self._cluster.plan, nodes=tuple(nodes)))
        self._plans = {node.node_id: node for node in nodes}

    def _routed(self, node: NodePlan, links: Links) -> NodePlan:
        others = (other for other in self._plans if other != node.node_id)
        override = {other: links.address(Link(node.node_id, other)) for other in others}
        return replace(node, peer_override=override, client_advertise=links.address(Link(ANY_HOST, node.node_id)))

    def address_map(self, host: str, links: Links) -> dict[str, str]:
        """Give what a host's clients dial instead of the advertised addresses."""
        return {links.address(Link(ANY_HOST, node)): links.address(Link(host, node)) for node in self._plans}

    def advertised(self, links: Links) -> str:
        """Give the addresses by which the voters advertise themselves to clients, comma separated."""
        return ",".join(links.address(Link(ANY_HOST, node_id)) for node_id in self.voters)

    # ---- chaos.cluster.Cluster

    @property
    def node_ids(self) -> tuple[int, ...]:
        """All nodes, voters first."""
        return self._cluster.node_ids

    @property
    def voters(self) -> tuple[int, ...]:
        """Nodes that vote."""
        return tuple(node.node_id for node in self._cluster.plan.voters)

    @property
    def bootstrap(self) -> str:
        """Client listeners of the nodes."""
        return self._cluster.bootstrap

    def client_address(self, node_id: int) -> str:
        """One node's client listener."""
        return self._plans[node_id].client

    def peer_address(self, node_id: int) -> str | None:
        """One node's peer listener."""
        return self._plans[node_id].peer

    def missing(self, action: Action) -> str | None:
        """Everything can be done."""
        del action
        return None

    async def do(self, action: Action, node_id: int) -> None:
        """Do it; one action at a time."""
        actions: dict[Action, Callable[[int], object]] = {
            Action.KILL: self._cluster.kill,
            Action.START: lambda node: self._cluster.start([node]),
            Action.STOP: lambda node: self._cluster.stop([node], STOP_TIMEOUT_S),
            Action.PAUSE: lambda node: self._signal(node, signal.SIGSTOP),
            Action.RESUME: lambda node: self._signal(node, signal.SIGCONT),
            Action.REPLACE: self._cluster.replace_disk,
        }
        async with self._lock:
            await self._to_the_end(actions[action], node_id)

    def _signal(self, node_id: int, number: signal.Signals) -> None:
        if not self._cluster.signal(node_id, number):
            raise ClusterError(f"node {node_id} does not run")

    async def is_running(self, node_id: int) -> bool:
        """Say whether the node's process is there."""
        return await asyncio.to_thread(self._cluster.is_running, node_id)

    def data_dir(self, node_id: int) -> Path | None:
        """The node's data directory."""
        return self._cluster.data_dir(node_id)

    def log_path(self, node_id: int) -> Path | None:
        """The node's log."""
        return self._cluster.log_path(node_id)

    # ---- beginning and end

    async def start(self) -> None:
        """Start the voters and wait until they serve. Raises ClusterError."""
        await self._to_the_end(self._cluster.start, self.voters)
        await self._blocking(self._cluster.wait_serving, self.voters)

    async def end(self) -> None:
        """Kill what still runs: never waits for a node's goodwill."""

        def kill_all() -> None:
            for node_id in self.node_ids:
                self._cluster.signal(node_id, signal.SIGKILL)
            for node_id in self.node_ids:
                self._cluster.kill(node_id)

        await self._to_the_end(kill_all)

    async def _to_the_end(self, function: Callable[..., object], *arguments: object) -> None:
        """A thread goes on when its waiter is cancelled."""
        await to_the_end(self._blocking(function, *arguments))

    async def _blocking(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            await asyncio.to_thread(function, *arguments)
        except DevClusterError as error:
            raise ClusterError(str(error)) from error
