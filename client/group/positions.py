"""What a group's consumer has handed out, what the application has asked past, and what is committed. Pure.

Invariants, for each partition: committed by itself is only what was asked past (`asked`); `asked` never goes beyond
what was handed out (`position`); both move together with a seek. Nothing that is committed is taken back by itself, but
where the application has gone back by a seek. A partition that was lost leaves nothing behind.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.client.records import CommitPoint, TopicPartition


@dataclass(slots=True)
class _Place:
    """Of one partition. Points are replaced as a whole: another thread may read them."""

    position: CommitPoint
    """After what was handed out."""
    asked: CommitPoint
    """After what the application has asked past."""
    settled: int | None
    """What was committed last, by acknowledgement, or needs no commit: where it began."""
    began: CommitPoint
    sought: bool = False
    """The application went elsewhere, perhaps back, and nothing was committed since."""
    overruled: CommitPoint | None = None
    """`asked` when the application committed something else itself: that stands until it asks again."""
    ahead: bool = False
    """Records are on their way to the application, and nobody knows which of them it has."""
    withheld: bool = False
    """Somebody else knows how far it is done: what was handed out or asked past says nothing."""

    def is_due(self) -> bool:
        """What was asked past is to be committed: it is ahead of what is, or the application went back to it."""
        if self.asked is self.overruled or self.withheld:
            return False
        if self.settled is None or self.asked.offset > self.settled:
            return True
        return self.sought and self.asked.offset != self.settled


class Positions:
    """See the module."""

    def __init__(self) -> None:
        self._places: dict[TopicPartition, _Place] = {}
        self._in_hand: dict[TopicPartition, None] = {}

    def add(self, partition: TopicPartition, position: int, *, is_settled: bool = True) -> None:
        """Begin at `position`; unless that is settled, it is to be committed before anything was handed out."""
        point = CommitPoint(position)
        self._places[partition] = _Place(point, point, position if is_settled else None, point)
        self._in_hand.pop(partition, None)

    def remove(self, partition: TopicPartition) -> None:
        """Forget a partition."""
        self._places.pop(partition, None)
        self._in_hand.pop(partition, None)

    def hand_out(self, partition: TopicPartition, position: int, epoch: int | None) -> None:
        """The application is given what is before `position`."""
        place = self._places.get(partition)
        if place is not None and position != place.position.offset:
            place.position = CommitPoint(position, epoch)
            self._in_hand[partition] = None

    def send_ahead(self, partitions: Iterable[TopicPartition]) -> None:
        """Records of these, and of no others, are given to another thread, which hands them out."""
        ahead = set(partitions)
        for partition, place in self._places.items():
            place.ahead = partition in ahead

    def ask(self) -> None:
        """The application asks for more: it is done with what it was given."""
        if not self._in_hand:
            return
        for partition in list(self._in_hand):
            place = self._places.get(partition)
            if place is not None:
                place.asked = place.position
        self._in_hand.clear()

    def take_back(self) -> dict[TopicPartition, int]:
        """What is in hand has not reached the application; gives where that began."""
        back = {partition: self._places[partition] for partition in self._in_hand if partition in self._places}
        for place in back.values():
            place.position = place.asked
        self._in_hand.clear()
        return {partition: place.asked.offset for partition, place in back.items()}

    def seek(self, partition: TopicPartition, position: int) -> None:
        """The application goes elsewhere."""
        place = self._places.get(partition)
        if place is not None:
            place.position = place.asked = CommitPoint(position)
            place.sought = True
            self._in_hand.pop(partition, None)

    def withhold(self, partition: TopicPartition) -> None:
        """Of it counts only what is committed, from now on to its end."""
        place = self._places.get(partition)
        if place is not None:
            place.withheld = True

    def is_in_hand(self, partition: TopicPartition) -> bool:
        """The application may have records of it that it has not asked past."""
        place = self._places.get(partition)
        return partition in self._in_hand or (place is not None and place.ahead)

    def position(self, partition: TopicPartition) -> int | None:
        """Give the offset after what was handed out; of what is withheld, after what is committed, or its beginning."""
        place = self._places.get(partition)
        if place is None:
            return None
        if place.withheld:
            return place.began.offset if place.settled is None else place.settled
        return place.position.offset

    def asked_past(self, partitions: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, CommitPoint]:
        """Give what may be committed without a word of the application, and is not yet."""
        return {p: place.asked for p, place in self._chosen(partitions) if place.is_due()}

    def unsettled(self, partitions: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, CommitPoint]:
        """Give where these began, as far as that is to be committed, and nothing is yet or was to be."""
        chosen = self._chosen(partitions)
        return {p: place.began for p, place in chosen if place.settled is None and place.overruled is None}

    def handed_out(self, partitions: Iterable[TopicPartition] | None = None) -> dict[TopicPartition, CommitPoint]:
        """Give what the application means when it commits without saying what, as far as it is not committed."""
        chosen = [(p, place) for p, place in self._chosen(partitions) if not place.withheld]
        return {p: place.position for p, place in chosen if place.position.offset != place.settled}

    def overrule(self, partitions: Iterable[TopicPartition]) -> None:
        """The application commits these itself, and nobody takes that back before it asks for more records."""
        for _, place in self._chosen(partitions):
            place.overruled = place.asked

    def committed(self, partition: TopicPartition, offset: int) -> None:
        """This is committed."""
        place = self._places.get(partition)
        if place is not None:
            place.settled = offset
            place.sought = place.sought and offset > place.position.offset  # that is of a commit before the seek

    def _chosen(self, partitions: Iterable[TopicPartition] | None) -> list[tuple[TopicPartition, _Place]]:
        if partitions is None:
            return list(self._places.items())
        return [(partition, self._places[partition]) for partition in partitions if partition in self._places]
