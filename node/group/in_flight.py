"""For which partitions of a group commits are in flight, and for which of them a decision waits (rule 31). Pure."""

from collections import Counter
from collections.abc import Iterable

from penstock.raft.image import GroupPartition


class InFlight:
    """Each commit of a partition counts, from its check until its fate is known."""

    def __init__(self) -> None:
        self._counts: Counter[GroupPartition] = Counter()
        self._awaited: set[GroupPartition] = set()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._counts)

    def __contains__(self, partition: object) -> bool:
        """Whether there is one for the partition."""
        return partition in self._counts

    def began(self, partitions: Iterable[GroupPartition]) -> None:
        """Commits were let through."""
        self._counts.update(partitions)

    def ended(self, partitions: Iterable[GroupPartition]) -> bool:
        """Their fate is known; whether a decision has waited for that."""
        free = False
        for partition in partitions:
            self._counts[partition] -= 1
            if self._counts[partition] <= 0:
                del self._counts[partition]
                free = free or partition in self._awaited
        return free

    def wait_for(self, partitions: Iterable[GroupPartition]) -> None:
        """The latest decision left these as they are."""
        self._awaited = set(partitions)

    def wait_for_all(self) -> None:
        """The latest decision cannot be made while there is any."""
        self._awaited = set(self._counts)
