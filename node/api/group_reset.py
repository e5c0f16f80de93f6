"""ResetOffsets: where the committed offsets of a group without members are to go, and the commit that moves them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstock.node.api.group_messages import in_order
from penstock.node.api.leader_offsets import LeaderOffsets, query_of
from penstock.node.group.committing import CommitCheck
from penstock.node.group.coordinator import Coordinator
from penstock.protocol.errors import PenstockError, from_status, to_status
from penstock.protocol.limits import MAX_GROUP_OFFSETS
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition, MetadataImage, TopicInfo
from penstock.v1 import consumer_service_pb2 as consumer
from penstock.v1 import group_service_pb2 as pb


class _Bounds(NamedTuple):
    """Of a log."""

    start: int
    end: int


async def reset(
    request: pb.ResetOffsetsRequest,
    coordinator: Coordinator,
    image: MetadataImage,
    leaders: LeaderOffsets,
    timeout_s: float,
) -> pb.ResetOffsetsResponse:
    """Move them, or with validate_only say where they would go. Each partition has its own error."""
    if request.WhichOneof("to") is None:
        text = "say where to: one of earliest, latest, timestamp_ms, offset, shift"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    group = image.groups[request.group_id]
    refusal = CommitCheck(group, "", 0).of_nobody(is_joined=False, is_deleting=False)
    if refusal is not None:
        raise refusal
    committed = coordinator.offsets(request.group_id)
    chosen = _chosen(request, image, committed)
    targets = await _targets(request, chosen, committed, leaders, timeout_s)
    if not request.validate_only:
        await _commit(request.group_id, targets, coordinator)
    resets = []
    for partition in in_order(chosen, image.topics):
        target = targets[partition]
        former = committed.get(partition)
        resets.append(
            pb.OffsetReset(
                topic_id=partition.topic_id,
                topic=image.topics[partition.topic_id].name,
                partition=partition.partition,
                previous_offset=None if former is None else former.offset,
                offset=0 if isinstance(target, PenstockError) else target,
                error=to_status(target) if isinstance(target, PenstockError) else None,
            )
        )
    return pb.ResetOffsetsResponse(resets=resets)


def _chosen(
    request: pb.ResetOffsetsRequest, image: MetadataImage, committed: Mapping[GroupPartition, object]
) -> set[GroupPartition]:
    """Raises UNKNOWN_TOPIC, UNKNOWN_PARTITION: nothing is moved when something is named that does not exist."""
    chosen = set()
    for name in request.topics:
        topic = _topic_named(image, name)
        chosen |= {GroupPartition(topic.topic_id, info.partition) for info in topic.partitions}
    for item in request.partitions:
        topic_found = image.topics.get(item.topic_id)
        if topic_found is None:
            raise PenstockError(Reason.UNKNOWN_TOPIC, f"no topic has the id {item.topic_id.hex()}")
        if item.partition >= len(topic_found.partitions):
            text = f"topic {topic_found.name!r} has partitions 0 to {len(topic_found.partitions) - 1}"
            raise PenstockError(Reason.UNKNOWN_PARTITION, f"{text}, not {item.partition}")
        chosen.add(GroupPartition(item.topic_id, item.partition))
    if not request.topics and not request.partitions:
        chosen = {partition for partition in committed if partition.topic_id in image.topics}
    if len(chosen) > MAX_GROUP_OFFSETS:
        text = f"{len(chosen)} partitions in one request, the limit is {MAX_GROUP_OFFSETS}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
    return chosen


def _topic_named(image: MetadataImage, name: str) -> TopicInfo:
    topic = image.topics.get(image.topic_ids.get(name, b""))
    if topic is None:
        raise PenstockError(Reason.UNKNOWN_TOPIC, f"no topic is named {name!r}", {"topic": name})
    return topic


async def _targets(
    request: pb.ResetOffsetsRequest,
    chosen: set[GroupPartition],
    committed: Mapping[GroupPartition, pb.CommittedOffset],
    leaders: LeaderOffsets,
    timeout_s: float,
) -> dict[GroupPartition, "int | PenstockError"]:
    """Where each goes, or why it cannot."""
    partitions = sorted(chosen)
    to = request.WhichOneof("to")
    if to in {"earliest", "latest", "timestamp_ms"}:
        position = {to: getattr(request, to)}
        found = await leaders.find([query_of(*partition, **position) for partition in partitions], timeout_s)
        answers = [answer if isinstance(answer, PenstockError) else answer.offset for answer in found]
        return dict(zip(partitions, answers, strict=True))
    bounds = await _bounds(partitions, leaders, timeout_s)
    return {partition: _within(request, bounds[partition], committed.get(partition)) for partition in partitions}


async def _bounds(
    partitions: Sequence[GroupPartition], leaders: LeaderOffsets, timeout_s: float
) -> dict[GroupPartition, "_Bounds | PenstockError"]:
    ends = [
        query_of(*partition, **position)
        for partition in partitions
        for position in ({"earliest": consumer.EarliestOffset()}, {"latest": consumer.LatestOffset()})
    ]
    found = await leaders.find(ends, timeout_s)
    bounds: dict[GroupPartition, _Bounds | PenstockError] = {}
    for partition, start, end in zip(partitions, found[::2], found[1::2], strict=True):
        if isinstance(start, PenstockError):
            bounds[partition] = start
        elif isinstance(end, PenstockError):
            bounds[partition] = end
        else:
            bounds[partition] = _Bounds(start.offset, end.offset)
    return bounds


def _within(
    request: pb.ResetOffsetsRequest, bounds: "_Bounds | PenstockError", former: pb.CommittedOffset | None
) -> "int | PenstockError":
    """The offset that was named, which must be in the log; or the shifted one, as far as the log goes."""
    if isinstance(bounds, PenstockError):
        return bounds
    if request.WhichOneof("to") == "shift":
        if former is None:
            return PenstockError(Reason.INVALID_ARGUMENT, "nothing is committed that could be shifted")
        return min(max(former.offset + request.shift, bounds.start), bounds.end)
    if request.offset < 0:
        return PenstockError(Reason.INVALID_ARGUMENT, f"offset {request.offset} is negative")
    if request.offset < bounds.start:
        text = f"offset {request.offset} is below the log start {bounds.start}"
        return PenstockError(Reason.OFFSET_BELOW_START, text, {"log_start_offset": str(bounds.start)})
    if request.offset > bounds.end:
        text = f"offset {request.offset} is above the log end {bounds.end}"
        return PenstockError(Reason.OFFSET_ABOVE_END, text, {"high_watermark": str(bounds.end)})
    return request.offset


async def _commit(
    group_id: str, targets: dict[GroupPartition, "int | PenstockError"], coordinator: Coordinator
) -> None:
    """Commit what has a target; a failure takes its place."""
    moved = {partition: target for partition, target in targets.items() if not isinstance(target, PenstockError)}
    if not moved:
        return
    commits = [pb.OffsetCommit(topic_id=p.topic_id, partition=p.partition, offset=moved[p]) for p in moved]
    results = await coordinator.commit(pb.CommitOffsetsRequest(group_id=group_id, offsets=commits), "")
    for partition, result in zip(moved, results, strict=True):
        if result.HasField("error"):
            targets[partition] = from_status(result.error)
