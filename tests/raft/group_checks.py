"""What holds of the groups in every metadata image, and between an image and the next."""

from collections import Counter

from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage


def check_group(group: GroupInfo) -> None:
    """Rule 21, and what else holds of a group."""
    members = group.members
    assert list(members) == sorted(members)
    assert all(member_id == member.member_id for member_id, member in members.items())
    instances = Counter(member.instance_id for member in members.values() if member.instance_id)
    assert all(count == 1 for count in instances.values()), group
    for shares in ([m.owned for m in members.values()], [m.target for m in members.values()]):
        holders = Counter(partition for share in shares for partition in share)
        assert all(count == 1 for count in holders.values()), group
    assert all(1 <= granted <= group.generation for m in members.values() for granted in m.owned.values()), group
    assert (group.emptied_ms == 0) == bool(members), group
    assert (group.rebalanced_ms > 0) == (group.generation > 0), group


def check_step(old: MetadataImage, new: MetadataImage) -> None:
    """A group that changed says in which command; its generation stays or rises by one."""
    for group_id, group in new.groups.items():
        before = old.groups.get(group_id)
        if before is group or (before == group and old.version == 0):
            continue
        assert group.group_epoch == new.version, group
        if before is None:
            assert group.generation <= 1
        else:
            assert group.generation - before.generation in {0, 1}, (before, group)
            check_granted(before, group)
    for group_id in old.groups.keys() - new.groups.keys():
        assert not old.groups[group_id].members


def check_granted(before: GroupInfo, after: GroupInfo) -> None:
    """Who gets a partition gets it in the present generation and by the target, or of a member that is gone."""
    gone = [member for member_id, member in before.members.items() if member_id not in after.members]
    left = {partition: granted for member in gone for partition, granted in member.owned.items()}
    for member_id, member in after.members.items():
        former = before.members.get(member_id)
        kept = former.owned if former is not None else {}
        for partition, granted in member.owned.items():
            if kept.get(partition) == granted or left.get(partition) == granted:
                continue
            assert granted == after.generation, (before, after)
            assert partition in member.target or partition in left, (before, after)
        if after.generation == before.generation:
            assert member.target <= (former.target if former is not None else frozenset()), (before, after)


class Grants:
    """All grants of one group: nobody but who had it before gets a partition that was granted in that generation."""

    def __init__(self) -> None:
        self._granted: dict[tuple[GroupPartition, int], str] = {}

    def look(self, before: GroupInfo | None, after: GroupInfo | None) -> None:
        """Note what a step granted. A group that is deleted begins anew."""
        if after is None:
            self._granted.clear()
            return
        former = before.members if before is not None else {}
        gone = {p for member_id, m in former.items() if member_id not in after.members for p in m.owned}
        for member_id, member in after.members.items():
            for partition, granted in member.owned.items():
                holder = self._granted.get((partition, granted))
                assert holder in {None, member_id} or partition in gone, (partition, granted, holder, member_id)
                self._granted[partition, granted] = member_id
