"""The client as a member of a group, broken."""

from collections.abc import Iterable, Sequence
from typing import Any

from penstock.client.group.commits import Commits
from penstock.client.group.holds import Hold
from penstock.client.group.positions import Positions
from penstock.client.group.starting import Begin, Starting
from penstock.client.records import CommitPoint, TopicPartition
from penstock.protocol.errors import PenstockError

FAR_MS = 1 << 50

always_valid = property(lambda self: FAR_MS)
"""Rule 21: what is held is read however long the coordinator has been silent."""


def all_that_was_given(
    self: Positions, partitions: Iterable[TopicPartition] | None = None
) -> dict[TopicPartition, CommitPoint]:
    """What was handed out is committed before the application has asked past it."""
    return self.handed_out(partitions)


_resolve = Starting.resolve


async def from_the_beginning(self: Starting, holds: Sequence[Hold], first_generation: int) -> dict[Hold, Begin]:
    """A member begins at the start of the log, whatever is committed."""
    committed = [hold.committed for hold in holds]
    for hold in holds:
        hold.committed = None
    try:
        return await _resolve(self, holds, first_generation)
    finally:
        for hold, point in zip(holds, committed, strict=True):
            hold.committed = point


_attempt = Commits._attempt


async def unanswered_is_committed(self: Commits, batch: Any, timeout_ms: float) -> PenstockError | None:
    """A commit whose answer did not come is taken for done."""
    error = await _attempt(self, batch, timeout_ms)
    if error is not None:
        self._settle(batch, dict.fromkeys(batch.left))
    return None
