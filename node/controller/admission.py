"""Voters whose journal is new (rule 27): out of the Raft configuration, and in again with the new journal. Pure.

A journal that was formatted to join casts no vote until the configuration names it. One step at a time, each begun only
while every other voter lives: a smaller configuration must not lose its majority.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.image import MetadataImage, NodeInfo
from penstock.raft.members import is_live


@dataclass(frozen=True, slots=True)
class RemoveVoter:
    """Take the node out of the Raft configuration."""

    node_id: int


@dataclass(frozen=True, slots=True)
class AddVoter:
    """Put the node into the Raft configuration with its new journal, then note it in the metadata."""

    node_id: int
    address: str
    journal_id: bytes

    def command(self) -> pb.MetadataCommand:
        """Return the command that notes it."""
        return _note(self.node_id, self.journal_id)


@dataclass(frozen=True, slots=True)
class NoteVoter:
    """The Raft configuration has the node with its new journal: only the note in the metadata was lost."""

    node_id: int
    journal_id: bytes

    def command(self) -> pb.MetadataCommand:
        """Return the command that notes it. Only for a change that is committed: the configuration may be ahead."""
        return _note(self.node_id, self.journal_id)


Step = RemoveVoter | AddVoter | NoteVoter


def next_step(image: MetadataImage, voters: Mapping[int, bytes]) -> Step | None:
    """Return what is to be done about the voters now. `voters`: of the Raft configuration, with their journals' ids."""
    for node_id in sorted(image.nodes):
        node = image.nodes[node_id]
        if node.fenced or not node.voter or node.may_vote:
            continue
        if node.journal_id and voters.get(node_id) == node.journal_id:
            return NoteVoter(node_id, node.journal_id)
        if not all(is_live(image.nodes, other) for other in voters if other != node_id):
            return None
        return RemoveVoter(node_id) if node_id in voters else _add(node)
    return None


def _add(node: NodeInfo) -> AddVoter:
    return AddVoter(node.node_id, str(node.peer_address), node.journal_id)


def _note(node_id: int, journal_id: bytes) -> pb.MetadataCommand:
    return pb.MetadataCommand(admit_voter=pb.AdmitVoter(node_id=node_id, voter=True, journal_id=journal_id))
