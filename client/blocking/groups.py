"""The part of the blocking admin client about consumer groups."""

from collections.abc import Iterable, Mapping

from penstock.client import admin as _admin
from penstock.client.blocking.face import Face
from penstock.client.group_descriptions import (
    AlteredOffset,
    GroupDescription,
    GroupEvent,
    GroupLag,
    GroupState,
    GroupSummary,
    OffsetReset,
    ResetPoint,
)
from penstock.client.records import CommitPoint, CommittedOffset, TopicPartition


class GroupAdmin(Face):
    """See penstock.client.Admin."""

    _inner: _admin.Admin

    def list_groups(self, states: Iterable[GroupState] | None = None) -> list[GroupSummary]:
        """See penstock.client.Admin.list_groups."""
        return self._run(self._inner.list_groups(states))

    def describe_group(self, group_id: str, *, lag: bool = True) -> GroupDescription:
        """See penstock.client.Admin.describe_group."""
        return self._run(self._inner.describe_group(group_id, lag=lag))

    def group_lag(self, group_id: str) -> GroupLag:
        """See penstock.client.Admin.group_lag."""
        return self._run(self._inner.group_lag(group_id))

    def group_history(self, group_id: str, limit: int = 100) -> list[GroupEvent]:
        """See penstock.client.Admin.group_history."""
        return self._run(self._inner.group_history(group_id, limit))

    def group_offsets(
        self, group_id: str, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset]:
        """See penstock.client.Admin.group_offsets."""
        return self._run(self._inner.group_offsets(group_id, partitions))

    def alter_offsets(self, group_id: str, offsets: Mapping[TopicPartition, int | CommitPoint]) -> list[AlteredOffset]:
        """See penstock.client.Admin.alter_offsets."""
        return self._run(self._inner.alter_offsets(group_id, offsets))

    def reset_offsets(
        self,
        group_id: str,
        to: ResetPoint,
        *,
        topics: Iterable[str] | None = None,
        partitions: Iterable[TopicPartition] | None = None,
        validate_only: bool = False,
    ) -> list[OffsetReset]:
        """See penstock.client.Admin.reset_offsets."""
        return self._run(
            self._inner.reset_offsets(group_id, to, topics=topics, partitions=partitions, validate_only=validate_only)
        )

    def delete_group(self, group_id: str, *, validate_only: bool = False) -> None:
        """See penstock.client.Admin.delete_group."""
        self._run(self._inner.delete_group(group_id, validate_only=validate_only))
