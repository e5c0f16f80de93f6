"""Commands of the metadata state machine to and from bytes: the entries of the Raft log.

Owns: which kinds exist, and the feature level that each needs. Never: decides anything (`raft.state`).
"""

from google.protobuf.message import DecodeError, Message

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.v1 import common_pb2 as common

SUPPORTED_LEVEL = 4
"""Highest feature level that this software knows. A command with a new meaning needs a higher one."""

REASSIGNMENT_LEVEL = 2
"""Feature level from which on partitions are reassigned."""

COMPACTION_LEVEL = 3
"""Feature level from which on topics are compacted, with the settings for it, and stores tell how full they are."""

GROUP_LEVEL = 4
"""Feature level from which on there are consumer groups."""

_LEVELS = {
    "genesis": 0,
    "reassign_partitions": REASSIGNMENT_LEVEL,
    "complete_reassignments": REASSIGNMENT_LEVEL,
    "note_store_state": COMPACTION_LEVEL,
    "alter_groups": GROUP_LEVEL,
}
"""Feature level that a kind needs where it is not 1."""

_WITH_CONFIG = frozenset({"create_topic", "alter_topic_config"})
_FIRST_SETTING_OF_COMPACTION = pb.StoredTopicConfig.DELETE_RETENTION_MS_FIELD_NUMBER

Refusal = pb.Refusal
Result = pb.MetadataResult


class UnknownCommandError(Exception):
    """This software cannot apply what the cluster has committed: the node must stop and be upgraded."""


def encode(command: pb.MetadataCommand) -> bytes:
    """Return the log entry of a command, with the feature level that it needs."""
    stamped = pb.MetadataCommand()
    stamped.CopyFrom(command)
    stamped.feature_level = level_of(command)
    return stamped.SerializeToString(deterministic=True)


def decode(data: bytes) -> pb.MetadataCommand | None:
    """Return the command, or None for bytes that are no MetadataCommand in any version."""
    try:
        return pb.MetadataCommand.FromString(data)
    except DecodeError:
        return None


def level_of(command: pb.MetadataCommand) -> int:
    """Return the least feature level of a cluster that may apply the command."""
    kind = command.WhichOneof("kind")
    known = _LEVELS.get(kind, 1) if kind else 0
    if kind in _WITH_CONFIG:
        known = _level_of_config(getattr(command, kind).config)
    return max(known, command.feature_level)


def _level_of_config(config: pb.StoredTopicConfig) -> int:
    """Level 3 where it says what software of a lower one would drop or not act on."""
    newer = any(field.number >= _FIRST_SETTING_OF_COMPACTION for field, _ in config.ListFields())
    return COMPACTION_LEVEL if newer or config.cleanup_policy > common.CLEANUP_POLICY_DELETE else 1


def body(command: pb.MetadataCommand) -> tuple[str, Message]:
    """Return kind and content of a command. Raises UnknownCommandError where this software knows no such kind."""
    kind = command.WhichOneof("kind")
    if kind is None:
        text = (
            "the cluster has committed a metadata command of a kind that this version does not know: upgrade this node"
        )
        raise UnknownCommandError(text)
    content: Message = getattr(command, kind)
    return kind, content


def decode_result(data: bytes) -> pb.MetadataResult:
    """Read what `apply` answered."""
    return pb.MetadataResult.FromString(data)
