"""What `Consumer` offers in a group, beside reading."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from penstock.client.errors import ClientClosedError, InvalidRequestError
from penstock.client.group.listener import Drainer, RebalanceListener
from penstock.client.group.options import subscribed
from penstock.client.group.reader import GroupMembership, GroupReader
from penstock.client.records import CommitPoint, CommittedOffset, TopicPartition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

Offsets: TypeAlias = Mapping[TopicPartition, int | CommitPoint]
"""Of the next record to read, each."""
OnCommit: TypeAlias = Callable[[Mapping[TopicPartition, CommitPoint], PenstockError | None], None]
"""Called on the event loop with what was to be committed, and the (first) error or None."""


class GroupFace:
    """Base of Consumer."""

    _group: GroupReader | None
    _is_open: bool

    async def subscribe(
        self,
        topics: str | Sequence[str] = (),
        pattern: str | None = None,
        listener: RebalanceListener | None = None,
    ) -> None:
        """Have the group read these topics instead of those before. A `listener` takes the former one's place."""
        group = self._in_group()
        wanted = subscribed(topics, pattern)
        if not wanted:
            raise InvalidRequestError(Reason.INVALID_SUBSCRIPTION, "neither topics nor a pattern are given")
        await group.subscribe(wanted, listener)

    async def commit(self, offsets: Offsets | None = None) -> None:
        """Commit what was handed out, or these offsets; returns when they are durable.

        Raises CommitFailedError for partitions that the member has no more (the others are committed then), and
        OutcomeUnknownError or RequestTimeoutError after request_timeout_ms.
        """
        await self._in_group().commit(offsets)

    def commit_soon(self, offsets: Offsets | None = None, on_done: OnCommit | None = None) -> None:
        """Have the same committed in the background, in the order of the calls. Without `on_done` errors are logged.

        Raises BufferFullError, and commits nothing, where 10,000 wait already.
        """
        self._in_group().commit_soon(offsets, on_done)

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, CommittedOffset | None]:
        """Give what the group has committed, asked of its coordinator; None where there is nothing."""
        return await self._in_group().fetch_committed(partitions)

    @property
    def group_member(self) -> GroupMembership | None:
        """What this consumer is in its group; None where it has none."""
        return None if self._group is None else self._group.membership

    def _drive(self, drainer: Drainer | None) -> None:
        """Hand revocations to a drainer, and leave committing to it; None: as before. For `process`."""
        group = self._group if drainer is None else self._in_group()
        if group is not None:
            group.drive(drainer)

    def _in_group(self) -> GroupReader:
        self._check_open()
        if self._group is None:
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, "the consumer has no group: give group=...")
        return self._group

    def _check_open(self) -> None:
        if not self._is_open:
            raise ClientClosedError(Reason.NOT_SERVING, "the consumer is not open")
