"""Applying commands about nodes: registration (rules 9, 26, 27), fencing, draining, voters. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.draft import Draft
from penstock.raft.image import Address, NodeInfo, PartitionInfo, TopicInfo
from penstock.raft.members import is_full, led_by, with_isr
from penstock.raft.refused import Refused, malformed, stale
from penstock.v1 import common_pb2 as common

ID_BYTES = 16
MAX_NODE_ID = 2**31 - 1
MAX_START_IDS = 4096
MAX_TEXT = 1024


def register_node(draft: Draft, command: pb.RegisterNode, index: int) -> pb.MetadataResult:
    """Give the node a new node_epoch. It keeps its ISR and ELR places or leaves them all, bypassing the ELR."""
    registration = command.registration
    _check(draft, registration)
    known = draft.nodes.get(registration.node_id)
    if command.previous_node_epoch != (known.node_epoch if known is not None else 0):
        raise stale(f"node {registration.node_id} has registered since")
    node = _node_of(command, index)
    if known is not None:
        # A voter stays one even while it is removed to be added again. Another journal than the last one is a new one,
        # also where it is the former one, found again: votes and entries of the last one are not in it (rule 27).
        may_vote = node.may_vote and node.journal_id == known.journal_id
        node = replace(node, voter=node.voter or known.voter, may_vote=may_vote)
    keeps = known is not None and keeps_places(known, registration)
    draft.put_node(node)
    for topic, info in draft.each_partition():
        changed = _after_registration(topic, info, node, keeps=keeps)
        if changed is not info:
            draft.put_partition(topic.topic_id, changed)
    return pb.MetadataResult(kept_places=keeps)


def keeps_places(known: NodeInfo, registration: pb.Registration) -> bool:
    """Whether it is the same store with everything that it ever acknowledged (rules 9 and 27)."""
    if known.store_id != registration.store_id or known.start_id not in registration.start_ids:
        return False
    if known.start_id == registration.start_ids[-1]:
        return True  # the same process registers again
    return known.durability == common.DURABILITY_COMMIT or registration.clean


def _after_registration(topic: TopicInfo, info: PartitionInfo, node: NodeInfo, *, keeps: bool) -> PartitionInfo:
    if keeps:
        return led_by(info, node) if info.leader == node.node_id else info
    if node.node_id not in info.isr and node.node_id not in info.elr:
        return info
    isr = [member for member in info.isr if member != node.node_id]
    return with_isr(info, isr, topic.config.min_insync_replicas, lost=(node.node_id,))


def _node_of(command: pb.RegisterNode, index: int) -> NodeInfo:
    registration = command.registration
    return NodeInfo(
        node_id=registration.node_id,
        node_epoch=index,
        store_id=registration.store_id,
        start_id=registration.start_ids[-1],
        client_address=Address(registration.client_address.host, registration.client_address.port),
        peer_address=Address(registration.peer_address.host, registration.peer_address.port),
        rack=registration.rack,
        durability=registration.durability,
        version=registration.version,
        supported_level=registration.supported_level,
        voter=command.voter,
        journal_id=registration.journal_id,
        may_vote=registration.may_vote,
    )


def _check(draft: Draft, registration: pb.Registration) -> None:
    if registration.cluster_id != draft.cluster_id:
        text = f"the node is of cluster {registration.cluster_id!r}, this is {draft.cluster_id!r}"
        raise Refused(pb.REFUSAL_FOREIGN_CLUSTER, text)
    if not 1 <= registration.node_id <= MAX_NODE_ID:
        raise malformed(f"node id {registration.node_id} is not in 1..{MAX_NODE_ID}")
    if len(registration.store_id) != ID_BYTES or not _are_ids(registration.start_ids):
        raise malformed(f"a store id, or one to {MAX_START_IDS} start ids, of {ID_BYTES} bytes each, is missing")
    for address in (registration.client_address, registration.peer_address):
        if not 0 < len(address.host) <= MAX_TEXT or not 0 < address.port < 2**16:
            raise malformed("an address has no host, or no port in 1..65535")
    if len(registration.rack) > MAX_TEXT or len(registration.version) > MAX_TEXT:
        raise malformed(f"rack or version is longer than {MAX_TEXT}")
    if registration.durability not in common.Durability.values()[1:]:
        raise malformed(f"durability {registration.durability} is unknown")
    if registration.supported_level < draft.feature_level:
        text = f"the cluster has feature level {draft.feature_level}, the node knows {registration.supported_level}"
        raise Refused(pb.REFUSAL_UNSUPPORTED, text)


def _are_ids(ids: Sequence[bytes]) -> bool:
    return 0 < len(ids) <= MAX_START_IDS and all(len(start_id) == ID_BYTES for start_id in ids)


def _present(draft: Draft, node_id: int, node_epoch: int) -> NodeInfo:
    node = draft.nodes.get(node_id)
    if node is None:
        raise Refused(pb.REFUSAL_UNKNOWN_NODE, f"no node {node_id} has registered")
    if node.node_epoch != node_epoch:
        raise stale(f"node {node_id} has registered since")
    return node


def fence_node(draft: Draft, command: pb.FenceNode, index: int) -> pb.MetadataResult:
    """Take the node out of every ISR (into the ELR where that is due); what it led has no leader. Twice is once."""
    del index
    node = _present(draft, command.node_id, command.node_epoch)
    if node.fenced:
        return pb.MetadataResult()
    draft.put_node(replace(node, fenced=True))
    for topic, info in draft.each_partition():
        if node.node_id in info.isr:
            isr = [member for member in info.isr if member != node.node_id]
            draft.put_partition(topic.topic_id, with_isr(info, isr, topic.config.min_insync_replicas))
    return pb.MetadataResult()


def drain_node(draft: Draft, command: pb.DrainNode, index: int) -> pb.MetadataResult:
    """Note that the node is about to stop."""
    del index
    node = _present(draft, command.node_id, command.node_epoch)
    draft.put_node(replace(node, draining=True))
    return pb.MetadataResult()


def note_store_state(draft: Draft, command: pb.NoteStoreState, index: int) -> pb.MetadataResult:
    """Note how full the node's store is.

    FULL: it leaves each ISR in which a member is left that is not (as a fenced node does); what it led there has no
    leader. The last such member stays. No longer FULL: the partition_epoch of each partition of which it is a replica
    and no ISR member rises, so that a change that was refused because it was FULL stays refused (rule 5).
    """
    del index
    node = _present(draft, command.node_id, command.node_epoch)
    if command.state not in common.StoreState.values()[1:]:
        raise malformed(f"store state {command.state} is unknown")
    was_full = is_full(draft.nodes, node.node_id)
    draft.put_node(replace(node, store_state=command.state))
    now_full = is_full(draft.nodes, node.node_id)
    for topic, info in draft.each_partition():
        if now_full and node.node_id in info.isr:
            isr = [member for member in info.isr if member != node.node_id]
            if not all(is_full(draft.nodes, member) for member in isr):
                draft.put_partition(topic.topic_id, with_isr(info, isr, topic.config.min_insync_replicas))
        elif was_full and not now_full and node.node_id in info.replicas and node.node_id not in info.isr:
            draft.put_partition(topic.topic_id, replace(info, partition_epoch=info.partition_epoch + 1))
    return pb.MetadataResult()


def admit_voter(draft: Draft, command: pb.AdmitVoter, index: int) -> pb.MetadataResult:
    """Note what the Raft configuration says of a node."""
    del index
    node = draft.nodes.get(command.node_id)
    if node is None:
        raise Refused(pb.REFUSAL_UNKNOWN_NODE, f"no node {command.node_id} has registered")
    admitted = command.voter and command.journal_id == node.journal_id
    draft.put_node(replace(node, voter=command.voter, may_vote=node.may_vote or admitted))
    return pb.MetadataResult()
