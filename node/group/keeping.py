"""What a coordinator keeps: the offsets as they may be shown, the history's rebalances, and what is deleted of both.

Owns every write to __offsets that no member asked for. What is deleted is decided when its batch is formed, on the
table of then. Loop thread only.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from penstock.node.group.commits import OffsetsLog
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.records import Commit, OffsetsRecord, rebalance_of
from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupInfo, GroupPartition

_NOTHING: Mapping[GroupPartition, Commit] = MappingProxyType({})


class _Work:
    """Records made by a function, of the table."""

    begins = True

    def __init__(self, make: Callable[[], Sequence[OffsetsRecord]], done: Callable[[], None]) -> None:
        self._make = make
        self._done = done

    def make(self, staged: object) -> Sequence[OffsetsRecord]:
        """See commits.Work."""
        del staged
        return self._make()

    def done(self, error: PenstockError | None) -> None:
        """Nobody waits: what failed is found again by the next look, or by the next coordinator."""
        del error
        self._done()


class Keeper:
    """Of one coordinator."""

    def __init__(self, table: OffsetTable, log: OffsetsLog) -> None:
        self._table = table
        self._log = log
        self._gone: set[str] = set()
        """Groups that were deleted, and whose offsets are about to be."""

    def committed(self, group_id: str, partition: GroupPartition) -> Commit | None:
        """What is committed, durably."""
        return self.of_group(group_id).get(partition)

    def of_group(self, group_id: str) -> Mapping[GroupPartition, Commit]:
        """All that the group has committed, durably."""
        return _NOTHING if group_id in self._gone else self._table.of_group(group_id)

    def note(self, group: GroupInfo) -> None:
        """Note the group's generation in the history, and forget those that are too many."""
        record = rebalance_of(group)
        self._write(lambda: [record, *self._table.outdated(group.group_id, group.generation)])

    def note_missing(self, groups: Iterable[GroupInfo]) -> None:
        """Note the generations that a former coordinator has begun and not noted."""
        for group in groups:
            if group.generation and group.generation not in self._table.generations(group.group_id):
                self.note(group)

    # ---- deleting

    def forget(self, group_id: str) -> None:
        """The group is deleted: from now on it has no offsets."""
        self._gone.add(group_id)
        self._write(lambda: self._table.forgotten(group_id), lambda: self._gone.discard(group_id))

    def forget_topics(self, topic_ids: Collection[bytes]) -> None:
        """The topics are deleted."""
        self._write(lambda: self._table.of_topics(topic_ids))

    def delete(self, records: Sequence[OffsetsRecord]) -> None:
        """Write tombstones that were found before anything was written."""
        if records:
            self._write(lambda: records)

    def expire(self, group: GroupInfo, now_ms: int, retention_ms: int) -> bool:
        """Delete what has expired of an empty group; whether the group itself is to go."""
        if self._table.may_go(group, now_ms, retention_ms):
            return True
        if self._table.expired(group, now_ms, retention_ms):
            self._write(lambda: self._table.expired(group, now_ms, retention_ms))
        return False

    def _write(self, make: Callable[[], Sequence[OffsetsRecord]], done: Callable[[], None] = lambda: None) -> None:
        self._log.submit_own(_Work(make, done))
