"""The metadata state machine: one image and one command make the next image and a result. Pure.

Total and deterministic: no clock, no random, no IO; whatever a command holds, the outcome is a value, and a refused
command changes nothing but the version. The one exception is a command that the cluster may commit and this software
does not know: UnknownCommandError, on which the node stops.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import (
    apply_cluster,
    apply_groups,
    apply_nodes,
    apply_partitions,
    apply_reassignments,
    apply_topics,
)
from penstock.raft.command import body, decode, level_of
from penstock.raft.draft import Draft
from penstock.raft.image import MetadataImage
from penstock.raft.refused import Refused, malformed

_HANDLERS: dict[str, Callable[[Draft, Any, int], pb.MetadataResult]] = {
    "genesis": apply_cluster.genesis,
    "raise_feature_level": apply_cluster.raise_feature_level,
    "register_node": apply_nodes.register_node,
    "fence_node": apply_nodes.fence_node,
    "drain_node": apply_nodes.drain_node,
    "note_store_state": apply_nodes.note_store_state,
    "admit_voter": apply_nodes.admit_voter,
    "create_topic": apply_topics.create_topic,
    "alter_topic_config": apply_topics.alter_topic_config,
    "add_partitions": apply_topics.add_partitions,
    "delete_topic": apply_topics.delete_topic,
    "alter_isr": apply_partitions.alter_isr,
    "elect_leaders": apply_partitions.elect_leaders,
    "alter_replicas": apply_partitions.alter_replicas,
    "allocate_producer_ids": apply_cluster.allocate_producer_ids,
    "reassign_partitions": apply_reassignments.reassign_partitions,
    "complete_reassignments": apply_reassignments.complete_reassignments,
    "alter_groups": apply_groups.alter_groups,
}


class Step(NamedTuple):
    """What a command has done."""

    image: MetadataImage
    result: pb.MetadataResult


def apply(image: MetadataImage, index: int, data: bytes) -> Step:
    """Apply the command at a Raft index. Raises UnknownCommandError only."""
    draft = Draft(image)
    try:
        result = _apply(draft, index, data)
    except Refused as refused:
        result = pb.MetadataResult(refusal=refused.refusal, detail=refused.detail)
        return Step(replace(image, version=index), result)
    return Step(draft.build(index), result)


def _apply(draft: Draft, index: int, data: bytes) -> pb.MetadataResult:
    command = decode(data)
    if command is None or not data:
        raise malformed("not a metadata command")
    level = level_of(command)
    if level > draft.feature_level:
        text = f"the command needs feature level {level}, the cluster has {draft.feature_level}"
        raise Refused(pb.REFUSAL_UNSUPPORTED, text)
    kind, content = body(command)
    return _HANDLERS[kind](draft, content, index)
