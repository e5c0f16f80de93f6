"""Who votes: the configuration as of a place in the log, and the log entries that change it by one voter. Pure.

Invariant: a configuration is a function of the log: the one it began with (or the snapshot's) and the changes since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from penstock.internal.v1 import raft_pb2


class Voter(NamedTuple):
    """A voter, where it listens, and the journal it votes from (empty: a founding voter's)."""

    node_id: int
    address: str
    journal_id: bytes = b""


@dataclass(frozen=True)
class Membership:
    """The voters, ascending by node id."""

    voters: tuple[Voter, ...]

    @classmethod
    def of(cls, addresses: Mapping[int, str]) -> "Membership":
        """Return the configuration of founding voters."""
        return cls(tuple(Voter(node_id, addresses[node_id]) for node_id in sorted(addresses)))

    @classmethod
    def decode(cls, record: raft_pb2.RaftMembership) -> "Membership":
        """Return the configuration that the record holds."""
        return cls(tuple(Voter(voter.node_id, voter.address, voter.journal_id) for voter in record.voters))

    def encode(self) -> raft_pb2.RaftMembership:
        """Return the record for journal and snapshot."""
        return raft_pb2.RaftMembership(voters=[raft_pb2.RaftVoter(**voter._asdict()) for voter in self.voters])

    @property
    def addresses(self) -> dict[int, str]:
        """Peer address by node id."""
        return {voter.node_id: voter.address for voter in self.voters}

    def voter(self, node_id: int) -> Voter | None:
        """Return the voter of this id, if there is one."""
        return next((voter for voter in self.voters if voter.node_id == node_id), None)

    def after(self, change: "Change") -> "Membership":
        """Return the configuration with the change. Adding who is there, or removing who is not, is no error."""
        others = [voter for voter in self.voters if voter.node_id != change.voter.node_id]
        added = [change.voter] if change.adding else []
        return Membership(tuple(sorted(others + added)))


class Change(NamedTuple):
    """One voter comes or goes."""

    adding: bool
    voter: Voter

    def encode(self) -> bytes:
        """Return the log entry's bytes (without the kind)."""
        kind = raft_pb2.RaftMembershipChange.KIND_ADD if self.adding else raft_pb2.RaftMembershipChange.KIND_REMOVE
        voter = raft_pb2.RaftVoter(**self.voter._asdict())
        return raft_pb2.RaftMembershipChange(kind=kind, voter=voter).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> "Change":
        """Read a log entry's bytes. Raises ValueError for anything else than a change."""
        record = raft_pb2.RaftMembershipChange()
        try:
            record.ParseFromString(data)
        except Exception as error:
            raise ValueError("not a membership change") from error
        kinds = raft_pb2.RaftMembershipChange
        if record.kind not in (kinds.KIND_ADD, kinds.KIND_REMOVE) or not record.voter.node_id:
            raise ValueError("a membership change of no known kind")
        voter = Voter(record.voter.node_id, record.voter.address, record.voter.journal_id)
        return cls(record.kind == kinds.KIND_ADD, voter)
