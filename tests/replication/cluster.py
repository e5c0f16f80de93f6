"""Three nodes in one process: real stores, writers, cores, shells and gRPC on loopback.

Metadata is the real apply, over an image that all share; it reaches the nodes by `tell`."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from penstock.client.ports import free_ports
from penstock.internal.v1 import controller_pb2
from penstock.internal.v1 import metadata_pb2 as meta_pb
from penstock.node.clock import monotonic_ms, wall_ms
from penstock.node.partition import AppendRequest, AppendResult, Partition, ReadRequest
from penstock.node.replication.replicas import Replicas, ReplicationOptions, Seams
from penstock.protocol.batch import NewRecord, ProducerStamp, build, header_of
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.apply_nodes import fence_node, register_node
from penstock.raft.apply_partitions import alter_isr, elect_leaders
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, MetadataImage, PartitionInfo, TopicConfig, TopicInfo
from penstock.storage import Committer, LogBatch, PartitionKey, RecordStart, Store, StoreOptions, Writer
from penstock.storage.room import RoomState
from penstock.v1 import common_pb2, record_pb2

TOPIC = bytes(15) + b"t"
KEY = PartitionKey(TOPIC, 0)
NODES = (1, 2, 3)
TICK_S = 0.02
WAIT_S = 60


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; it is looked at as the loop goes."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  any condition, without an event of its own
            await asyncio.sleep(0.002)
    assert condition(), what


class TestNode:
    """A node without consensus, session and API."""

    __test__ = False

    def __init__(self, node_id: int, cluster: "TestCluster") -> None:
        self.id = node_id
        self.cluster = cluster
        self.path = cluster.path / f"node{node_id}"
        (self.port,) = free_ports(1)
        self.running = False
        self.fatal: list[BaseException] = []
        self.refused: list[int] = []
        """Leaders whose address refused the connection."""
        Store.format(self.path, cluster_id="c", node_id=node_id)

    async def start(self) -> None:
        """Open the store, listen, register."""
        loop = asyncio.get_running_loop()
        self.store = Store.open(self.path, StoreOptions(map_bytes=1 << 28))
        committer = Committer(self.store)
        committer.commit([RecordStart(random.randbytes(16))])
        self.writer = Writer(
            committer,
            lambda outcomes: self._hop(loop, outcomes),
            self.fatal.append,
        )
        self.writer.start()
        seams = Seams(
            now_ms=monotonic_ms,
            rng=random.Random(self.id),
            dial=self.cluster.dial,
            refuses=self.cluster.refuses,
            alter=self.cluster.alter,
            connection_refused=self.refused.append,
            fatal=self.fatal.append,
            store_is_full=lambda: self.store.room.state is RoomState.FULL,
        )
        self.replicas = Replicas(("c", self.id), self.store, self.writer.submit, self.cluster.options, seams)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self.replicas.handler(),))
        assert self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()
        self.running = True
        self.node_epoch = self.cluster.register(self)
        self.cluster.tell()
        self.ticker = asyncio.create_task(self._tick())

    def _hop(self, loop: asyncio.AbstractEventLoop, outcomes: Any) -> None:
        loop.call_soon_threadsafe(self._on_outcomes, outcomes)

    def _on_outcomes(self, outcomes: Any) -> None:
        if self.running:
            self.replicas.on_outcomes(outcomes)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.replicas.tick(monotonic_ms())

    async def stop(self) -> None:
        """End; its port refuses connections from now on."""
        if not self.running:
            return
        self.running = False
        self.ticker.cancel()
        await asyncio.gather(self.ticker, return_exceptions=True)
        await self.replicas.close()
        await self.server.stop(None)
        self.writer.stop()
        self.store.close()
        assert self.fatal == []

    @property
    def partition(self) -> Partition:
        found = self.replicas.find(KEY)
        assert found is not None
        return found

    def stored(self) -> list[LogBatch]:
        log = self.store.log(KEY)
        if log is None or log.state.log_end_offset == log.state.log_start_offset:
            return []
        return log.read(log.state.log_start_offset, log.state.log_end_offset, 1 << 30)


class TestCluster:
    """The nodes and the metadata register."""

    __test__ = False

    def __init__(self, path: Path, options: ReplicationOptions | None = None) -> None:
        self.path = path
        self.options = options or ReplicationOptions(replica_lag_max_ms=60_000)
        self.holds_changes = False
        """ISR changes find no controller."""
        self.elect_epochs = 1
        """Elections at the start: the leader epoch that the cluster begins with."""
        info = PartitionInfo(0, NODES, NODES, (), NO_LEADER, 0, 0, 0)
        topic = TopicInfo(TOPIC, "t", TopicConfig(min_insync_replicas=2), (info,))
        self.image = MetadataImage(1, "c", 1, {}, {TOPIC: topic}, {"t": TOPIC})
        self.nodes = {node_id: TestNode(node_id, self) for node_id in NODES}

    async def start(self) -> None:
        for node in self.nodes.values():
            await node.start()
        for _ in range(self.elect_epochs):
            self.elect(1)
        await self.until_leading(1)
        slots = self.nodes[1].partition.shell._slots
        await until(lambda: len(slots) == 2, "both followers have their streams")

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.stop()

    # ---- metadata

    @property
    def info(self) -> PartitionInfo:
        return self.image.topics[TOPIC].partitions[0]

    @property
    def leader(self) -> TestNode:
        return self.nodes[self.info.leader]

    def apply(self, function: Any, command: Any) -> Any:
        draft = Draft(self.image)
        result = function(draft, command, self.image.version + 1)
        self.image = draft.build(self.image.version + 1)
        return result

    def tell(self) -> None:
        """Every running node learns the present image."""
        for node in self.nodes.values():
            if node.running:
                node.replicas.apply(self.image, node.node_epoch)

    def register(self, node: TestNode) -> int:
        known = self.image.nodes.get(node.id)
        registration = meta_pb.Registration(
            node_id=node.id,
            cluster_id="c",
            store_id=node.store.identity.store_id,
            start_ids=node.store.start_ids(),
            durability=common_pb2.DURABILITY_COMMIT,
            supported_level=1,
        )
        registration.client_address.host = registration.peer_address.host = "127.0.0.1"
        registration.client_address.port = registration.peer_address.port = node.port
        previous = 0 if known is None else known.node_epoch
        if known is None:  # founding: everyone is in the ISR already
            self.image = replace(self.image, topics={})
            topics = {TOPIC: TopicInfo(TOPIC, "t", TopicConfig(min_insync_replicas=2), (self._founding(),))}
            self.apply(register_node, meta_pb.RegisterNode(registration=registration))
            self.image = replace(self.image, topics=topics)
        else:
            self.apply(register_node, meta_pb.RegisterNode(registration=registration, previous_node_epoch=previous))
        return self.image.version

    def _founding(self) -> PartitionInfo:
        return PartitionInfo(0, NODES, NODES, (), NO_LEADER, 0, 0, 0)

    def fence(self, node_id: int) -> None:
        node_epoch = self.image.nodes[node_id].node_epoch
        self.apply(fence_node, meta_pb.FenceNode(node_id=node_id, node_epoch=node_epoch))
        self.tell()

    def elect(self, node_id: int) -> None:
        info = self.info
        live = {node.node_id for node in self.image.nodes.values() if not node.fenced}
        election = meta_pb.Election(
            topic_id=TOPIC,
            partition=0,
            partition_epoch=info.partition_epoch,
            leader=node_id,
            leader_node_epoch=self.image.nodes[node_id].node_epoch,
            isr=sorted((live & set(info.isr)) | {node_id}),
        )
        result = self.apply(elect_leaders, meta_pb.ElectLeaders(elections=[election]))
        assert not result.changes[0].refusal, result
        self.tell()

    async def alter(self, request: controller_pb2.AlterPartitionsRequest) -> controller_pb2.AlterPartitionsResponse:
        if self.holds_changes:
            raise PenstockError(Reason.NO_CONTROLLER, "held back")
        response = controller_pb2.AlterPartitionsResponse()
        for change in request.changes:
            result = self.apply(alter_isr, meta_pb.AlterIsr(changes=[change]))
            response.changes.add().CopyFrom(result.changes[0])
        for _ in request.resignations:
            response.resignations.add()
        asyncio.get_running_loop().call_soon(self.tell)
        return response

    # ---- network

    def dial(self, node_id: int) -> grpc.aio.Channel:
        options = (("grpc.use_local_subchannel_pool", 1),)
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.nodes[node_id].port}", options)

    async def refuses(self, node_id: int) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.nodes[node_id].port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    # ---- clients

    async def until_isr(self, isr: tuple[int, ...]) -> None:
        await until(lambda: self.info.isr == isr, f"ISR {isr}, is {self.info}")

    async def until_equal(self) -> None:
        """All running nodes hold the same log, committed to its end."""
        running = [node for node in self.nodes.values() if node.running]

        def equal() -> bool:
            logs = [node.stored() for node in running]
            end = logs[0][-1].last_offset + 1 if logs[0] else 0
            marks = [node.partition.high_watermark for node in running]
            return all(log == logs[0] for log in logs) and marks == [end] * len(running)

        await until(equal, "equal logs")

    async def until_leading(self, node_id: int) -> None:
        await until(lambda: self.nodes[node_id].partition.is_leader, f"node {node_id} leads")


def request_of(
    payload: bytes, *, stamp: ProducerStamp | None = None, acks: int = common_pb2.ACKS_ALL, **options: Any
) -> AppendRequest:
    """One record in a batch."""
    records = [NewRecord(None, payload, wall_ms())]
    batch = build(records) if stamp is None else build(records, record_pb2.COMPRESSION_NONE, stamp)
    deadline = monotonic_ms() + options.pop("timeout_ms", 1_000 * WAIT_S)
    return AppendRequest(header_of(batch), batch.SerializeToString(), acks, wall_ms(), deadline, **options)


def send(partition: Partition, request: AppendRequest) -> "asyncio.Future[AppendResult]":
    """Append; the future has the answer."""
    future: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()

    def done(answer: AppendResult | PenstockError) -> None:
        if isinstance(answer, PenstockError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    partition.append(request, done)
    return future


async def read_all(partition: Partition) -> list[LogBatch]:
    """Everything below the high watermark."""
    batches: list[LogBatch] = []
    offset = partition.log_start_offset
    while True:
        found = await partition.read(ReadRequest(offset, 1 << 16, common_pb2.ISOLATION_READ_UNCOMMITTED))
        if not found:
            return batches
        batches += found
        offset = found[-1].last_offset + 1
