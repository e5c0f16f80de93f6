"""The committed offsets of one partition of __offsets: what its log says, record by record. Pure.

Invariant: the table is the replay of the log up to some offset, and of nothing else; so whoever reads the log has the
same one. It is kept by applying each record when the high watermark has passed it, in log order, and never before.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

from penstock.node.group.records import Commit, CommitRecord, OffsetsRecord, RebalanceRecord
from penstock.raft.image import GroupInfo, GroupPartition

GENERATIONS_KEPT = 100
"""Rebalances of a group that the history keeps."""
_NONE: Mapping[GroupPartition, Commit] = MappingProxyType({})


@dataclass(slots=True)
class _Group:
    commits: dict[GroupPartition, Commit] = field(default_factory=dict)
    generations: set[int] = field(default_factory=set)
    """Whose rebalance is in the log."""


class OffsetTable:
    """By group and partition."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._readers: dict[bytes, Counter[str]] = {}
        """By topic, the groups that have offsets of it, and how many."""

    def apply(self, record: OffsetsRecord) -> None:
        """The next record of the log."""
        group = self._groups.get(record.group_id)
        if group is None:
            group = self._groups[record.group_id] = _Group()
        if isinstance(record, CommitRecord):
            self._apply_commit(group.commits, record)
        elif record.rebalance is None:
            group.generations.discard(record.generation)
        else:
            group.generations.add(record.generation)
        if not group.commits and not group.generations:
            del self._groups[record.group_id]

    def _apply_commit(self, commits: dict[GroupPartition, Commit], record: CommitRecord) -> None:
        before = len(commits)
        if record.commit is None:
            commits.pop(record.partition, None)
        else:
            commits[record.partition] = record.commit
        if len(commits) != before:
            self._count(record.partition.topic_id, record.group_id, len(commits) - before)

    def _count(self, topic_id: bytes, group_id: str, more: int) -> None:
        readers = self._readers.setdefault(topic_id, Counter())
        readers[group_id] += more
        if not readers[group_id]:
            del readers[group_id]
        if not readers:
            del self._readers[topic_id]

    def committed(self, group_id: str, partition: GroupPartition) -> Commit | None:
        """What is committed, or None."""
        group = self._groups.get(group_id)
        return None if group is None else group.commits.get(partition)

    def group_ids(self) -> Set[str]:
        """Groups of which there is anything."""
        return self._groups.keys()

    def topic_ids(self) -> Set[bytes]:
        """Topics for which something is committed."""
        return self._readers.keys()

    def of_group(self, group_id: str) -> Mapping[GroupPartition, Commit]:
        """All that a group has committed."""
        group = self._groups.get(group_id)
        return _NONE if group is None else group.commits

    def generations(self, group_id: str) -> Collection[int]:
        """Generations of a group whose rebalance is in the log."""
        group = self._groups.get(group_id)
        return frozenset() if group is None else group.generations

    # ---- what is to be deleted, as tombstones

    def forgotten(self, group_id: str) -> list[OffsetsRecord]:
        """Everything of a group."""
        group = self._groups.get(group_id)
        if group is None:
            return []
        rebalances = (RebalanceRecord(group_id, generation, None) for generation in sorted(group.generations))
        return [*self._tombstones(group_id, list(group.commits)), *rebalances]

    def outdated(self, group_id: str, generation: int) -> list[OffsetsRecord]:
        """The rebalances that go once that of `generation` is in the log: the latest GENERATIONS_KEPT stay."""
        group = self._groups.get(group_id)
        known = set() if group is None else group.generations
        old = sorted(known | {generation})[:-GENERATIONS_KEPT]
        return [RebalanceRecord(group_id, gone, None) for gone in old if gone in known]

    def of_topics(self, topic_ids: Collection[bytes], most: int | None = None) -> list[OffsetsRecord]:
        """The offsets of these topics, which are deleted: `most` of them. Looks only at the groups that have some."""
        readers = {group_id for topic_id in topic_ids for group_id in self._readers.get(topic_id, ())}
        found = (tombstone for group_id in sorted(readers) for tombstone in self._of_topics(group_id, topic_ids))
        return list(islice(found, most))

    def _of_topics(self, group_id: str, topic_ids: Collection[bytes]) -> list[OffsetsRecord]:
        commits = self._groups[group_id].commits
        return self._tombstones(group_id, [partition for partition in commits if partition.topic_id in topic_ids])

    def expired(self, group: GroupInfo, now_ms: int, retention_ms: int) -> list[OffsetsRecord]:
        """The offsets of an empty group whose time is over: since it became empty, and since their own commit."""
        if not _has_expired(group, now_ms, retention_ms):
            return []
        commits = self.of_group(group.group_id)
        old = [partition for partition, commit in commits.items() if commit.commit_time_ms + retention_ms <= now_ms]
        return self._tombstones(group.group_id, old)

    def may_go(self, group: GroupInfo, now_ms: int, retention_ms: int) -> bool:
        """Whether an empty group is to be deleted: its time is over, and no offset is left."""
        return _has_expired(group, now_ms, retention_ms) and not self.of_group(group.group_id)

    def _tombstones(self, group_id: str, partitions: Iterable[GroupPartition]) -> list[OffsetsRecord]:
        return [CommitRecord(group_id, partition, None) for partition in sorted(partitions)]


def is_stale(former: Commit | None, new: Commit) -> bool:
    """Whether a later commit of the same member came before. An identical repeat is none: it was not answered, say."""
    if former is None or not new.sequence or former.member_id != new.member_id or not new.member_id:
        return False
    if new.sequence == former.sequence:
        return new.offset != former.offset
    return new.sequence < former.sequence


def _has_expired(group: GroupInfo, now_ms: int, retention_ms: int) -> bool:
    return not group.members and 0 < group.emptied_ms <= now_ms - retention_ms
