"""What a replica's shell needs of its node and its streams, and whom it tells: the seams between the parts."""

from typing import TYPE_CHECKING, Protocol

from penstock.node.replication.events import IsrProposal, Position, RefusalKind, SessionKey
from penstock.node.replication.tail import TailBudget
from penstock.storage import Log, LogBatch, PartitionKey, StorageError, Write

if TYPE_CHECKING:
    from penstock.node.replication.shell import ReplicaShell


class FollowerSlot(Protocol):
    """This partition's place in the stream of one follower (see source)."""

    follower: int
    session: SessionKey

    def wake(self) -> None:
        """There may be something to send."""
        ...

    def advanced(self) -> None:
        """The high watermark or the log start moved."""
        ...

    def diverge(self, leader_epoch: int, end_offset: int) -> None:
        """Send a divergence."""
        ...

    def seed(self) -> None:
        """Send the seed of the log's start."""
        ...

    def refuse(self, reason: RefusalKind) -> None:
        """Send a refusal; the slot is closed."""
        ...


class LeaderLink(Protocol):
    """The stream to this replica's leader (see fetcher)."""

    def send_open(self, session: SessionKey, key: PartitionKey, position: Position) -> None:
        """Send an open."""
        ...

    def send_fetch(self, session: SessionKey, position: Position) -> None:
        """Send a fetch; a later one of the session replaces it while it waits."""
        ...

    def give_back(self, size: int, *, cold: bool) -> None:
        """Received bytes are dealt with: the leader may send as many more."""
        ...


class Host(Protocol):
    """What a replica needs of its node."""

    node_id: int
    tail_budget: TailBudget
    lag_max_ms: int

    def submit(self, write: Write) -> None:
        """Queue a write; its outcome comes back by on_outcome."""
        ...

    def now_ms(self) -> int:
        """Monotonic time."""
        ...

    def store_is_full(self) -> bool:
        """Whether this node's store takes no appends."""
        ...

    def durability_of(self, nodes: frozenset[int]) -> int:
        """The weakest v1.Durability among nodes."""
        ...

    def propose(self, replica: "ReplicaShell", proposal: IsrProposal) -> None:
        """Send an ISR change to the controller until its fate is known."""
        ...

    def resign(self, replica: "ReplicaShell", leader_epoch: int) -> None:
        """Ask the controller for another leadership."""
        ...

    def follow(self, replica: "ReplicaShell", leader: int) -> None:
        """Give the replica a place in the stream to `leader`."""
        ...

    def leave(self, replica: "ReplicaShell", session: SessionKey, *, retry: bool) -> None:
        """The session is over; `retry`: give the replica a new one, after a pause."""
        ...

    async def read_cold(self, log: Log, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Read a log off the loop."""
        ...


class Owner(Protocol):
    """Who is told what happened (the partition)."""

    def advanced(self) -> None:
        """HW, durable end or log start moved."""
        ...

    def role_began(self) -> None:
        """Leading or following now."""
        ...

    def role_ended(self) -> None:
        """No longer."""
        ...

    def append_failed(self, error: StorageError, *, pushed: bool) -> None:
        """A local commit of the leader failed."""
        ...
