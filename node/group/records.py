"""The records of the internal topic __offsets, to and from their bytes (internal/v1/offsets.proto). Pure.

Equal keys have equal bytes: compaction goes by them. A record without a value is a tombstone.
"""

from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from penstock.internal.v1 import offsets_pb2 as pb
from penstock.raft.image import GroupInfo, GroupPartition

KEYS_KEPT = 65_536
"""Keys whose other form is remembered: the same ones come again and again."""


class InvalidRecordError(ValueError):
    """The bytes are no record of __offsets."""


class Commit(NamedTuple):
    """A committed offset. `offset`: of the next record to read."""

    offset: int
    leader_epoch: int | None = None
    metadata: str = ""
    commit_time_ms: int = 0
    member_id: str = ""
    client_id: str = ""
    generation: int = 0
    sequence: int = 0
    """Of the member's commits; 0: not checked."""


class Share(NamedTuple):
    """How many partitions a member is to have."""

    member_id: str
    client_id: str
    partitions: int


class Rebalance(NamedTuple):
    """A new generation, for the history."""

    time_ms: int
    cause: str
    members: tuple[Share, ...] = ()


class CommitRecord(NamedTuple):
    """`commit` None: the offset is deleted."""

    group_id: str
    partition: GroupPartition
    commit: Commit | None


class RebalanceRecord(NamedTuple):
    """`rebalance` None: forgotten."""

    group_id: str
    generation: int
    rebalance: Rebalance | None


OffsetsRecord = CommitRecord | RebalanceRecord


def rebalance_of(group: GroupInfo) -> RebalanceRecord:
    """What the history keeps of a group's present generation."""
    shares = tuple(Share(m.member_id, m.client_id, len(m.target)) for m in group.members.values())
    return RebalanceRecord(group.group_id, group.generation, Rebalance(group.rebalanced_ms, group.cause, shares))


def encode(record: OffsetsRecord) -> tuple[bytes, bytes | None]:
    """Key and value."""
    if isinstance(record, CommitRecord):
        return commit_key(record.group_id, record.partition), _commit_value(record.commit)
    return rebalance_key(record.group_id, record.generation), _rebalance_value(record.rebalance)


@lru_cache(maxsize=KEYS_KEPT)
def commit_key(group_id: str, partition: GroupPartition) -> bytes:
    """Key of a committed offset."""
    key = pb.CommitKey(group_id=group_id, topic_id=partition.topic_id, partition=partition.partition)
    return pb.OffsetsKey(commit=key).SerializeToString(deterministic=True)


def rebalance_key(group_id: str, generation: int) -> bytes:
    """Key of a generation."""
    key = pb.RebalanceKey(group_id=group_id, generation=generation)
    return pb.OffsetsKey(rebalance=key).SerializeToString(deterministic=True)


def _commit_value(commit: Commit | None) -> bytes | None:
    if commit is None:
        return None
    offset, leader_epoch, metadata, time_ms, member_id, client_id, generation, sequence = commit
    return pb.CommitValue(
        offset=offset,
        leader_epoch=leader_epoch,
        metadata=metadata,
        commit_time_ms=time_ms,
        member_id=member_id,
        client_id=client_id,
        generation=generation,
        sequence=sequence,
    ).SerializeToString()


def _rebalance_value(rebalance: Rebalance | None) -> bytes | None:
    if rebalance is None:
        return None
    shares = [pb.RebalanceShare(member_id=m, client_id=c, partitions=n) for m, c, n in rebalance.members]
    return pb.RebalanceValue(time_ms=rebalance.time_ms, cause=rebalance.cause, members=shares).SerializeToString()


def decode(key: bytes, value: bytes | None) -> OffsetsRecord | None:
    """Read a record; None: of a kind that this version does not know. Raises InvalidRecordError."""
    try:
        known = _read_key(key)
        if known is None:
            return None
        group_id, subject = known
        if isinstance(subject, GroupPartition):
            return CommitRecord(group_id, subject, None if value is None else _read_commit(value))
        return RebalanceRecord(group_id, subject, None if value is None else _read_rebalance(value))
    except DecodeError as error:
        raise InvalidRecordError(f"no record of __offsets: {error}") from error


@lru_cache(maxsize=KEYS_KEPT)
def _read_key(key: bytes) -> tuple[str, GroupPartition | int] | None:
    """Group, and the partition of a commit or the generation of a rebalance."""
    message = pb.OffsetsKey.FromString(key)
    kind = message.WhichOneof("kind")
    if kind == "commit":
        commit = message.commit
        return commit.group_id, GroupPartition(commit.topic_id, commit.partition)
    if kind == "rebalance":
        return message.rebalance.group_id, message.rebalance.generation
    return None


def _read_commit(value: bytes) -> Commit:
    message = pb.CommitValue.FromString(value)
    return Commit(
        message.offset,
        message.leader_epoch if message.HasField("leader_epoch") else None,
        message.metadata,
        message.commit_time_ms,
        message.member_id,
        message.client_id,
        message.generation,
        message.sequence,
    )


def _read_rebalance(value: bytes) -> Rebalance:
    message = pb.RebalanceValue.FromString(value)
    shares = tuple(Share(share.member_id, share.client_id, share.partitions) for share in message.members)
    return Rebalance(message.time_ms, message.cause, shares)
