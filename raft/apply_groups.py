"""Applying changes of consumer groups, as their coordinators have decided them (rules 21, 31). Pure.

A change is applied or refused by itself. Refused is, in this order:

    MALFORMED         what no coordinator should send: no time, an id that is empty or too long, a text above its limit,
                      a member that is put twice, or put and removed
    NOT_COORDINATOR   who decided does not lead the group's partition of __offsets in that leader_epoch (rule 31)
    STALE             decided on another group_epoch: also every repeat, for each change gives a new one
    LIMIT             too many groups, or members or partitions of this one
    INVALID           it would break what holds of a group, see `raft.group_rules`; deleting what has members

`assignor`, `cause` and `time_ms` are noted where the generation rises; where it does not they are not looked at.
"""

from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.limits import MAX_GROUPS
from penstock.raft.draft import Draft
from penstock.raft.group_records import member_of
from penstock.raft.group_rules import check_change, check_group
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, MemberInfo, PartitionInfo, offsets_index
from penstock.raft.refused import Refused, stale


def alter_groups(draft: Draft, command: pb.AlterGroups, index: int) -> pb.MetadataResult:
    """Apply each change that is not refused; one result for each."""
    result = pb.MetadataResult()
    for change in command.changes:
        try:
            _alter(draft, change, index)
            result.changes.add()
        except Refused as refused:
            result.changes.add(refusal=refused.refusal, detail=refused.detail)
    return result


def _alter(draft: Draft, change: pb.GroupChange, index: int) -> None:
    check_change(change)
    _check_coordinator(draft, change)
    present = draft.groups.get(change.group_id)
    group_epoch = 0 if present is None else present.group_epoch
    if change.group_epoch != group_epoch:
        raise stale(f"group_epoch of {change.group_id!r} is {group_epoch}, not {change.group_epoch}")
    if change.delete:
        _delete(draft, change.group_id)
        return
    if present is None and len(draft.groups) >= MAX_GROUPS:
        raise Refused(pb.REFUSAL_LIMIT, f"there are {MAX_GROUPS} groups")
    before = present or GroupInfo(change.group_id, group_epoch=0)
    after = _changed(before, change, index)
    check_group(before, after)
    draft.put_group(after)


def _check_coordinator(draft: Draft, change: pb.GroupChange) -> None:
    """Rule 31: only who leads the group's partition of __offsets now decides about the group."""
    info = _offsets_partition(draft, change.group_id)
    if info is None:
        raise Refused(pb.REFUSAL_NOT_COORDINATOR, f"there is no topic {OFFSETS_TOPIC}")
    if (info.leader, info.leader_epoch) != (change.coordinator, change.leader_epoch):
        text = f"coordinator of {change.group_id!r} is node {info.leader} in leader_epoch {info.leader_epoch}"
        raise Refused(pb.REFUSAL_NOT_COORDINATOR, text)


def _offsets_partition(draft: Draft, group_id: str) -> PartitionInfo | None:
    topic = draft.topics.get(draft.topic_ids.get(OFFSETS_TOPIC, b""))
    if topic is None:
        return None
    return draft.partition(topic.topic_id, offsets_index(group_id, len(topic.partitions)))


def _delete(draft: Draft, group_id: str) -> None:
    group = draft.groups.get(group_id)
    if group is None:
        raise Refused(pb.REFUSAL_INVALID, f"there is no group {group_id!r} to delete")
    if group.members:
        raise Refused(pb.REFUSAL_INVALID, f"group {group_id!r} has {len(group.members)} members")
    draft.drop_group(group_id)


def _changed(before: GroupInfo, change: pb.GroupChange, index: int) -> GroupInfo:
    members = _members(before, change)
    after = replace(
        before,
        group_epoch=index,
        generation=change.generation,
        members=members,
        emptied_ms=0 if members else before.emptied_ms or change.time_ms,
    )
    if change.generation > before.generation:
        after = replace(after, assignor=change.assignor, cause=change.cause, rebalanced_ms=change.time_ms)
    return after


def _members(before: GroupInfo, change: pb.GroupChange) -> dict[str, MemberInfo]:
    """Return who is a member afterwards, by member_id and in its order."""
    unknown = [member_id for member_id in change.removed if member_id not in before.members]
    if unknown:
        raise Refused(pb.REFUSAL_INVALID, f"member {unknown[0]!r} is to be removed and is none")
    members = dict(before.members)
    for member_id in change.removed:
        del members[member_id]
    joined = False
    for record in change.put:
        joined = joined or record.member_id not in members
        members[record.member_id] = member_of(record)
    return dict(sorted(members.items())) if joined else members
