"""What applications implement to hear of rebalances, and what `Consumer.process` implements to take part in them."""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from penstock.client.records import CommitPoint, TopicPartition

__all__ = ["Drainer", "RebalanceListener"]


class RebalanceListener:
    """Told when the member's partitions change. Subclass it; methods may be `async` in the asyncio consumer.

    The methods run inside poll, iteration and process, in the order of the changes, never at the same time, before any
    record of what was assigned is given out. What one raises is raised there. They may commit, seek, pause and ask for
    positions, also of what is being given up. What was given up again before it was told is not told at all.
    """

    def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> Awaitable[None] | None:
        """The member reads these from now on, besides what it had."""

    def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> Awaitable[None] | None:
        """The member gives these up when this returns. They are still its own: finish, and commit what was done."""

    def on_lost(self, partitions: tuple[TopicPartition, ...]) -> Awaitable[None] | None:
        """Others may have these already: nothing can be committed for them any more."""


class Drainer(Protocol):
    """Who works on records in the background, and therefore takes part in revocations: `Consumer.process`."""

    async def drain(self, partitions: tuple[TopicPartition, ...]) -> Mapping[TopicPartition, int | CommitPoint]:
        """Finish what is in hand of these, of which no more comes; gives what to commit before they are released.

        Runs beside poll, which goes on with the other partitions. Cancelled when the partitions are lost meanwhile.
        """

    def lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        """These are lost. Called at once, on the event loop."""
