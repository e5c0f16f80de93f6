"""Publish: plain records to batches, to the partition's leader wherever it is.

Safe to repeat with a request_id: every choice made here (partition, producer stamp) follows from the request alone.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import grpc

from penstock.internal.v1 import forward_pb2, forward_pb2_grpc
from penstock.node.api.admission import check_records, check_size
from penstock.node.api.locate import Locator, partition_of_topic
from penstock.node.api.status import Context
from penstock.node.clock import loop_s, monotonic_ms, wall_ms
from penstock.node.config import Limits
from penstock.node.partition import AppendRequest, AppendResult
from penstock.protocol.batch import NOT_STAMPED, NewRecord, build, header_of, request_stamp
from penstock.protocol.calls import answer_of
from penstock.protocol.errors import PenstockError
from penstock.protocol.keys import partition_of
from penstock.protocol.limits import MAX_BATCH_RECORDS
from penstock.protocol.reasons import Outcome, Reason
from penstock.raft.image import TopicInfo
from penstock.v1 import common_pb2
from penstock.v1 import producer_service_pb2 as pb

RETRY_INTERVAL_S = 0.05
MAX_REQUEST_ID = 256
_ELSEWHERE = {Reason.NOT_LEADER, Reason.LEADER_NOT_AVAILABLE, Reason.NOT_SERVING, Reason.STALE_LEADER_EPOCH}


class Publisher:
    """Serves Publish on any node, and the leader's end of a forwarded one."""

    def __init__(
        self,
        node_id: int,
        locator: Locator,
        channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]],
        limits: Limits,
    ) -> None:
        self._node_id = node_id
        self._locator = locator
        self._channel_to = channel_to
        self.limit_s = limits.produce_timeout_max_ms / 1000
        self._rotation = itertools.count()

    async def publish(self, request: pb.PublishRequest, time_remaining_s: float | None) -> pb.PublishResponse:
        """Append the records, each partition's at once, acknowledged by all in-sync replicas."""
        topic = self._locator.topic_named(request.topic)
        _validate(request)
        check_records(topic, request.records, wall_ms())  # before any partition has appended its part
        groups = self._group(request, topic)
        deadline = loop_s() + min(self.limit_s, time_remaining_s or self.limit_s)
        outcomes = await asyncio.gather(
            *(self._to_leader(_part(request, p, indexes), topic, deadline) for p, indexes in groups.items()),
            return_exceptions=True,
        )
        return _merge(request, list(groups.values()), outcomes)

    def _group(self, request: pb.PublishRequest, topic: TopicInfo) -> dict[int, list[int]]:
        """Indexes of the records by partition."""
        if request.HasField("partition"):
            partition_of_topic(topic, request.partition)
            return {request.partition: list(range(len(request.records)))}
        count = len(topic.partitions)
        keyless = (
            partition_of(request.request_id.encode(), count) if request.request_id else next(self._rotation) % count
        )
        groups: dict[int, list[int]] = {}
        for index, record in enumerate(request.records):
            partition = partition_of(record.key, count) if record.HasField("key") else keyless
            groups.setdefault(partition, []).append(index)
        return groups

    async def _to_leader(
        self, request: pb.PublishRequest, topic: TopicInfo, deadline: float
    ) -> Sequence[pb.PublishedRecord]:
        """Append at the leader, following it while nothing was appended (or anything, where a repeat is harmless)."""
        repeatable = bool(request.request_id)
        while True:
            try:
                return await self._once(request, topic, deadline)
            except PenstockError as error:
                again = error.reason in _ELSEWHERE or (repeatable and error.outcome is Outcome.UNKNOWN)
                if not again or loop_s() + RETRY_INTERVAL_S >= deadline:
                    raise
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _once(
        self, request: pb.PublishRequest, topic: TopicInfo, deadline: float
    ) -> Sequence[pb.PublishedRecord]:
        _, info = self._locator.known(topic.topic_id, request.partition)
        if info.leader == self._node_id:
            return await self.append_here(request, topic.topic_id, deadline - loop_s())
        channel = await self._channel_to(info.leader)
        if channel is None:
            raise PenstockError(
                Reason.LEADER_NOT_AVAILABLE, f"partition {request.partition} of {topic.name!r} has no leader now"
            )
        stub = forward_pb2_grpc.ForwardServiceStub(channel)
        forward = forward_pb2.ForwardPublishRequest(publish=request, topic_id=topic.topic_id)
        response = await answer_of(stub.ForwardPublish(forward, timeout=max(0.001, deadline - loop_s())))
        return response.publish.records

    async def append_here(
        self, request: pb.PublishRequest, topic_id: bytes, timeout_s: float
    ) -> list[pb.PublishedRecord]:
        """Append the records as one batch to the partition, which this node must lead."""
        partition = self._locator.leader_of(topic_id, request.partition)
        topic, now_ms = self._locator.topic_of(topic_id), wall_ms()
        check_records(topic, request.records, now_ms)  # by the leader's settings and clock: those count
        records = [_new_record(record, now_ms) for record in request.records]
        stamp = request_stamp(request.request_id) if request.request_id else NOT_STAMPED
        batch = build(records, stamp=stamp)
        payload = batch.SerializeToString()
        check_size(topic, len(payload))
        future: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()
        partition.append(
            AppendRequest(
                header=header_of(batch),
                payload=payload,
                acks=common_pb2.ACKS_ALL,
                now_ms=now_ms,
                deadline_ms=monotonic_ms() + int(timeout_s * 1000),
                expected_offset=request.expected_offset if request.HasField("expected_offset") else None,
                timestamp_type=topic.config.timestamp_type,
            ),
            partial(_settle, future),
        )
        result = await future
        return [
            pb.PublishedRecord(
                partition=request.partition, offset=result.base_offset + index, duplicate=result.duplicate
            )
            for index in range(len(records))
        ]


class ForwardService(forward_pb2_grpc.ForwardServiceServicer):
    """The leader's end of a forwarded Publish, on the peer listener."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def ForwardPublish(  # noqa: N802  the generated name
        self, request: forward_pb2.ForwardPublishRequest, context: Context
    ) -> forward_pb2.ForwardPublishResponse:
        """Append here; NOT_LEADER where this node does not lead (any more)."""
        timeout_s = context.time_remaining() or self._publisher.limit_s  # None: the sender set no deadline
        records = await self._publisher.append_here(request.publish, request.topic_id, timeout_s)
        return forward_pb2.ForwardPublishResponse(publish=pb.PublishResponse(records=records))


def _settle(future: "asyncio.Future[AppendResult]", outcome: AppendResult | PenstockError) -> None:
    if future.done():  # the caller has gone
        return
    if isinstance(outcome, PenstockError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _validate(request: pb.PublishRequest) -> None:
    if not request.records:
        raise PenstockError(Reason.INVALID_ARGUMENT, "records is empty")
    if len(request.records) > MAX_BATCH_RECORDS:
        text = f"{len(request.records)} records in one request, the limit is {MAX_BATCH_RECORDS}"
        raise PenstockError(Reason.RECORD_TOO_LARGE, text)
    if request.HasField("expected_offset") and not request.HasField("partition"):
        raise PenstockError(Reason.INVALID_ARGUMENT, "expected_offset needs partition")
    if len(request.request_id) > MAX_REQUEST_ID:
        text = f"request_id has {len(request.request_id)} characters, the limit is {MAX_REQUEST_ID}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)


def _part(request: pb.PublishRequest, partition: int, indexes: list[int]) -> pb.PublishRequest:
    """The request for one partition's share of the records."""
    part = pb.PublishRequest(topic=request.topic, partition=partition, request_id=request.request_id)
    part.records.extend(request.records[index] for index in indexes)
    if request.HasField("expected_offset"):
        part.expected_offset = request.expected_offset
    return part


def _new_record(record: pb.PublishRecord, now_ms: int) -> NewRecord:
    return NewRecord(
        record.key if record.HasField("key") else None,
        record.value if record.HasField("value") else None,
        record.timestamp_ms if record.HasField("timestamp_ms") else now_ms,
        [(header.key, header.value if header.HasField("value") else None) for header in record.headers],
    )


def _merge(
    request: pb.PublishRequest,
    groups: list[list[int]],
    outcomes: "Sequence[Sequence[pb.PublishedRecord] | BaseException]",
) -> pb.PublishResponse:
    """Put the partitions' answers in the order of the records; an error where any partition failed."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if failures:
        first = failures[0]
        if len(failures) == len(outcomes) or not isinstance(first, PenstockError):
            raise first
        text = f"{len(failures)} of {len(outcomes)} partitions failed, the others were appended; first failure: {first}"
        raise PenstockError(Reason.OUTCOME_UNKNOWN, text)
    placed: list[pb.PublishedRecord] = [pb.PublishedRecord()] * len(request.records)
    for indexes, records in zip(groups, outcomes, strict=True):
        if not isinstance(records, BaseException):
            for index, record in zip(indexes, records, strict=True):
                placed[index] = record
    return pb.PublishResponse(records=placed)
