"""Nodes with consensus, controller and session over real gRPC, journals on disk; no store, no replication."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from penstock.internal.v1 import controller_pb2_grpc, metadata_pb2, raft_pb2_grpc
from penstock.node.api.server import new_server
from penstock.node.config import Endpoint, Limits
from penstock.node.controller import Controller, ControllerClient, ControllerService
from penstock.node.peers import PeerChannels, refuses
from penstock.node.session import Session
from penstock.raft.cluster import RaftConfig, RaftNode
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.raft.image import PartitionInfo
from penstock.raft.journal import RaftJournal
from penstock.raft.metadata import MetadataMachine
from penstock.raft.view import View
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import CLUSTER, id16

WAIT_S = 60.0
LIMITS = Limits(preferred_leader_delay_ms=500, session_timeout_ms=60_000)
"""Silence fences nobody here, for a busy machine brings it about; dead is whose port refuses connections."""


class MetadataNode:
    """One node. `stop` is as abrupt as one process allows: listeners first, no goodbye."""

    def __init__(self, node_id: int, root: Path, ports: dict[int, int]) -> None:
        self.node_id = node_id
        self.data_dir = root / f"node{node_id}"
        self.ports = ports
        self.starts = 0
        self.is_up = False

    def format(self) -> None:
        RaftJournal.format(self.data_dir / "raft", CLUSTER, self.node_id, founding=True)

    async def start(self) -> None:
        self.starts += 1
        self.view = View()
        voters = {node_id: f"127.0.0.1:{port}" for node_id, port in self.ports.items()}
        config = RaftConfig(self.node_id, self.data_dir, voters, election_timeout_s=(0.3, 0.6), heartbeat_s=0.05)
        self.raft = RaftNode(config, MetadataMachine(self.view.publish))
        await self.raft.start()
        self.peers = PeerChannels(self._address)
        self.controller = Controller(self.raft, self.view, LIMITS, lambda node_id: refuses(self._address(node_id)))
        self.client = ControllerClient(self.node_id, self.controller, lambda: self.raft.leader, self.peers.to)
        self.raft.on_leadership.append(self.client.on_leadership)
        self.session = Session(self._registration, self.client, self.view, LIMITS)
        self.server = new_server()
        raft_pb2_grpc.add_RaftServiceServicer_to_server(self.raft.servicer(), self.server)
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(ControllerService(self.controller), self.server)
        self.server.add_insecure_port(f"127.0.0.1:{self.ports[self.node_id]}")
        await self.server.start()
        await self.controller.start()
        await self.session.start()
        self.is_up = True

    async def stop(self) -> None:
        self.is_up = False
        await self.server.stop(None)
        await self.raft.stop()
        await self.session.stop()
        await self.controller.stop()
        await self.peers.close()

    def _address(self, node_id: int) -> Endpoint | None:
        port = self.ports.get(node_id)
        return None if port is None else Endpoint("127.0.0.1", port)

    def _registration(self) -> metadata_pb2.Registration:
        address = metadata_pb2.NodeAddress(host="127.0.0.1", port=self.ports[self.node_id])
        return metadata_pb2.Registration(
            node_id=self.node_id,
            cluster_id=CLUSTER,
            store_id=id16(f"store-{self.node_id}"),
            start_ids=[id16(f"start-{start}") for start in range(1, self.starts + 1)],
            client_address=address,
            peer_address=address,
            durability=common.DURABILITY_COMMIT,
            supported_level=SUPPORTED_LEVEL,
            journal_id=self.raft.journal_id,
            may_vote=self.raft.may_vote,
        )


class MetadataCluster:
    """Some of them."""

    def __init__(self, root: Path, ports: list[int]) -> None:
        by_node = dict(enumerate(ports, start=1))
        self.nodes = {node_id: MetadataNode(node_id, root, by_node) for node_id in by_node}

    async def __aenter__(self) -> "MetadataCluster":
        for node in self.nodes.values():
            node.format()
        await asyncio.gather(*(node.start() for node in self.nodes.values()))
        await self.until(lambda: all(node.session.serving for node in self.nodes.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values() if node.is_up))

    @property
    def up(self) -> list[MetadataNode]:
        """The nodes that run."""
        return [node for node in self.nodes.values() if node.is_up]

    @property
    def controller(self) -> MetadataNode | None:
        """The node whose controller is active."""
        return next((node for node in self.up if node.controller.is_active), None)

    def partition(self, topic_id: bytes, index: int = 0) -> PartitionInfo | None:
        """The partition as the most advanced node shows it."""
        newest = max(self.up, key=lambda node: node.view.image.version)
        return newest.view.image.partition(topic_id, index)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110  conditions of any kind, across nodes
                await asyncio.sleep(0.005)
