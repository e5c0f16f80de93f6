"""Whether a commit counts (rule 20): by a member that has the partition, in a generation in which it has it. Pure."""

from collections.abc import Container
from typing import NamedTuple

from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition


class CommitCheck(NamedTuple):
    """One request's."""

    group: GroupInfo
    member_id: str
    generation: int

    def of_nobody(self, *, is_joined: bool, is_deleting: bool) -> PenstockError | None:
        """Return why offsets cannot be set but by members, or None. `is_joined`: somebody is about to be a member."""
        group = self.group
        if group.members or is_joined:
            count = max(1, len(group.members))
            text = f"group {group.group_id!r} has {count} member{'s' * (count > 1)}: stop them first"
            return PenstockError(Reason.GROUP_NOT_EMPTY, text, {"members": str(count)})
        if is_deleting:
            return PenstockError(Reason.UNKNOWN_GROUP, f"group {group.group_id!r} is being deleted")
        return None

    def of_member(self, partition: GroupPartition, released: Container[GroupPartition]) -> PenstockError | None:
        """Return why the member's commit for a partition is refused, or None."""
        granted = self.group.members[self.member_id].owned.get(partition)
        if granted is None or partition in released:
            text = f"{self.member_id!r} does not have this partition" + (" any more" if granted is not None else "")
            return PenstockError(Reason.PARTITION_NOT_OWNED, text)
        if self.generation < granted:
            text = f"it was given to the member anew in generation {granted}, the commit is of {self.generation}"
            return PenstockError(Reason.STALE_GENERATION, text)
        if self.generation > self.group.generation:
            text = f"generation {self.generation} is not there yet: the group's is {self.group.generation}"
            return PenstockError(Reason.STALE_GENERATION, text)
        return None
