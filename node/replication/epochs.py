"""The leader epochs of one log in memory: which epoch wrote which offsets, the tail that is not yet durable included.

Invariant: epochs and starts rise. Epochs that ended below the log start may be there: they say what came before it.
Sources: KIP-101, KIP-279.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from penstock.node.replication.events import NO_EPOCH, InvariantViolationError


class EpochEnd(NamedTuple):
    """A leader epoch and the offset after its last record."""

    leader_epoch: int
    end_offset: int


class EpochTable:
    """Epochs with their start offsets, and the log end."""

    __slots__ = ("_epochs", "_starts", "log_end_offset")

    def __init__(self, starts: Iterable[tuple[int, int]], log_end_offset: int) -> None:
        pairs = sorted(starts)
        self._epochs = [epoch for epoch, _ in pairs]
        self._starts = [start for _, start in pairs]
        self.log_end_offset = log_end_offset

    def end_of(self, asked: int) -> EpochEnd | None:
        """Rule 2: the largest epoch not above the asked one, and where it ends; None: there is none."""
        i = bisect_right(self._epochs, asked) - 1
        if i < 0:
            return None
        end = self._starts[i + 1] if i + 1 < len(self._starts) else self.log_end_offset
        return EpochEnd(self._epochs[i], end)

    def epoch_below(self, offset: int) -> int:
        """Leader epoch of the last record below `offset`, or -1."""
        i = bisect_left(self._starts, offset) - 1
        return self._epochs[i] if i >= 0 else NO_EPOCH

    def append(self, leader_epoch: int, base_offset: int, end_offset: int) -> None:
        """Note a batch at the log end."""
        if base_offset != self.log_end_offset or end_offset <= base_offset:
            raise InvariantViolationError(
                f"batch [{base_offset}, {end_offset}) is not at the log end {self.log_end_offset}"
            )
        if not self._epochs or leader_epoch > self._epochs[-1]:
            self._epochs.append(leader_epoch)
            self._starts.append(base_offset)
        elif leader_epoch < self._epochs[-1]:
            raise InvariantViolationError(f"leader epoch {leader_epoch} after {self._epochs[-1]} in one log")
        self.log_end_offset = end_offset

    def truncate(self, end_offset: int) -> None:
        """Forget everything at or after `end_offset`."""
        while self._starts and self._starts[-1] >= end_offset:
            self._starts.pop()
            self._epochs.pop()
        self.log_end_offset = min(self.log_end_offset, end_offset)


@dataclass(slots=True)
class LogBounds:
    """The log as the cores know it. Invariants: first <= start <= durable end <= log end; HW <= log end."""

    epochs: EpochTable
    log_start_offset: int
    durable_end: int
    high_watermark: int
    first_offset: int = -1
    """Base of the first batch; not given: the log start."""
    tombstones_below: int = 0
    """Tombstones below it may be gone (rule 19)."""

    def __post_init__(self) -> None:
        """A log that was never trimmed within a batch."""
        if self.first_offset < 0:
            self.first_offset = self.log_start_offset

    @property
    def log_end_offset(self) -> int:
        """Next offset to be written."""
        return self.epochs.log_end_offset

    def cut(self, end_offset: int) -> None:
        """Everything at or after `end_offset` is gone, durably."""
        self.epochs.truncate(end_offset)
        self.durable_end = min(self.durable_end, end_offset)
        self.high_watermark = min(self.high_watermark, end_offset)
        self.log_start_offset = min(self.log_start_offset, end_offset)
        self.tombstones_below = min(self.tombstones_below, end_offset)
