"""What holds of every consumer group, and what a change of one must look like. Pure.

Checked at the boundary, so that no coordinator, whatever its fault, gives one partition to two members (rule 21):

1. A partition has at most one owner, and is in the target of at most one member.
2. The generation stays or rises by one. A target gains partitions only in a new generation.
3. What a member gets is in its target and granted in the present generation; so a partition is given to another at most
   once a generation. A member may also have what one had that is removed in the same change (static members).
4. Ids of members are unique, ids of instances too.
"""

from collections.abc import Iterable, Mapping, Sequence

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.limits import (
    MAX_GROUP_ID,
    MAX_GROUP_MEMBERS,
    MAX_GROUP_PARTITIONS,
    MAX_MEMBER_HOST,
    MAX_MEMBER_ID,
    MAX_PARTITIONS_PER_TOPIC,
    MAX_PATTERN,
    MAX_REBALANCE_CAUSE,
    MAX_SUBSCRIBED_TOPICS,
    MAX_TOPIC_NAME,
)
from penstock.raft.apply_nodes import ID_BYTES
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo
from penstock.raft.refused import Refused, malformed

# ---- the form of a change


def check_change(change: pb.GroupChange) -> None:
    """Refuse what no coordinator should send."""
    if not 0 < len(change.group_id) <= MAX_GROUP_ID:
        raise malformed(f"a group id has 1 to {MAX_GROUP_ID} characters, not {len(change.group_id)}")
    if change.time_ms <= 0 or len(change.cause) > MAX_REBALANCE_CAUSE:
        raise malformed(f"there is no time, or the cause has more than {MAX_REBALANCE_CAUSE} characters")
    if change.delete and (change.put or change.removed):
        raise malformed("members are changed of a group that is deleted")
    named = [*(member.member_id for member in change.put), *change.removed]
    if len(set(named)) != len(named):
        raise malformed("a member is put or removed twice, or both")
    for member in change.put:
        _check_record(member)


def _check_record(member: pb.GroupMemberRecord) -> None:
    _check_texts(member)
    for share in member.owned:
        if len(share.granted_generations) != len(share.partitions):
            raise malformed(f"member {member.member_id!r} has partitions without a generation, or the reverse")
    if any(share.granted_generations for share in member.target):
        raise malformed(f"the target of {member.member_id!r} is granted")
    for shares in (member.owned, member.target):
        _check_shares(member.member_id, shares)


def _check_shares(member_id: str, shares: Sequence[pb.GroupShareRecord]) -> None:
    topic_ids = [share.topic_id for share in shares]
    if len(set(topic_ids)) != len(topic_ids) or any(len(topic_id) != ID_BYTES for topic_id in topic_ids):
        raise malformed(f"a topic of member {member_id!r} is named twice, or its id has not {ID_BYTES} bytes")
    for share in shares:
        indexes = set(share.partitions)
        if not indexes or len(indexes) != len(share.partitions) or max(indexes) >= MAX_PARTITIONS_PER_TOPIC:
            raise malformed(f"partitions of member {member_id!r} are none, named twice, or above what a topic has")


def _check_texts(member: pb.GroupMemberRecord) -> None:
    if not 0 < len(member.member_id) <= MAX_MEMBER_ID:
        raise malformed(f"a member id has 1 to {MAX_MEMBER_ID} characters, not {len(member.member_id)}")
    for text, limit in (
        (member.instance_id, MAX_MEMBER_ID),
        (member.client_id, MAX_MEMBER_ID),
        (member.host, MAX_MEMBER_HOST),
        (member.pattern, MAX_PATTERN),
    ):
        if len(text) > limit:
            raise malformed(f"a text of member {member.member_id!r} has {len(text)} characters, {limit} may be")
    if len(member.topics) > MAX_SUBSCRIBED_TOPICS or any(len(name) > MAX_TOPIC_NAME for name in member.topics):
        raise malformed(f"member {member.member_id!r} names more than {MAX_SUBSCRIBED_TOPICS} topics, or a long one")


# ---- what holds of a group


def check_group(before: GroupInfo, after: GroupInfo) -> None:
    """Refuse a change that breaks what holds of a group."""
    _check_limits(after)
    if not before.generation <= after.generation <= before.generation + 1:
        raise _invalid(f"generation {after.generation} after {before.generation}")
    instances = [member.instance_id for member in after.members.values() if member.instance_id]
    if len(set(instances)) != len(instances):
        raise _invalid("two members have the same instance_id")
    _check_shared("owner", {member_id: member.owned for member_id, member in after.members.items()})
    _check_shared("target", {member_id: member.target for member_id, member in after.members.items()})
    inherited = _inherited(before, after)
    for member_id, member in after.members.items():
        former = before.members.get(member_id)
        if member is former:
            continue
        _check_target(former, member, new_generation=after.generation > before.generation)
        _check_grants(former, member, after.generation, inherited)


def _check_limits(group: GroupInfo) -> None:
    if len(group.members) > MAX_GROUP_MEMBERS:
        raise Refused(pb.REFUSAL_LIMIT, f"{len(group.members)} members, a group may have {MAX_GROUP_MEMBERS}")
    owned = _total(member.owned for member in group.members.values())
    wanted = _total(member.target for member in group.members.values())
    if max(owned, wanted) > MAX_GROUP_PARTITIONS:
        text = f"{max(owned, wanted)} partitions, a group may have {MAX_GROUP_PARTITIONS}"
        raise Refused(pb.REFUSAL_LIMIT, text)


def _total(shares: Iterable[Mapping[GroupPartition, int] | frozenset[GroupPartition]]) -> int:
    return sum(map(len, shares))


def _check_shared(what: str, shares: Mapping[str, Mapping[GroupPartition, int] | frozenset[GroupPartition]]) -> None:
    """Refuse a partition that is in two shares."""
    if len(set().union(*shares.values())) == _total(shares.values()):
        return
    holder: dict[GroupPartition, str] = {}
    for member_id, share in shares.items():
        for partition in share:
            other = holder.setdefault(partition, member_id)
            if other != member_id:
                text = f"partition {partition.partition} of topic {partition.topic_id.hex()} would have two: "
                raise _invalid(f"{what} of {text}{other!r} and {member_id!r}")


def _inherited(before: GroupInfo, after: GroupInfo) -> dict[GroupPartition, int]:
    """What those had that are members no more."""
    gone = [member for member_id, member in before.members.items() if member_id not in after.members]
    return {partition: generation for member in gone for partition, generation in member.owned.items()}


def _check_target(former: MemberInfo | None, member: MemberInfo, *, new_generation: bool) -> None:
    gained = member.target if former is None else member.target - former.target
    if gained and not new_generation:
        raise _invalid(f"the target of {member.member_id!r} gains {len(gained)} partitions without a new generation")


def _check_grants(
    former: MemberInfo | None, member: MemberInfo, generation: int, inherited: Mapping[GroupPartition, int]
) -> None:
    kept = {} if former is None else former.owned
    for partition, granted in member.owned.items():
        if granted == kept.get(partition) or granted == inherited.get(partition):
            continue
        if granted != generation or granted == 0:
            raise _invalid(f"{member.member_id!r} is granted a partition in generation {granted}, it is {generation}")
        if partition not in member.target and partition not in inherited:
            raise _invalid(f"{member.member_id!r} is granted partition {partition.partition}, not in its target")


def _invalid(detail: str) -> Refused:
    return Refused(pb.REFUSAL_INVALID, detail)
