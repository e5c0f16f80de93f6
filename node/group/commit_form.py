"""The form of a CommitOffsets request, before anything is known of the group. Pure."""

from collections.abc import Mapping

from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_GROUP_OFFSETS, MAX_OFFSET_METADATA
from penstock.protocol.reasons import Reason
from penstock.raft.image import TopicInfo
from penstock.v1 import group_service_pb2 as pb

TOPIC_ID_BYTES = 16


def check_request(request: pb.CommitOffsetsRequest) -> None:
    """Raise INVALID_ARGUMENT for what makes the whole request senseless."""
    count = len(request.offsets)
    if not count:
        raise PenstockError(Reason.INVALID_ARGUMENT, "offsets is empty")
    if count > MAX_GROUP_OFFSETS:
        text = f"{count} offsets in one request, the limit is {MAX_GROUP_OFFSETS}"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)


def form_errors(request: pb.CommitOffsetsRequest, topics: Mapping[bytes, TopicInfo]) -> dict[int, PenstockError]:
    """What is wrong with single offsets, by their index."""
    errors: dict[int, PenstockError] = {}
    seen: set[tuple[bytes, int]] = set()
    for index, item in enumerate(request.offsets):
        key = (item.topic_id, item.partition)
        error = _form_error(item, topics)
        if error is None and key in seen:
            text = f"partition {item.partition} of {topics[item.topic_id].name!r} is there twice"
            error = PenstockError(Reason.INVALID_ARGUMENT, text)
        seen.add(key)
        if error is not None:
            errors[index] = error
    return errors


def is_any_good(request: pb.CommitOffsetsRequest, topics: Mapping[bytes, TopicInfo]) -> bool:
    """Whether there is an offset in it with nothing wrong. Raises INVALID_ARGUMENT as `check_request`."""
    check_request(request)
    return len(form_errors(request, topics)) < len(request.offsets)


def _form_error(item: pb.OffsetCommit, topics: Mapping[bytes, TopicInfo]) -> PenstockError | None:
    topic = topics.get(item.topic_id)
    if topic is None:
        return unknown_topic(item.topic_id)
    if item.partition >= len(topic.partitions):
        text = f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {item.partition}"
        metadata = {"topic": topic.name, "partition": str(item.partition)}
        return PenstockError(Reason.UNKNOWN_PARTITION, text, metadata)
    if item.offset < 0:
        return PenstockError(Reason.INVALID_ARGUMENT, f"offset {item.offset} is negative")
    if len(item.metadata) * 4 > MAX_OFFSET_METADATA and len(item.metadata.encode()) > MAX_OFFSET_METADATA:
        size = len(item.metadata.encode())
        return PenstockError(Reason.INVALID_ARGUMENT, f"metadata has {size} bytes, the limit is {MAX_OFFSET_METADATA}")
    return None


def unknown_topic(topic_id: bytes) -> PenstockError:
    """UNKNOWN_TOPIC; INVALID_ARGUMENT for what is no id."""
    if len(topic_id) != TOPIC_ID_BYTES:
        return PenstockError(Reason.INVALID_ARGUMENT, f"topic_id has {len(topic_id)} bytes, not {TOPIC_ID_BYTES}")
    text = f"no topic has the id {topic_id.hex()}; it may have been deleted and created again"
    return PenstockError(Reason.UNKNOWN_TOPIC, text, {"topic_id": topic_id.hex()})


def unknown_group(group_id: str) -> PenstockError:
    """UNKNOWN_GROUP."""
    return PenstockError(Reason.UNKNOWN_GROUP, f"there is no group {group_id!r}", {"group_id": group_id})
