"""What the shell of a coordinator's members needs of its surroundings."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.internal.v1 import metadata_pb2
from penstock.node.clock import monotonic_ms, wall_ms
from penstock.node.group.subscription import Catalogs
from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage
from penstock.v1 import group_service_pb2 as pb

Propose = Callable[[Sequence[metadata_pb2.GroupChange]], Awaitable[Sequence[metadata_pb2.ChangeResult]]]


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Seat:
    """One led partition of __offsets in one leader epoch, and what it is led by."""

    node_id: int
    partition: int
    leader_epoch: int
    image: Callable[[], MetadataImage]
    propose: Propose
    """AlterGroups: a result for each change, in order, and the metadata of this node shows what was applied. Raises
    PenstockError, TimeoutError: an outcome that is not DEFINITE is taken as unknown."""
    serving: Callable[[], bool] = _always
    """Whether this node may answer as a coordinator now: without contact to the controller it may not, for another may
    have taken over (see GroupLimits.takeover_grace_ms)."""
    now_ms: Callable[[], int] = monotonic_ms
    wall_ms: Callable[[], int] = wall_ms
    catalogs: Catalogs = field(default_factory=Catalogs)
    """The node's."""


class CommittedOffsets(Protocol):
    """The offsets that this coordinator keeps."""

    def committed(self, group_id: str, partition: GroupPartition) -> pb.CommittedOffset | None:
        """What is committed, durably."""
        ...

    def commit(self, request: pb.CommitOffsetsRequest, client_id: str) -> "Awaitable[list[pb.OffsetCommitResult]]":
        """Begin a commit, which is checked before this returns. Raises PenstockError where it is malformed."""
        ...

    def rebalanced(self, group: GroupInfo) -> None:
        """A group has a new generation: note it in its history."""
        ...
