"""Which targets the members of a group are to have, and whether the present ones still fit the topics. Pure."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from penstock.node.group.assignor import assign, chosen_assignor
from penstock.node.group.joining import subscribed_of
from penstock.node.group.subscription import Catalog, Subscribed
from penstock.raft.image import GroupPartition, MemberInfo

Members = Mapping[str, MemberInfo]


class Targets(NamedTuple):
    """A rebalance's outcome."""

    assignor: int
    by_member: Mapping[str, frozenset[GroupPartition]]


def wanted_targets(members: Members, catalog: Catalog) -> Targets:
    """Return what each member is to have.

    Sticky is to what they were to have; what nobody was to have, to its owner. Static members stand in the order of
    their instances, so that a restart moves nothing.
    """
    selects = _selections(catalog)
    assignor = chosen_assignor(member.assignor for member in members.values())
    keys = {member_id: _key(member) for member_id, member in members.items()}
    claimed = frozenset().union(*(member.target for member in members.values()))
    shares = assign(
        assignor,
        {keys[member_id]: selects(subscribed_of(member)) for member_id, member in members.items()},
        catalog.counts,
        {keys[member_id]: member.target | (member.owned.keys() - claimed) for member_id, member in members.items()},
    )
    return Targets(assignor, {member_id: shares[key] for member_id, key in keys.items()})


def topic_causes(members: Members, staying: Members, catalog: Catalog, names: Mapping[bytes, str]) -> list[str]:
    """Return, in words, what has changed about the topics since the targets were made; nothing: they fit.

    `staying`: those whose subscriptions count. `names`: of topics that may be gone.
    """
    selects = _selections(catalog)
    selected: set[bytes] = set().union(*(selects(subscribed_of(member)) for member in staying.values()))
    targeted: dict[bytes, int] = {}
    for member in members.values():
        for topic_id, _ in member.target:
            targeted[topic_id] = targeted.get(topic_id, 0) + 1
    changed = (
        topic_id
        for topic_id in selected | targeted.keys()
        if topic_id not in selected or targeted.get(topic_id, 0) != catalog.counts[topic_id]
    )
    return sorted(_topic_cause(topic_id, targeted.get(topic_id, 0), catalog, names) for topic_id in changed)


def _topic_cause(topic_id: bytes, targeted: int, catalog: Catalog, names: Mapping[bytes, str]) -> str:
    name = f"topic {names[topic_id]}" if topic_id in names else "a topic"
    present = catalog.counts.get(topic_id, 0)
    if not present:
        return f"{name} was deleted"
    if not targeted:
        return f"{name} is there now"
    return f"partitions were added to {name}" if targeted < present else f"nobody subscribes to {name}"


def _selections(catalog: Catalog) -> Callable[[Subscribed], frozenset[bytes]]:
    """Subscriptions of a group are mostly the same: each is looked at once."""
    found: dict[Subscribed, frozenset[bytes]] = {}

    def selects(subscribed: Subscribed) -> frozenset[bytes]:
        if subscribed not in found:
            found[subscribed] = subscribed.selected(catalog)
        return found[subscribed]

    return selects


def _key(member: MemberInfo) -> str:
    return f"instance {member.instance_id}" if member.instance_id else f"member {member.member_id}"
