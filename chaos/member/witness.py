"""A rebalance listener that tells the runner what a member has, when, and what it was handed of it.

Invariant: what is told as released or polled as the owner carries the beginning of the poll in which it happened: the
member was the owner then, whatever has come between (see penstock.chaos.checker.groups).
"""

from collections.abc import Iterable, Mapping

from penstock.chaos.history import value_of
from penstock.chaos.member.voice import Voice
from penstock.client import Consumer, PenstockError, Record, TopicPartition
from penstock.client.errors import CommitFailedError
from penstock.client.group.listener import RebalanceListener


class Witness(RebalanceListener):
    """See the module. Watches one consumer."""

    def __init__(self, group: str, voice: Voice) -> None:
        self._group = group
        self._voice = voice
        self._positions: dict[TopicPartition, int] = {}
        """After what was handed out, of what the member has."""
        self._committed: dict[TopicPartition, int] = {}
        self._began = voice.now()
        """When the present poll did."""
        self._unasked = False
        """Records were handed out that the runner does not know to be asked past."""

    def watch(self, consumer: Consumer, *, commits: bool) -> None:
        """Watch this one. `commits`: by calls, also before anything is given up."""
        self._consumer = consumer
        self._commits = commits

    # -- polls

    def begin_poll(self) -> None:
        """The member asks for records."""
        self._began = self._voice.now()

    def polled(self, records: Iterable[Record]) -> None:
        """The member was given these."""
        given: dict[TopicPartition, list[tuple[int, int, int]]] = {}
        for topic, index, offset, _, _, value, headers, leader_epoch in records:
            rows = given.setdefault(TopicPartition(topic, index), [])
            rows.append((offset, value_of(value, headers), leader_epoch))
        if given or self._unasked:
            reads = [self._read(partition, rows) for partition, rows in given.items()]
            self._voice.did("poll", self._began, group=self._group, isolation="read_uncommitted", reads=reads)
        self._unasked = bool(given)

    def _read(self, partition: TopicPartition, rows: list[tuple[int, int, int]]) -> Mapping[str, object]:
        first, after = self._positions.get(partition, rows[0][0]), rows[-1][0] + 1
        self._positions[partition] = after
        return {
            "topic": partition.topic,
            "partition": partition.partition,
            "from": first,
            "to": after,
            "records": rows,
        }

    # -- commits

    def in_hand(self) -> dict[TopicPartition, int]:
        """Give what was handed out and is not committed."""
        return {p: position for p, position in self._positions.items() if self._committed.get(p) != position}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit by a call and tell what came of it."""
        if not offsets:
            return
        told = [[p.topic, p.partition, offset] for p, offset in offsets.items()]
        number = self._voice.commits({"group": self._group, "offsets": told})
        try:
            await self._consumer.commit(offsets)
        except PenstockError as error:
            is_certain = len(offsets) == 1 and isinstance(error, CommitFailedError)
            self._voice.not_committed(number, "fail" if is_certain else "info", error)
        else:
            self._voice.committed(number)
            self._committed |= {p: at for p, at in offsets.items() if p in self._positions}

    # -- RebalanceListener

    async def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        membership = self._consumer.group_member
        if membership is None:
            return  # not in a group: nobody assigns anything
        rows = []
        for partition in partitions:
            granted = membership.granted.get(partition)
            if granted is None:
                continue  # it is lost already, which is told next
            position = self._consumer.position(partition)
            self._positions[partition] = self._committed[partition] = position
            rows.append([partition.topic, partition.partition, granted, position])
        self._voice.did(
            "group_assigned",
            self._voice.now(),
            group=self._group,
            member=membership.member_id,
            generation=membership.generation,
            partitions=rows,
        )

    async def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        if self._commits:
            await self.commit({p: at for p, at in self.in_hand().items() if p in partitions})
        self._gone("group_released", partitions)

    async def on_lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        self._gone("group_lost", partitions)

    def _gone(self, f: str, partitions: tuple[TopicPartition, ...]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._committed.pop(partition, None)
        names = [[partition.topic, partition.partition] for partition in partitions]
        self._voice.did(f, self._began, group=self._group, partitions=names)
