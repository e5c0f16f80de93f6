"""The highest offset that is known for a leader epoch or a lower one."""

from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

W = TypeVar("W")


class Stairs(Generic[W]):
    """Epochs with the offsets known in them, and where each is known from.

    Invariant: both rise, strictly; what a lower epoch already knows is left out. So a question and an addition take
    O(log n) comparisons, each addition is removed at most once.
    """

    __slots__ = ("_epochs", "_offsets", "_witnesses")

    def __init__(self) -> None:
        self._epochs: list[int] = []
        self._offsets: list[int] = []
        self._witnesses: list[W] = []

    def add(self, epoch: int, offset: int, witness: W) -> None:
        """In this epoch at least this offset is known."""
        after = bisect_right(self._epochs, epoch)
        if after and self._offsets[after - 1] >= offset:
            return
        first = bisect_left(self._epochs, epoch)
        end = bisect_right(self._offsets, offset)
        self._epochs[first:end] = [epoch]
        self._offsets[first:end] = [offset]
        self._witnesses[first:end] = [witness]

    def highest(self, epoch: int) -> tuple[int, W] | None:
        """Give the highest offset known in this epoch or a lower one, and its witness."""
        after = bisect_right(self._epochs, epoch)
        return (self._offsets[after - 1], self._witnesses[after - 1]) if after else None
