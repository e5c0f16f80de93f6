"""The next change of a group, derived from what is known: who goes, who comes, who gives up what, who gets what. Pure.

Whatever can be done now goes into one change. What it rests on must not change back while its fate is unknown, and does
not: condemned is condemned, released is released, and both refuse commits; so a repeat of a decision, or an older one
that arrives late, is as right as when it was made.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.causes import name_of, told
from penstock.node.group.joining import Wish, subscribed_of
from penstock.node.group.session import Session
from penstock.node.group.subscription import Catalog
from penstock.node.group.targets import topic_causes, wanted_targets
from penstock.raft.group_records import member_record
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision is derived from."""

    group: GroupInfo
    """As the metadata has it; group_epoch 0: it does not."""
    sessions: Mapping[str, Session]
    """One for each member."""
    joins: Mapping[str, Wish]
    """Who wants to become a member."""
    updates: Mapping[str, Wish]
    """What members want to be instead."""
    committing: Container[GroupPartition]
    """Commits for them are in flight (rule 31)."""
    catalog: Catalog
    names: Mapping[bytes, str]
    """Of topics that are or were there."""
    look_at_topics: bool
    """They may have changed since the targets were made."""
    now_ms: int
    wall_ms: int


@dataclass(slots=True)
class Decision:
    """The group as it is to be; `members` begins as it is."""

    facts: Facts
    members: dict[str, MemberInfo]
    generation: int
    assignor: int
    removed: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    """Each makes a new generation."""
    must_share_out: bool = False
    """Who subscribes to what has changed."""
    held: set[GroupPartition] = field(default_factory=set)
    """What could not be taken or given because of commits in flight."""

    def change(self, coordinator: int, leader_epoch: int) -> pb.GroupChange | None:
        """Return it as a command's part; None: nothing changes."""
        group = self.facts.group
        put = [member for member_id, member in self.members.items() if group.members.get(member_id) != member]
        if not put and not self.removed and self.generation == group.generation:
            return None
        change = pb.GroupChange(
            group_id=group.group_id,
            coordinator=coordinator,
            leader_epoch=leader_epoch,
            group_epoch=group.group_epoch,
            generation=self.generation,
            put=[member_record(member) for member in put],
            removed=self.removed,
            time_ms=self.facts.wall_ms,
        )
        if self.generation > group.generation:
            change.assignor = self.assignor
            change.cause = told(self.causes)
        return change


def decide(facts: Facts) -> Decision:
    """Return what the group is to be next."""
    group = facts.group
    decision = Decision(facts, dict(group.members), group.generation, group.assignor)
    gone = _depart(decision)
    _arrive(decision, gone)
    _update(decision)
    _give_up(decision)
    _share_out(decision)
    _grant(decision)
    return decision


def _depart(decision: Decision) -> dict[str, MemberInfo]:
    """Take out who is condemned and surely reads nothing any more, once no commit of it is in flight (rule 31)."""
    facts = decision.facts
    gone = {}
    for member_id, session in facts.sessions.items():
        member = decision.members.get(member_id)
        if member is None or session.condemned is None or facts.now_ms < session.condemned.free_ms:
            continue
        committing = {partition for partition in member.owned if partition in facts.committing}
        if committing:
            decision.held |= committing
            continue
        gone[member_id] = decision.members.pop(member_id)
        decision.removed.append(member_id)
    heirs = {wish.member.instance_id for wish in facts.joins.values()}
    for member_id, member in gone.items():
        if not member.instance_id or member.instance_id not in heirs:
            condemned = facts.sessions[member_id].condemned
            decision.causes.append(f"{name_of(member)} {condemned.cause if condemned else 'is gone'}")
            decision.must_share_out = True
    return gone


def _arrive(decision: Decision, gone: Mapping[str, MemberInfo]) -> None:
    """Take in who wants to join. Who comes for an instance gets its former member's target, and nobody moves."""
    former = {member.instance_id: member for member in gone.values() if member.instance_id}
    holders = {member.instance_id for member in decision.members.values() if member.instance_id}
    for member_id, wish in decision.facts.joins.items():
        member = replace(wish.member, joined_ms=decision.facts.wall_ms)
        if member_id in decision.members or member.instance_id in holders:
            continue  # its former member is not gone yet
        heir_of = former.get(member.instance_id) if member.instance_id else None
        if heir_of is None:
            decision.causes.append(f"{name_of(member)} joined")
            decision.must_share_out = True
        else:
            member = replace(member, target=heir_of.target)
            decision.causes.append(f"{name_of(member)} took over from {name_of(heir_of)}")
            decision.must_share_out = decision.must_share_out or _wants_otherwise(heir_of, member)
        decision.members[member_id] = member


def _update(decision: Decision) -> None:
    for member_id, wish in decision.facts.updates.items():
        member = decision.members.get(member_id)
        if member is None or not _wants_otherwise(member, wish.member):
            continue
        wanted = wish.member
        decision.members[member_id] = replace(
            member, topics=wanted.topics, pattern=wanted.pattern, assignor=wanted.assignor
        )
        decision.causes.append(f"{name_of(member)} changed its subscription")
        decision.must_share_out = True


def _wants_otherwise(former: MemberInfo, member: MemberInfo) -> bool:
    return subscribed_of(former) != subscribed_of(member) or former.assignor != member.assignor


def _give_up(decision: Decision) -> None:
    """Take from members what they have given up (rule 21), unless a commit for it is in flight (rule 31).

    Also what is deleted; and what a member who will come back was to give up: it reads nothing.
    """
    facts = decision.facts
    for member_id, member in list(decision.members.items()):
        session = facts.sessions.get(member_id)
        released = session.released if session is not None else {}
        is_away = session is not None and session.returning
        given_up = {
            partition
            for partition, granted in member.owned.items()
            if released.get(partition) == granted
            or partition.topic_id not in facts.catalog.counts
            or (is_away and partition not in member.target)
        }
        held = {partition for partition in given_up if partition in facts.committing}
        decision.held |= held
        if len(held) < len(given_up):
            kept = {p: granted for p, granted in member.owned.items() if p not in given_up or p in held}
            decision.members[member_id] = replace(member, owned=kept)


def _share_out(decision: Decision) -> None:
    """Make new targets where who subscribes, or what is there to read, has changed; and a new generation with them."""
    facts = decision.facts
    staying = {member_id: member for member_id, member in decision.members.items() if _stays(decision, member)}
    if facts.look_at_topics and not decision.must_share_out:
        causes = topic_causes(decision.members, staying, facts.catalog, facts.names)
        decision.causes += causes
        decision.must_share_out = bool(causes)
    if decision.must_share_out:
        targets = wanted_targets(staying, facts.catalog)
        decision.assignor = targets.assignor
        for member_id, member in decision.members.items():
            target = targets.by_member.get(member_id, frozenset())
            if target != member.target:
                decision.members[member_id] = replace(member, target=target)
    if decision.causes:
        decision.generation += 1


def _stays(decision: Decision, member: MemberInfo) -> bool:
    """Whether it gets a share: who is condemned does not, unless somebody comes to take over from it."""
    session = decision.facts.sessions.get(member.member_id)
    if session is None or session.condemned is None:
        return True
    joins = decision.facts.joins.values()
    return bool(member.instance_id) and any(wish.member.instance_id == member.instance_id for wish in joins)


def _grant(decision: Decision) -> None:
    """Give members what they are to have and nobody has, unless a commit for it is in flight (rules 21, 31)."""
    facts = decision.facts
    owned: set[GroupPartition] = set().union(*(member.owned for member in decision.members.values()))
    for member_id, member in decision.members.items():
        session = facts.sessions.get(member_id)
        if session is not None and session.condemned is not None:
            continue
        free = {p for p in member.target if p not in owned}
        held = {p for p in free if p in facts.committing}
        decision.held |= held
        if len(held) < len(free):
            granted = dict(member.owned) | dict.fromkeys(sorted(free - held), decision.generation)
            decision.members[member_id] = replace(member, owned=granted)
