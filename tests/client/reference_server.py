"""A small cluster that serves the v1 API from lists in memory, on real gRPC, with faults on demand.

Reference for the client's tests: several brokers (grpc.aio servers on loopback) share one `Cluster`. Appends are
checked as DESIGN rule 14 says. What is appended is committed at once.
"""

import asyncio
import contextlib
import itertools
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_status import rpc_status

from penstock.protocol.batch import InvalidBatchError, NewRecord, build, parse, read
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.keys import partition_of
from penstock.protocol.limits import DEFAULT_MAX_BATCH_BYTES, MAX_MESSAGE_BYTES
from penstock.protocol.reasons import Reason
from penstock.v1 import (
    cluster_service_pb2 as cluster_pb,
)
from penstock.v1 import (
    cluster_service_pb2_grpc,
    common_pb2,
    consumer_service_pb2_grpc,
    group_service_pb2_grpc,
    producer_service_pb2_grpc,
    record_pb2,
    topic_service_pb2_grpc,
)
from penstock.v1 import (
    consumer_service_pb2 as consumer_pb,
)
from penstock.v1 import (
    producer_service_pb2 as producer_pb,
)
from penstock.v1 import (
    topic_service_pb2 as topic_pb,
)
from tests.client.idempotence import Accepted, Duplicate, ProducerStates
from tests.client.reference_groups import GroupApi, Groups


@dataclass
class PartitionLog:
    """One partition: its log and who leads it."""

    topic_id: bytes
    partition: int
    leader: int
    leader_epoch: int = 0
    log_start_offset: int = 0
    cleaned_offset: int = 0
    batches: list[record_pb2.StoredBatch] = field(default_factory=list)
    producers: ProducerStates = field(default_factory=ProducerStates)
    waiters: dict[asyncio.Event, None] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.batches[-1].last_offset + 1 if self.batches else self.log_start_offset

    def append(self, batch: record_pb2.RecordBatch) -> int:
        base = self.end
        self.batches.append(
            record_pb2.StoredBatch(
                base_offset=base,
                last_offset=base + batch.record_count - 1,
                leader_epoch=self.leader_epoch,
                append_time_ms=time.time_ns() // 1_000_000,
                batch=batch,
            )
        )
        for waiter in self.waiters:
            waiter.set()
        return base

    def trim(self, start: int) -> None:
        end = self.end
        self.log_start_offset = max(start, self.log_start_offset)
        kept = [batch for batch in self.batches if batch.last_offset >= self.log_start_offset]
        self.batches = kept
        assert self.end == end

    def epoch_end(self, leader_epoch: int) -> int:
        """Where the batches of this epoch and lower ones end."""
        ends = [b.last_offset + 1 for b in self.batches if b.leader_epoch <= leader_epoch]
        return max(ends, default=self.log_start_offset)


class Cluster:
    """The state that all brokers share, and the faults."""

    def __init__(self, nodes: int) -> None:
        self.version = 1
        self.topics: dict[str, topic_pb.Topic] = {}
        self.logs: dict[tuple[bytes, int], PartitionLog] = {}
        self.brokers: dict[int, Broker] = {}
        self.changed: dict[asyncio.Event, None] = {}
        self.producer_ids = itertools.count(1000)
        self.published: dict[str, producer_pb.PublishResponse] = {}
        self.requests: dict[str, topic_pb.CreateTopicResponse] = {}
        self.faults: deque[str] = deque()
        """Taken one a produced batch: "" (none), a Reason's name, "cut-before", "cut-after" (append, then cut)."""
        self.stream_faults: deque[Reason] = deque()
        """Taken one a Consume stream that has an assignment: the stream ends so."""
        self.read_faults: deque[Reason] = deque()
        """Taken one an assignment: it is answered so."""
        self.unary_faults: deque[Reason] = deque()
        self.produce_requests = 0
        self.produce_batches = 0
        self.hold_answers = False
        self.answer_gate = asyncio.Event()
        self.corrupt_reads = 0
        self.nodes = nodes
        self.of_an_older_version: set[int] = set()
        """Ids of brokers that know neither GetBrokerUsage nor ListLogs."""
        self.trim_faults: deque[Reason] = deque()
        """Taken one a partition that is trimmed: answered so, after it was done where the outcome is unknown."""
        self.groups = Groups(self)

    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers.values())

    def touch(self) -> None:
        self.version += 1
        for event in self.changed:
            event.set()

    def create(self, name: str, partitions: int = 1, config: topic_pb.TopicConfig | None = None) -> topic_pb.Topic:
        topic = topic_pb.Topic(topic_id=uuid.uuid4().bytes, name=name, replication_factor=self.nodes)
        topic.config.MergeFrom(
            topic_pb.TopicConfig(
                min_insync_replicas=1,
                cleanup_policy=common_pb2.CLEANUP_POLICY_DELETE,
                retention_bytes=0,
                max_batch_bytes=DEFAULT_MAX_BATCH_BYTES,
                timestamp_type=common_pb2.TIMESTAMP_TYPE_CREATE,
                unclean_leader_election=False,
            )
        )
        if config is not None:
            topic.config.MergeFrom(config)
        self.topics[name] = topic
        self.grow(name, partitions)
        return topic

    def grow(self, name: str, partitions: int) -> None:
        topic = self.topics[name]
        nodes = sorted(self.brokers)
        for index in range(len(topic.partitions), partitions):
            leader = nodes[index % len(nodes)]
            topic.partitions.add(partition=index, replicas=nodes, isr=nodes, leader=leader, leader_epoch=0)
            self.logs[topic.topic_id, index] = PartitionLog(topic.topic_id, index, leader)
        self.touch()

    def drop(self, name: str) -> topic_pb.Topic:
        topic = self.topics.pop(name)
        for partition in topic.partitions:
            log = self.logs.pop((topic.topic_id, partition.partition))
            for waiter in log.waiters:
                waiter.set()
        self.touch()
        return topic

    def log(self, name: str, partition: int = 0) -> PartitionLog:
        return self.logs[self.topics[name].topic_id, partition]

    def lead(self, name: str, partition: int, leader: int, *, tell: bool = True) -> None:
        """Give the partition to another leader; with `tell` False the metadata keeps the old one for now."""
        log = self.log(name, partition)
        log.leader = leader
        log.leader_epoch += 1
        if tell:
            described = self.topics[name].partitions[partition]
            described.leader, described.leader_epoch = leader, log.leader_epoch
            self.touch()
        for waiter in log.waiters:
            waiter.set()

    def truncate(self, name: str, partition: int, end: int) -> None:
        """Lose the batches from `end` on, as an unclean election would."""
        log = self.log(name, partition)
        log.batches = [batch for batch in log.batches if batch.last_offset < end]

    def records(self, name: str, partition: int = 0) -> list[record_pb2.Record]:
        out: list[record_pb2.Record] = []
        for stored in self.log(name, partition).batches:
            parse(stored.batch.SerializeToString())
            out.extend(read(stored.batch))
        return out

    def metadata(self, selection: cluster_pb.TopicSelection | None) -> cluster_pb.ClusterMetadata:
        topics = [self.topics[name] for name in sorted(self.topics)]
        if selection is not None:
            names, ids = set(selection.names), set(selection.topic_ids)
            topics = [topic for topic in topics if topic.name in names or topic.topic_id in ids]
        return cluster_pb.ClusterMetadata(
            cluster_id="reference",
            metadata_version=self.version,
            controller=min(self.brokers),
            feature_level=1,
            brokers=[broker.described() for _, broker in sorted(self.brokers.items())],
            topics=topics,
        )


class Broker:
    """One node: a gRPC server on loopback."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.port = 0
        self.advertised_host = "127.0.0.1"
        self.server: Any = None
        self.node_epoch = 1
        self.store_used_bytes, self.store_disk_bytes = 100 << 20, 400 << 20
        self.gives_back = True
        """Whether its store gets smaller when it is compacted."""
        self.streams: dict[asyncio.Event, None] = {}
        self.strays: dict[tuple[bytes, int], PartitionLog] = {}
        cluster.brokers[node_id] = self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the former port after a stop."""
        self.server = grpc.aio.server(
            options=(
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            )
        )
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterApi(self), self.server)
        topic_service_pb2_grpc.add_TopicServiceServicer_to_server(TopicApi(self), self.server)
        producer_service_pb2_grpc.add_ProducerServiceServicer_to_server(ProducerApi(self), self.server)
        consumer_service_pb2_grpc.add_ConsumerServiceServicer_to_server(ConsumerApi(self), self.server)
        if self.node_id not in self.cluster.of_an_older_version:
            group_service_pb2_grpc.add_GroupServiceServicer_to_server(GroupApi(self.cluster.groups), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self.server.start()

    async def stop(self) -> None:
        """Stop as a crash does: connections are cut."""
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop(None)

    def cut_streams(self) -> None:
        """Break the produce and consume streams."""
        for event in self.streams:
            event.set()

    def described(self) -> cluster_pb.Broker:
        return cluster_pb.Broker(
            node_id=self.node_id,
            host=self.advertised_host,
            port=self.port,
            node_epoch=self.node_epoch,
            fenced=self.server is None,
            durability=common_pb2.DURABILITY_COMMIT,
            voter=True,
            version="reference",
        )

    def leads(self, topic_id: bytes, partition: int, leader_epoch: int | None = None) -> PartitionLog:
        log = self.cluster.logs.get((topic_id, partition))
        if log is None:
            raise PenstockError(Reason.UNKNOWN_TOPIC, "no such topic")
        hint = {"leader": str(log.leader), "leader_epoch": str(log.leader_epoch)}
        leader = self.cluster.brokers.get(log.leader)
        if leader is not None:
            hint |= {"host": "127.0.0.1", "port": str(leader.port)}
        if log.leader != self.node_id:
            raise PenstockError(Reason.NOT_LEADER, f"node {self.node_id} is not the leader", hint)
        if leader_epoch is not None and leader_epoch < log.leader_epoch:
            raise PenstockError(Reason.STALE_LEADER_EPOCH, "lower than the partition's", hint)
        return log


def refuse(reason: Reason, message: str, metadata: dict[str, str] | None = None) -> None:
    raise PenstockError(reason, message, metadata)


async def fail(context: Any, error: PenstockError) -> Any:
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


class Api:
    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.cluster = broker.cluster

    async def check(self, context: Any) -> None:
        if self.cluster.unary_faults:
            await fail(context, PenstockError(self.cluster.unary_faults.popleft(), "injected"))


class ClusterApi(Api, cluster_service_pb2_grpc.ClusterServiceServicer):
    async def GetMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        selection = request.topics if request.HasField("topics") else None
        return cluster_pb.GetMetadataResponse(metadata=self.cluster.metadata(selection))

    async def WatchMetadata(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        selection = request.topics if request.HasField("topics") else None
        event = asyncio.Event()
        self.cluster.changed[event] = None
        try:
            while True:
                event.clear()
                yield cluster_pb.WatchMetadataResponse(metadata=self.cluster.metadata(selection))
                await event.wait()
        finally:
            self.cluster.changed.pop(event, None)

    async def ListBrokers(self, request: Any, context: Any) -> Any:  # noqa: N802
        brokers = [broker.described() for _, broker in sorted(self.cluster.brokers.items())]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return cluster_pb.ListBrokersResponse(
            brokers=brokers[start:end],
            next_page_token=str(end) if end < len(brokers) else "",
            controller=min(self.cluster.brokers),
            metadata_version=self.cluster.version,
        )

    async def GetHealth(self, request: Any, context: Any) -> Any:  # noqa: N802
        down = [broker for broker in self.cluster.brokers.values() if broker.server is None]
        problems = [
            cluster_pb.HealthProblem(reason="BROKER_FENCED", message=f"broker {b.node_id} is silent") for b in down
        ]
        return cluster_pb.GetHealthResponse(healthy=not down, problems=problems, metadata_version=self.cluster.version)

    async def GetBrokerUsage(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.broker.node_id in self.cluster.of_an_older_version:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        used = cluster_pb.GetBrokerUsageResponse(node_id=self.broker.node_id, resident_bytes=64 << 20)
        used.cpu_time_ms, used.uptime_ms = int(time.process_time() * 1000), time.monotonic_ns() // 1_000_000
        used.store_state, used.retention_paused = common_pb2.STORE_STATE_NEARLY_FULL, True
        used.store_used_bytes, used.store_capacity_bytes, used.disk_free_bytes = 85, 100, 7
        return used

    async def ListLogs(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every broker has every log; one whose topic is gone is a stray."""
        await self.check(context)
        if self.broker.node_id in self.cluster.of_an_older_version:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        placed, strays = self.cluster.logs, self.broker.strays
        keys = sorted((key, False) for key in placed) + sorted((key, True) for key in strays)
        keys = [
            (key, stray)
            for key, stray in keys
            if (not request.topic_ids or key[0] in request.topic_ids) and (stray or not request.strays_only)
        ]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return cluster_pb.ListLogsResponse(
            node_id=self.broker.node_id,
            logs=[self._log_info((strays if stray else placed)[key], stray) for key, stray in keys[start:end]],
            next_page_token=str(end) if end < len(keys) else "",
        )

    def _log_info(self, log: PartitionLog, stray: bool) -> cluster_pb.LogInfo:
        return cluster_pb.LogInfo(
            topic_id=log.topic_id,
            partition=log.partition,
            log_start_offset=log.log_start_offset,
            log_end_offset=log.end,
            high_watermark=log.end,
            size_bytes=sum(stored.batch.ByteSize() for stored in log.batches),
            record_count=sum(stored.batch.record_count for stored in log.batches),
            leader=not stray and log.leader == self.broker.node_id,
            stray=stray,
            cleaned_offset=log.cleaned_offset,
            dirty_bytes=sum(s.batch.ByteSize() for s in log.batches if s.base_offset >= log.cleaned_offset),
        )

    async def CompactStore(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Done as soon as it is asked for."""
        await self.check(context)
        broker = self.broker
        answer = cluster_pb.CompactStoreResponse(
            node_id=broker.node_id, used_bytes=broker.store_used_bytes, disk_bytes=broker.store_disk_bytes
        )
        if not request.validate_only:
            broker.node_epoch += 1
            broker.store_disk_bytes = broker.store_used_bytes if broker.gives_back else broker.store_disk_bytes
        return answer


class TopicApi(Api, topic_service_pb2_grpc.TopicServiceServicer):
    async def CreateTopic(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.check(context)
        if request.request_id in self.cluster.requests:
            return self.cluster.requests[request.request_id]
        if request.name in self.cluster.topics:
            await fail(context, PenstockError(Reason.TOPIC_EXISTS, f"topic {request.name!r} exists"))
        if request.replication_factor > len(self.cluster.brokers):
            await fail(context, PenstockError(Reason.INVALID_REPLICATION_FACTOR, "too few nodes"))
        if request.validate_only:
            return topic_pb.CreateTopicResponse(
                topic=topic_pb.Topic(name=request.name, config=request.config), metadata_version=self.cluster.version
            )
        count = len(request.assignments) or request.partitions or 1
        topic = self.cluster.create(request.name, count, request.config)
        answer = topic_pb.CreateTopicResponse(topic=topic, metadata_version=self.cluster.version)
        if request.request_id:
            self.cluster.requests[request.request_id] = answer
        if self.cluster.unary_faults and self.cluster.unary_faults[0] is Reason.OUTCOME_UNKNOWN:
            await self.check(context)
        return answer

    async def ListTopics(self, request: Any, context: Any) -> Any:  # noqa: N802
        names = sorted(self.cluster.topics)
        start = int(request.page_token or 0)
        end = start + (request.page_size or 100)
        return topic_pb.ListTopicsResponse(
            topics=[self.cluster.topics[name] for name in names[start:end]],
            next_page_token=str(end) if end < len(names) else "",
            metadata_version=self.cluster.version,
        )

    async def _find(self, request: Any, context: Any) -> Any:
        await self.check(context)
        topic = self.cluster.topics.get(request.name)
        if topic is None:
            await fail(context, PenstockError(Reason.UNKNOWN_TOPIC, f"no topic {request.name!r}"))
        return topic

    async def DescribeTopic(self, request: Any, context: Any) -> Any:  # noqa: N802
        topic = await self._find(request, context)
        return topic_pb.DescribeTopicResponse(topic=topic, metadata_version=self.cluster.version)

    async def AlterTopic(self, request: Any, context: Any) -> Any:  # noqa: N802
        topic = await self._find(request, context)
        if not request.validate_only:
            topic.config.MergeFrom(request.config)
            for name in request.reset:
                topic.config.ClearField(name)
            self.cluster.touch()
        return topic_pb.AlterTopicResponse(topic=topic, metadata_version=self.cluster.version)

    async def AddPartitions(self, request: Any, context: Any) -> Any:  # noqa: N802
        topic = await self._find(request, context)
        if request.partitions <= len(topic.partitions):
            await fail(context, PenstockError(Reason.INVALID_ARGUMENT, "not more than now"))
        if not request.validate_only:
            self.cluster.grow(request.name, request.partitions)
        return topic_pb.AddPartitionsResponse(topic=topic, metadata_version=self.cluster.version)

    async def TrimPartitions(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.check(context)
        answer = topic_pb.TrimPartitionsResponse()
        for asked in request.partitions:
            result = answer.results.add()
            try:
                result.log_start_offset = self._trim(asked)
            except PenstockError as error:
                result.error.CopyFrom(to_status(error))
        return answer

    def _trim(self, asked: Any) -> int:
        log = self.broker.leads(
            asked.topic_id, asked.partition, asked.leader_epoch if asked.HasField("leader_epoch") else None
        )
        fault = self.cluster.trim_faults.popleft() if self.cluster.trim_faults else None
        if fault is not None and fault is not Reason.OUTCOME_UNKNOWN:
            refuse(fault, "injected")
        assert asked.WhichOneof("position") == "before_offset"  # what a client sends that may repeat itself
        if asked.before_offset > log.end:
            refuse(Reason.OFFSET_ABOVE_END, f"offset {asked.before_offset} is above {log.end}")
        log.trim(asked.before_offset)
        if fault is not None:
            refuse(fault, "injected")
        return log.log_start_offset

    async def DeleteTopic(self, request: Any, context: Any) -> Any:  # noqa: N802
        topic = await self._find(request, context)
        if not request.validate_only:
            self.cluster.drop(request.name)
        return topic_pb.DeleteTopicResponse(topic_id=topic.topic_id, metadata_version=self.cluster.version)


class ProducerApi(Api, producer_service_pb2_grpc.ProducerServiceServicer):
    async def InitProducer(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.check(context)
        return producer_pb.InitProducerResponse(producer_id=next(self.cluster.producer_ids), producer_epoch=0)

    async def Produce(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        cut = asyncio.Event()
        self.broker.streams[cut] = None
        reading = asyncio.create_task(_drain(request_iterator))
        cutting = asyncio.create_task(cut.wait())
        try:
            while True:
                await asyncio.wait({reading, cutting}, return_when=asyncio.FIRST_COMPLETED)
                if cutting.done():
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                request = reading.result()
                if request is None:
                    return
                reading = asyncio.create_task(_drain(request_iterator))
                answer = self._answer(request, cut)
                if self.cluster.hold_answers:
                    await asyncio.wait(
                        {asyncio.create_task(self.cluster.answer_gate.wait()), cutting},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                if not cut.is_set() and request.acks != common_pb2.ACKS_NONE:
                    yield answer
        finally:
            self.broker.streams.pop(cut, None)
            for task in (reading, cutting):
                task.cancel()
            await asyncio.gather(reading, cutting, return_exceptions=True)

    def _answer(self, request: Any, cut: asyncio.Event) -> Any:
        self.cluster.produce_requests += 1
        answer = producer_pb.ProduceResponse()
        for item in request.batches:
            self.cluster.produce_batches += 1
            if cut.is_set():
                break
            result = answer.results.add(batch_number=item.batch_number)
            fault = self.cluster.faults.popleft() if self.cluster.faults else ""
            try:
                if fault == "cut-before":
                    cut.set()
                elif fault and fault != "cut-after":
                    refuse(Reason[fault], "injected")
                else:
                    result.appended.CopyFrom(self._append(item))
                    if fault == "cut-after":
                        cut.set()
            except PenstockError as error:
                result.error.CopyFrom(to_status(error))
        return answer

    def _append(self, item: Any) -> Any:
        log = self.broker.leads(
            item.topic_id, item.partition, item.leader_epoch if item.HasField("leader_epoch") else None
        )
        try:
            header, _ = parse(item.batch.SerializeToString())
        except InvalidBatchError as error:
            raise PenstockError(Reason.CORRUPT_BATCH, str(error)) from error
        verdict = log.producers.check(header)
        if isinstance(verdict, Reason):
            raise PenstockError(verdict, f"producer {header.producer_id} sequence {header.base_sequence}")
        if isinstance(verdict, Accepted):
            base = log.append(item.batch)
            log.producers.advance(header, base)
        else:
            base = verdict.base_offset
        return producer_pb.BatchAppended(
            base_offset=base,
            leader_epoch=log.leader_epoch,
            append_time_ms=1234,
            durability=common_pb2.DURABILITY_COMMIT,
            duplicate=isinstance(verdict, Duplicate),
        )

    async def Publish(self, request: Any, context: Any) -> Any:  # noqa: N802
        topic = self.cluster.topics.get(request.topic)
        if topic is None:
            return await fail(context, PenstockError(Reason.UNKNOWN_TOPIC, f"no topic {request.topic!r}"))
        if request.request_id in self.cluster.published:
            return self.cluster.published[request.request_id]
        answer = producer_pb.PublishResponse()
        first = request.records[0]
        index = request.partition if request.HasField("partition") else partition_of(first.key, len(topic.partitions))
        if index >= len(topic.partitions):
            return await fail(context, PenstockError(Reason.UNKNOWN_PARTITION, f"no partition {index}"))
        log = self.cluster.logs[topic.topic_id, index]
        if request.HasField("expected_offset") and request.expected_offset != log.end:
            metadata = {"log_end_offset": str(log.end)}
            return await fail(
                context, PenstockError(Reason.EXPECTED_OFFSET_MISMATCH, f"log end is {log.end}", metadata)
            )
        records = [
            NewRecord(r.key if r.HasField("key") else None, r.value if r.HasField("value") else None, r.timestamp_ms,
                      [(h.key, h.value if h.HasField("value") else None) for h in r.headers])
            for r in request.records
        ]  # fmt: skip
        base = log.append(build(records))
        for delta in range(len(records)):
            answer.records.add(partition=index, offset=base + delta)
        self.cluster.published[request.request_id] = answer
        await self.check(context)
        return answer


async def _drain(requests: Any) -> Any:
    """Give the next request, None at the end."""
    async for request in requests:
        return request
    return None


@dataclass
class Assignment:
    log: PartitionLog
    position: Any
    next_offset: int
    leader_epoch: int
    paused: bool = False


class ConsumerApi(Api, consumer_service_pb2_grpc.ConsumerServiceServicer):
    async def Consume(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        stream = ConsumeStream(self.broker)
        self.broker.streams[stream.cut] = None
        reader = asyncio.create_task(stream.take_requests(request_iterator))
        try:
            while True:
                await stream.wake.wait()
                stream.wake.clear()
                if stream.cut.is_set():
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                if stream.ended:
                    return
                if stream.assignments and self.cluster.stream_faults:
                    await fail(context, PenstockError(self.cluster.stream_faults.popleft(), "injected"))
                while (response := stream.response()) is not None:
                    yield response
                    await asyncio.sleep(0)
        finally:
            stream.end()
            self.broker.streams.pop(stream.cut, None)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def ListOffsets(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.check(context)
        answer = consumer_pb.ListOffsetsResponse()
        for query in request.queries:
            result = answer.results.add()
            try:
                log = self.broker.leads(query.topic_id, query.partition)
            except PenstockError as error:
                result.error.CopyFrom(to_status(error))
                continue
            result.found.leader_epoch = log.leader_epoch
            if query.HasField("earliest"):
                result.found.offset = log.log_start_offset
            elif query.HasField("latest"):
                result.found.offset = log.end
            else:
                self._by_time(log, query.timestamp_ms, result.found)
        return answer

    @staticmethod
    def _by_time(log: PartitionLog, timestamp_ms: int, found: Any) -> None:
        for stored in log.batches:
            for record in read(stored.batch):
                stamp = stored.batch.base_timestamp_ms + record.timestamp_delta_ms
                if stamp >= timestamp_ms:
                    found.offset, found.timestamp_ms = stored.base_offset + record.offset_delta, stamp
                    return
        found.offset = log.end


class ConsumeStream:
    """State of one Consume call."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.wake = asyncio.Event()
        self.cut = _Cut(self.wake)
        self.ended = False
        self.max_bytes = 1 << 20
        self.credit_records = 0
        self.credit_bytes = 0
        self.assignments: dict[int, Assignment] = {}
        self.errors: list[Any] = []

    async def take_requests(self, requests: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            async for request in requests:
                self.take(request)
                self.wake.set()
            self.ended = True
            self.wake.set()

    def take(self, request: Any) -> None:
        kind = request.WhichOneof("request")
        if kind == "start":
            self.max_bytes = request.start.max_response_bytes or self.max_bytes
        elif kind == "assign":
            for position in request.assign.positions:
                self.assign(position)
        elif kind == "unassign":
            for number in request.unassign.assignment_ids:
                self.assignments.pop(number, None)
        elif kind in {"pause", "resume"}:
            for number in getattr(request, kind).assignment_ids:
                if number in self.assignments:
                    self.assignments[number].paused = kind == "pause"
        elif kind == "credit":
            self.credit_records += request.credit.records
            self.credit_bytes += request.credit.bytes

    def assign(self, position: Any) -> None:
        for number, old in list(self.assignments.items()):
            if (old.position.topic_id, old.position.partition) == (position.topic_id, position.partition):
                del self.assignments[number]
        try:
            log = self.broker.leads(
                position.topic_id,
                position.partition,
                position.leader_epoch if position.HasField("leader_epoch") else None,
            )
            if self.broker.cluster.read_faults:
                refuse(self.broker.cluster.read_faults.popleft(), "injected")
            if position.fetch_offset < log.log_start_offset:
                refuse(Reason.OFFSET_BELOW_START, f"log starts at {log.log_start_offset}")
            if position.HasField("last_fetched_epoch"):
                agreed = log.epoch_end(position.last_fetched_epoch)
                if agreed < position.fetch_offset:
                    refuse(Reason.DIVERGED, "the log was cut", {"end_offset": str(agreed)})
            if position.fetch_offset > log.end:
                refuse(Reason.OFFSET_ABOVE_END, f"log ends at {log.end}")
        except PenstockError as error:
            self.errors.append(
                consumer_pb.ConsumedPartition(assignment_id=position.assignment_id, error=to_status(error))
            )
            return
        log.waiters[self.wake] = None
        self.assignments[position.assignment_id] = Assignment(log, position, position.fetch_offset, log.leader_epoch)

    def response(self) -> Any:
        response = consumer_pb.ConsumeResponse(partitions=self.errors)
        self.errors = []
        size = 0
        for number, assignment in list(self.assignments.items()):
            log = assignment.log
            try:
                self.broker.leads(assignment.position.topic_id, assignment.position.partition, assignment.leader_epoch)
            except PenstockError as error:
                del self.assignments[number]
                response.partitions.add(assignment_id=number, error=to_status(error))
                continue
            found = [b for b in log.batches if b.last_offset >= assignment.next_offset]
            if assignment.paused or not found:
                continue
            out = None
            for stored in found:
                if size >= self.max_bytes or self.credit_records <= 0 or self.credit_bytes <= 0:
                    break
                out = out or response.partitions.add(
                    assignment_id=number,
                    leader_epoch=log.leader_epoch,
                    high_watermark=log.end,
                    last_stable_offset=log.end,
                    log_start_offset=log.log_start_offset,
                )
                length = stored.batch.ByteSize()
                out.batches.append(stored)
                size += length
                self.credit_bytes -= length
                self.credit_records -= stored.batch.record_count
                assignment.next_offset = stored.last_offset + 1
                if self.broker.cluster.corrupt_reads:
                    self.broker.cluster.corrupt_reads -= 1
                    out.batches[-1].batch.crc32c ^= 1
        return response if response.partitions else None

    def end(self) -> None:
        for log in self.broker.cluster.logs.values():
            log.waiters.pop(self.wake, None)


class _Cut(asyncio.Event):
    """Set: the stream is to break."""

    def __init__(self, wake: asyncio.Event) -> None:
        super().__init__()
        self._wake = wake

    def set(self) -> None:
        super().set()
        self._wake.set()


@contextlib.asynccontextmanager
async def reference_cluster(nodes: int = 3) -> AsyncIterator[Cluster]:
    """Run a reference cluster."""
    cluster = Cluster(nodes)
    for node_id in range(1, nodes + 1):
        await Broker(cluster, node_id).start()
    try:
        yield cluster
    finally:
        cluster.answer_gate.set()
        for broker in cluster.brokers.values():
            await broker.stop()
