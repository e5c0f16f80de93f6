"""ListGroupHistory: the group's records in its partition of __offsets, read backwards in windows of offsets."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.node.api.paging import DEFAULT_PAGE, MAX_PAGE, decode_token, encode_token
from penstock.node.group.loading import records_of
from penstock.node.group.records import CommitRecord, OffsetsRecord, Rebalance
from penstock.node.partition import Partition, ReadRequest
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import TopicInfo
from penstock.storage import LogBatch
from penstock.v1 import common_pb2
from penstock.v1 import group_service_pb2 as pb

WINDOW = 20_000
"""Offsets read at a time."""
WINDOWS = 25
"""Read for one page: it is shorter then, and the next one goes on."""
READ_BYTES = 1024 * 1024


class _Seen(NamedTuple):
    """A record of the group."""

    offset: int
    timestamp_ms: int
    record: OffsetsRecord


async def history(
    request: pb.ListGroupHistoryRequest, partition: Partition, topics: Mapping[bytes, TopicInfo]
) -> pb.ListGroupHistoryResponse:
    """The latest events before the token's place, the oldest first."""
    if request.page_size > MAX_PAGE:
        raise PenstockError(Reason.INVALID_ARGUMENT, f"page_size {request.page_size} is above {MAX_PAGE}")
    size = request.page_size or DEFAULT_PAGE
    before = _before(request.page_token, partition.high_watermark)
    seen: list[_Seen] = []
    for _ in range(WINDOWS):
        start = max(partition.log_start_offset, before - WINDOW)
        if len(seen) > size or start >= before:
            break
        seen = await _window(partition, request.group_id, start, before) + seen
        before = start
    if len(seen) > size:
        seen = seen[-size:]
        before = seen[0].offset
    token = encode_token(str(before)) if before > partition.log_start_offset else ""
    return pb.ListGroupHistoryResponse(events=[_event(one, topics) for one in seen], next_page_token=token)


def _before(token: str, end: int) -> int:
    if not token:
        return end
    text = decode_token(token)
    if not text.isdecimal():
        raise PenstockError(Reason.INVALID_ARGUMENT, "page_token is not one that this service gave")
    return min(int(text), end)


async def _window(partition: Partition, group_id: str, start: int, end: int) -> list[_Seen]:
    """The group's records from `start` on, below `end`."""
    found: list[_Seen] = []
    while start < end:
        batches = await partition.read(ReadRequest(start, READ_BYTES, common_pb2.ISOLATION_READ_UNCOMMITTED))
        if not batches:
            break
        found += [one for one in await asyncio.to_thread(_of_group, batches, group_id) if start <= one.offset < end]
        start = batches[-1].last_offset + 1
    return found


def _of_group(batches: Sequence[LogBatch], group_id: str) -> list[_Seen]:
    return [
        _Seen(
            batch.base_offset + record.offset_delta, batch.header.base_timestamp_ms + record.timestamp_delta_ms, known
        )
        for batch in batches
        for record, known in records_of(batch)
        if known.group_id == group_id and (isinstance(known, CommitRecord) or known.rebalance is not None)
    ]


def _event(seen: _Seen, topics: Mapping[bytes, TopicInfo]) -> pb.GroupEvent:
    record = seen.record
    if isinstance(record, CommitRecord):
        return pb.GroupEvent(time_ms=seen.timestamp_ms, committed=_committed(record, topics))
    rebalance = record.rebalance or Rebalance(seen.timestamp_ms, "")
    shares = [pb.MemberShare(member_id=m, client_id=c, partitions=n) for m, c, n in rebalance.members]
    rebalanced = pb.GroupRebalanced(generation=record.generation, cause=rebalance.cause, members=shares)
    return pb.GroupEvent(time_ms=rebalance.time_ms, rebalanced=rebalanced)


def _committed(record: CommitRecord, topics: Mapping[bytes, TopicInfo]) -> pb.OffsetsCommitted:
    group_partition, commit = record.partition, record.commit
    topic = topics.get(group_partition.topic_id)
    event = pb.OffsetsCommitted(
        topic_id=group_partition.topic_id,
        topic="" if topic is None else topic.name,
        partition=group_partition.partition,
        removed=commit is None,
    )
    if commit is not None:
        event.offset, event.metadata, event.generation = commit.offset, commit.metadata, commit.generation
        event.member_id, event.client_id = commit.member_id, commit.client_id
    return event
