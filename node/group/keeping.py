"""What a coordinator keeps: the offsets as they may be shown, the history's rebalances, and what is deleted of both.

Owns every write to __offsets that no member asked for. What is deleted is decided when its batch is formed, on the
table of then. What was deleted with its group or topic is owed until it is written, and written before any later
commit: else a group that is made anew by the same name would find the offsets of the former. Loop thread only.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from penstock.node.group.commits import OffsetsLog
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.records import Commit, OffsetsRecord, rebalance_of
from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage

TOMBSTONES = 1_000
"""Offsets of deleted topics that one batch deletes: encoding them keeps the event loop for some ms."""
_NOTHING: Mapping[GroupPartition, Commit] = MappingProxyType({})


def _nothing() -> None:
    pass


class _Work:
    """Records made by a function, of the table. `then`: told when it is over."""

    begins = True

    def __init__(
        self, make: Callable[[], Sequence[OffsetsRecord]], then: Callable[[], None] = _nothing, *, owed: bool
    ) -> None:
        self._make = make
        self._then = then
        self._owed = owed

    def make(self, staged: object) -> Sequence[OffsetsRecord]:
        """See commits.Work."""
        del staged
        return self._make()

    def done(self, error: PenstockError | None) -> bool:
        """Nobody waits: what failed is owed, or found again by the next look, or by the next coordinator."""
        if error is not None and self._owed:
            return True
        self._then()
        return False


class Keeper:
    """Of one coordinator."""

    def __init__(self, table: OffsetTable, log: OffsetsLog) -> None:
        self._table = table
        self._log = log
        self._gone: Counter[str] = Counter()
        """Groups that were deleted, so many times, and whose offsets are about to be."""

    def committed(self, group_id: str, partition: GroupPartition) -> Commit | None:
        """What is committed, durably."""
        return self.of_group(group_id).get(partition)

    def of_group(self, group_id: str) -> Mapping[GroupPartition, Commit]:
        """All that the group has committed, durably."""
        return _NOTHING if group_id in self._gone else self._table.of_group(group_id)

    def note(self, group: GroupInfo) -> None:
        """Note the group's generation in the history, and forget those that are too many."""
        record = rebalance_of(group)
        outdated = partial(self._table.outdated, group.group_id, group.generation)
        self._log.submit_own(_Work(lambda: [record, *outdated()], owed=False))

    def note_missing(self, groups: Iterable[GroupInfo]) -> None:
        """Note the generations that a former coordinator has begun and not noted."""
        for group in groups:
            if group.generation and group.generation not in self._table.generations(group.group_id):
                self.note(group)

    # ---- deleting

    def forget_strays(self, image: MetadataImage) -> None:
        """Delete what belongs to no group or topic: what a former coordinator was about to delete. Comes first."""
        self.forget(self._table.group_ids() - image.groups.keys())
        self.forget_topics(self._table.topic_ids() - image.topics.keys())

    def forget(self, group_ids: Collection[str]) -> None:
        """The groups are deleted: they show no offsets from now on, be they made anew before that is written."""
        if not group_ids:
            return
        self._gone.update(group_ids)

        def forgotten() -> list[OffsetsRecord]:
            return [record for group_id in sorted(group_ids) for record in self._table.forgotten(group_id)]

        def written() -> None:
            self._gone -= Counter(group_ids)

        self._log.submit_own(_Work(forgotten, written, owed=True))

    def forget_topics(self, topic_ids: Collection[bytes]) -> None:
        """The topics are deleted. Commits go on between the portions: there are no new ones for these topics."""
        if not topic_ids:
            return
        portion = partial(self._table.of_topics, topic_ids, TOMBSTONES)

        def go_on() -> None:
            if self._table.of_topics(topic_ids, 1):
                self.forget_topics(topic_ids)

        self._log.submit_own(_Work(portion, go_on, owed=True))

    def may_go(self, group: GroupInfo, now_ms: int, retention_ms: int) -> bool:
        """Whether an empty group is to go, for its time is over and it has no offset."""
        return self._table.may_go(group, now_ms, retention_ms)

    def expire(self, group: Callable[[], GroupInfo | None], now_ms: int, retention_ms: int) -> None:
        """Delete what has expired of an empty group. `group`: as it is when that is asked."""

        def expired() -> Sequence[OffsetsRecord]:
            present = group()
            return [] if present is None else self._table.expired(present, now_ms, retention_ms)

        if expired():
            self._log.submit_own(_Work(expired, owed=False))
