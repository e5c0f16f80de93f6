"""A small client of GroupService on plain stubs, as one in any language would be."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from penstock.client.devcluster import DevCluster
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Outcome, Reason
from penstock.v1 import (
    consumer_service_pb2_grpc,
    group_service_pb2_grpc,
    producer_service_pb2,
    producer_service_pb2_grpc,
    topic_service_pb2,
    topic_service_pb2_grpc,
)
from penstock.v1 import group_service_pb2 as pb

T = TypeVar("T")
TIMEOUT_S = 60
"""For what ends at once where all is well."""
HEARTBEAT_S = 0.2
NUMBERS = itertools.count(1)
Share = set[tuple[str, int]]


async def reason_of(call: Any) -> Reason:
    """How a call that must fail fails."""
    return (await failure_of(call)).reason


async def failure_of(call: Any) -> PenstockError:
    """Why a call that must fail fails."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return from_call(error)
    raise AssertionError(f"it was answered: {answer}")


async def persistently(call: Callable[[], Any]) -> Any:
    """Repeat a call while its error is one that goes by."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if from_call(error).outcome is Outcome.DEFINITE:
                raise
        await asyncio.sleep(0.02)


class Nodes:
    """Stubs to the nodes of a cluster, and what a test needs beside groups."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        self.channels = {node.node_id: grpc.aio.insecure_channel(node.client) for node in cluster.plan.nodes}
        self.groups = {
            node_id: group_service_pb2_grpc.GroupServiceStub(channel) for node_id, channel in self.channels.items()
        }
        self.any = self.groups[min(self.groups)]

    async def __aenter__(self) -> Self:
        """Connect as needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        for channel in self.channels.values():
            await channel.close()

    async def topic(self, partitions: int = 1, records: int = 0) -> topic_service_pb2.Topic:
        """Make a topic; with so many records in partition 0."""
        channel = self.channels[min(self.channels)]
        name = f"read-{next(NUMBERS)}"
        topics = topic_service_pb2_grpc.TopicServiceStub(channel)
        request = topic_service_pb2.CreateTopicRequest(name=name, partitions=partitions, request_id=name)
        topic = (await persistently(lambda: topics.CreateTopic(request, timeout=TIMEOUT_S))).topic
        if records:
            producer = producer_service_pb2_grpc.ProducerServiceStub(channel)
            publish = producer_service_pb2.PublishRequest(topic=name, partition=0, request_id=name)
            for number in range(records):
                publish.records.add(value=b"%d" % number)
            await persistently(lambda: producer.Publish(publish, timeout=TIMEOUT_S))
        return topic  # type: ignore[no-any-return]

    async def coordinator(self, group_id: str) -> int:
        """The node that coordinates a group."""
        request = pb.FindCoordinatorRequest(group_id=group_id)
        return int((await persistently(lambda: self.any.FindCoordinator(request, timeout=TIMEOUT_S))).node_id)

    def away_from(self, node_id: int) -> "group_service_pb2_grpc.GroupServiceAsyncStub":
        """A stub to another node."""
        return next(stub for other, stub in self.groups.items() if other != node_id)

    def consumer(self, node_id: int) -> "consumer_service_pb2_grpc.ConsumerServiceAsyncStub":
        """A stub to a node's ConsumerService."""
        return consumer_service_pb2_grpc.ConsumerServiceStub(self.channels[node_id])

    async def commit(
        self, group_id: str, offsets: Mapping[tuple[bytes, int], int], **fields: Any
    ) -> list[Reason | None]:
        """Commit by a unary call; the reason of each refusal."""
        request = pb.CommitOffsetsRequest(group_id=group_id, **fields)
        for (topic_id, partition), offset in offsets.items():
            request.offsets.add(topic_id=topic_id, partition=partition, offset=offset)
        response = await persistently(lambda: self.any.CommitOffsets(request, timeout=TIMEOUT_S))
        return results_of(response.results)

    async def fetch(self, group_id: str) -> dict[tuple[str, int], int]:
        """What is committed."""
        request = pb.FetchOffsetsRequest(group_id=group_id)
        response = await persistently(lambda: self.any.FetchOffsets(request, timeout=TIMEOUT_S))
        return {(one.topic, one.partition): one.committed.offset for one in response.offsets}


def results_of(results: Any) -> list[Reason | None]:
    """The reason of each refusal."""
    return [from_status(one.error).reason if one.HasField("error") else None for one in results]


class Member:
    """One member, on one stream after the other; gives up at once what it is to give up."""

    def __init__(self, nodes: Nodes, group_id: str, member_id: str, topics: list[str], **start: Any) -> None:
        self._nodes = nodes
        self.start = pb.JoinStart(group_id=group_id, member_id=member_id, **start)
        self.start.subscription.topics.extend(topics)
        self.generation = 0
        self.share: Share = set()
        self.granted: dict[tuple[str, int], int] = {}
        self.committed: dict[tuple[str, int], int] = {}
        self.commits: list[pb.MemberCommitResult] = []
        self.acknowledged = 0
        self._beaten = 0
        self.error: PenstockError | None = None
        self.releases = True
        self.beats = True
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._stream: Any = None
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> Self:
        """Begin to be a member, or go on as one."""
        self._task = asyncio.create_task(self._run())
        await self.until(lambda: self.generation > 0)
        return self

    async def _run(self) -> None:
        while True:
            try:
                await self._one_stream()
            except grpc.aio.AioRpcError as error:
                self.error = from_call(error)
                if self.error.outcome is Outcome.DEFINITE:
                    self._tell()
                    return
            else:
                self.error = None
                self._tell()
                return
            await asyncio.sleep(0.05)

    async def _one_stream(self) -> None:
        node_id = await self._nodes.coordinator(self.start.group_id)
        self.start.generation = self.generation
        self._stream = self._nodes.groups[node_id].Join()
        await self.send(start=self.start)
        beating = asyncio.create_task(self._beat(self._stream))
        try:
            while (response := await self._stream.read()) is not grpc.aio.EOF:
                await self._take(response)
        finally:
            beating.cancel()
        if await self._stream.code() is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                await self._stream.code(),
                await self._stream.initial_metadata(),
                await self._stream.trailing_metadata(),
                await self._stream.details(),
            )

    async def _take(self, response: pb.JoinResponse) -> None:
        kind = response.WhichOneof("response")
        if kind == "joined":
            self.generation = max(self.generation, response.joined.generation)
        elif kind == "heartbeat_ack":
            self.acknowledged = response.heartbeat_ack.sequence
        elif kind == "commit_result":
            self.commits.append(response.commit_result)
        elif kind == "assignment":
            assignment = response.assignment
            self.generation = assignment.generation
            self.share = {(one.topic, one.partition) for one in assignment.partitions}
            for one in assignment.partitions:
                self.granted[one.topic, one.partition] = one.granted_generation
                if one.HasField("committed"):
                    self.committed[one.topic, one.partition] = one.committed.offset
            if assignment.revoked and self.releases:
                release = pb.ReleasePartitions(generation=assignment.generation, partitions=assignment.revoked)
                await self.send(release=release)
        self._tell()

    async def _beat(self, stream: Any) -> None:
        """Heartbeats on a stream while it lives."""
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while self.beats:
                await asyncio.sleep(HEARTBEAT_S)
                self._beaten += 1
                async with self._writing:
                    beat = pb.MemberHeartbeat(sequence=self._beaten)
                    await stream.write(pb.JoinRequest(heartbeat=beat))

    def _tell(self) -> None:
        self._changed.set()

    async def send(self, **request: Any) -> None:
        """Send something on the stream."""
        async with self._writing:
            await self._stream.write(pb.JoinRequest(**request))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; an error that ended the membership ends the wait."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                if self._task is not None and self._task.done():
                    raise self.error or AssertionError("the stream ended")
                self._changed.clear()
                await self._changed.wait()

    async def acknowledges(self) -> None:
        """Wait until a coordinator has answered a heartbeat that is sent from now on."""
        sent = self._beaten
        await self.until(lambda: self.acknowledged > sent)

    async def has(self, share: int) -> None:
        """Wait until it has so many partitions."""
        await self.until(lambda: len(self.share) == share)

    async def ended(self) -> PenstockError | None:
        """Wait until the stream has ended for good."""
        assert self._task is not None
        async with asyncio.timeout(TIMEOUT_S):
            await self._task
        return self.error

    async def stop(self) -> None:
        """Be gone without a word."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
