"""Applying commands about the cluster as a whole: genesis, feature level, producer ids. Pure."""

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.command import SUPPORTED_LEVEL, UnknownCommandError
from penstock.raft.draft import Draft
from penstock.raft.refused import Refused, malformed, stale

MAX_PRODUCER_ID = 2**62
MAX_BLOCK = 1_000_000
MAX_CLUSTER_ID = 255


def genesis(draft: Draft, command: pb.Genesis, index: int) -> pb.MetadataResult:
    """Begin the cluster; once."""
    del index
    if draft.feature_level > 0:
        raise stale(f"cluster {draft.cluster_id!r} exists")
    if not 0 < len(command.cluster_id) <= MAX_CLUSTER_ID or command.feature_level < 1:
        raise malformed("no cluster id or feature level")
    _stop_above(command.feature_level)
    draft.cluster_id = command.cluster_id
    draft.feature_level = command.feature_level
    return pb.MetadataResult()


def raise_feature_level(draft: Draft, command: pb.RaiseFeatureLevel, index: int) -> pb.MetadataResult:
    """Allow what is new, once every registered node knows it."""
    del index
    if command.feature_level <= draft.feature_level:
        raise stale(f"the feature level is {draft.feature_level}")
    behind = [node.node_id for node in draft.nodes.values() if node.supported_level < command.feature_level]
    if behind:
        raise Refused(pb.REFUSAL_UNSUPPORTED, f"nodes {sorted(behind)} do not know level {command.feature_level}")
    _stop_above(command.feature_level)
    draft.feature_level = command.feature_level
    return pb.MetadataResult()


def _stop_above(level: int) -> None:
    if level > SUPPORTED_LEVEL:
        text = f"the cluster has feature level {level}, this version knows {SUPPORTED_LEVEL}: upgrade this node"
        raise UnknownCommandError(text)


def allocate_producer_ids(draft: Draft, command: pb.AllocateProducerIds, index: int) -> pb.MetadataResult:
    """Give out a block; a repeat gives out another."""
    del index
    first = draft.next_producer_id
    if not 0 < command.count <= MAX_BLOCK or first + command.count > MAX_PRODUCER_ID:
        raise malformed(f"{command.count} producer ids are not in 1..{MAX_BLOCK}, or are used up")
    draft.next_producer_id = first + command.count
    return pb.MetadataResult(first_producer_id=first)
