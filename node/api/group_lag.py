"""How far a group is behind: its committed offsets beside the ends that the partitions' leaders tell."""

from collections.abc import Iterable, Sequence

from penstock.node.api.leader_offsets import Found, LeaderOffsets, query_of
from penstock.protocol.errors import PenstockError, to_status
from penstock.v1 import consumer_service_pb2 as consumer
from penstock.v1 import group_service_pb2 as pb


async def add_lag(rows: Sequence[pb.GroupPartition], leaders: LeaderOffsets, now_ms: int, timeout_s: float) -> None:
    """Add the ends, and the lag where something is committed. What a leader does not tell is an error in its row."""
    bounds = await leaders.find([query for row in rows for query in _bound_queries(row)], timeout_s)
    behind: list[tuple[pb.GroupPartition, int]] = []
    for row, start, end in zip(rows, bounds[::2], bounds[1::2], strict=True):
        _add_bounds(row, start, end)
        if row.HasField("lag") and row.lag:
            behind.append((row, max(row.committed.offset, row.log_start_offset)))
        elif row.HasField("lag"):
            row.lag_time.FromMilliseconds(0)
    await _add_times(behind, leaders, now_ms, timeout_s)


async def _add_times(
    behind: Sequence[tuple[pb.GroupPartition, int]], leaders: LeaderOffsets, now_ms: int, timeout_s: float
) -> None:
    """How long ago the next record was written. There may be none: compaction leaves offsets without records."""
    places = [query_of(row.topic_id, row.partition, offset=offset) for row, offset in behind]
    found = await leaders.find(places, timeout_s)
    for (row, _), answer in zip(behind, found, strict=True):
        if isinstance(answer, PenstockError):
            row.error.CopyFrom(to_status(answer))
        elif answer.HasField("timestamp_ms"):
            row.lag_time.FromMilliseconds(max(0, now_ms - answer.timestamp_ms))
        else:
            row.lag_time.FromMilliseconds(0)


def _bound_queries(row: pb.GroupPartition) -> Iterable[consumer.OffsetQuery]:
    yield query_of(row.topic_id, row.partition, earliest=consumer.EarliestOffset())
    yield query_of(row.topic_id, row.partition, latest=consumer.LatestOffset())


def _add_bounds(row: pb.GroupPartition, start: Found, end: Found) -> None:
    for answer in (start, end):
        if isinstance(answer, PenstockError):
            row.error.CopyFrom(to_status(answer))
            return
    if isinstance(start, PenstockError) or isinstance(end, PenstockError):
        return
    row.log_start_offset, row.log_end_offset = start.offset, end.offset
    if row.HasField("committed"):
        row.lag = max(0, end.offset - max(row.committed.offset, start.offset))
