"""What a member may read, as its coordinator has told it. Pure.

Invariants: a partition that was released, or lost by time, is believed again only when it was granted again; what an
assignment does not name is lost; a revoked partition is given up by its deadline.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from penstock.client.records import CommittedOffset, TopicPartition
from penstock.protocol.errors import PenstockError
from penstock.v1 import group_service_pb2 as pb

Key: TypeAlias = tuple[bytes, int]
"""Topic id and partition."""


class HoldState(Enum):
    """Of a partition that a member has."""

    READ = "read"
    REVOKED = "revoked"
    """To be given up; nothing of that has begun."""
    SETTLING = "settling"
    """The application finishes: it will be released, whatever the coordinator says meanwhile."""


@dataclass(slots=True, eq=False)
class Hold:
    """A partition that the member has, from one grant to its release or loss."""

    key: Key
    partition: TopicPartition
    granted_generation: int
    committed: CommittedOffset | None
    """When it was assigned."""
    state: HoldState = HoldState.READ
    deadline_ms: int = 0
    """Where it is revoked: it is lost then."""


class Change(NamedTuple):
    """What became of holds. `why` for those that were lost."""

    kind: str
    """ "assigned", "revoked", "restored" (revoked, and now not any more) or "lost"."""
    holds: tuple[Hold, ...]
    why: PenstockError | None = None


class Holds:
    """See the module."""

    def __init__(self) -> None:
        self._held: dict[Key, Hold] = {}
        self._by_partition: dict[TopicPartition, Hold] = {}
        """The same; of a topic that was deleted and made again, the new one's."""
        self._released: dict[Key, int] = {}
        """Generation of the grant that was given up, while the coordinator may still count it."""

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Hold]:
        return iter(list(self._held.values()))

    def has(self, hold: Hold) -> bool:
        """Say whether the member still has it by this very grant."""
        return self._held.get(hold.key) is hold

    def find(self, partition: TopicPartition) -> Hold | None:
        """Give the hold of a partition."""
        return self._by_partition.get(partition)

    def take(self, assignment: pb.Assignment, deadline_ms: int) -> tuple[list[Change], list[Key]]:
        """Follow an assignment; what it revokes is to be released by `deadline_ms`. Gives what must be released again.

        That is what the member has given up or lost, and the coordinator still counts as its own: it is not believed.
        """
        read = {(p.topic_id, p.partition): p for p in assignment.partitions}
        revoked = {(p.topic_id, p.partition) for p in assignment.revoked}
        again = [key for key in (*read, *revoked) if self._is_released(key, read.get(key))]
        again += [key for key in revoked if key not in self._held and key not in again]
        lost = self.drop([hold for key, hold in self._held.items() if not self._stays(hold, key, read, revoked)])
        # The others were heard of. What was lost by time is given up with this release: no older grant counts any more.
        self._released = {key: self._released.get(key, assignment.generation - 1) for key in again}
        changes = [Change("lost", tuple(lost))] if lost else []
        changes += self._restore(read)
        changes += self._revoke(revoked, deadline_ms)
        fresh = [_hold(p) for key, p in read.items() if key not in self._held and key not in again]
        self._held |= {hold.key: hold for hold in fresh}
        self._by_partition |= {hold.partition: hold for hold in fresh}
        if fresh:
            changes.append(Change("assigned", tuple(fresh)))
        return changes, again

    def release(self, hold: Hold) -> bool:
        """Give one up; False where it is not held any more."""
        if not self.has(hold):
            return False
        self.drop([hold])
        self._released[hold.key] = hold.granted_generation
        return True

    def drop(self, holds: Iterable[Hold]) -> list[Hold]:
        """Forget these: they are lost."""
        gone = list(holds)
        for hold in gone:
            del self._held[hold.key]
            if self._by_partition.get(hold.partition) is hold:
                del self._by_partition[hold.partition]
        return gone

    def overdue(self, now_ms: int) -> list[Hold]:
        """Give those whose time for giving up is over."""
        return [hold for hold in self._held.values() if hold.state is not HoldState.READ and now_ms >= hold.deadline_ms]

    def next_deadline_ms(self) -> int | None:
        """When the first revoked one is lost."""
        return min((h.deadline_ms for h in self._held.values() if h.state is not HoldState.READ), default=None)

    def clear_released(self) -> None:
        """Another membership begins: nothing that was given up counts as its own."""
        self._released.clear()

    def _is_released(self, key: Key, assigned: pb.AssignedPartition | None) -> bool:
        at = self._released.get(key)
        return at is not None and (assigned is None or assigned.granted_generation <= at)

    @staticmethod
    def _stays(hold: Hold, key: Key, read: dict[Key, pb.AssignedPartition], revoked: set[Key]) -> bool:
        if key in read:
            return read[key].granted_generation == hold.granted_generation
        return key in revoked

    def _restore(self, read: dict[Key, pb.AssignedPartition]) -> list[Change]:
        back = [hold for hold in self._held.values() if hold.state is HoldState.REVOKED and hold.key in read]
        for hold in back:
            hold.state = HoldState.READ
        return [Change("restored", tuple(back))] if back else []

    def _revoke(self, revoked: set[Key], deadline_ms: int) -> list[Change]:
        fresh = []
        for hold in self._held.values():
            if hold.key not in revoked:
                continue
            if hold.state is HoldState.READ:
                hold.state, hold.deadline_ms = HoldState.REVOKED, deadline_ms
                fresh.append(hold)
            hold.deadline_ms = min(hold.deadline_ms, deadline_ms)
        return [Change("revoked", tuple(fresh))] if fresh else []


def _hold(assigned: pb.AssignedPartition) -> Hold:
    committed = committed_of(assigned.committed) if assigned.HasField("committed") else None
    partition = TopicPartition(assigned.topic, assigned.partition)
    return Hold((assigned.topic_id, assigned.partition), partition, assigned.granted_generation, committed)


def committed_of(committed: pb.CommittedOffset) -> CommittedOffset:
    """Give the value of a message."""
    return CommittedOffset(
        committed.offset,
        committed.leader_epoch if committed.HasField("leader_epoch") else None,
        committed.metadata,
        committed.commit_time_ms,
        committed.member_id,
        committed.generation,
    )
