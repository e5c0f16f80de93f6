"""What members are told whose stream or call is refused. Pure."""

from penstock.node.group.causes import name_of
from penstock.node.group.session import Condemned
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import MemberInfo

SHOWN_CHARACTERS = 100
"""Of an id that a client has made up."""


def stranger(group_id: str, member_id: str, condemned: Condemned | None, *, returning: bool) -> PenstockError:
    """Who is no member, or none for long. `condemned`: what it did; `returning`: it left, to come back."""
    text = f"{member_id[:SHOWN_CHARACTERS]!r} is not a member of group {group_id!r}"
    if condemned is not None:
        return PenstockError(condemned.reason, f"{text} any more: it {condemned.cause}")
    if returning:
        return PenstockError(Reason.UNKNOWN_MEMBER, f"{text} now: it left, to come back")
    return PenstockError(Reason.UNKNOWN_MEMBER, f"{text}: it was removed, or never joined")


def replaced(member: MemberInfo) -> PenstockError:
    """Who has a newer stream."""
    return PenstockError(Reason.MEMBER_REPLACED, f"{name_of(member)} has a newer stream")


def in_use(member: MemberInfo) -> PenstockError:
    """Who comes by the instance_id of a member that is connected."""
    text = f"instance_id {member.instance_id!r} is in use: {name_of(member)} is connected"
    return PenstockError(Reason.INSTANCE_IN_USE, text, {"member_id": member.member_id})


def full(group_id: str, members: int) -> PenstockError:
    """Who comes to a group that takes nobody more."""
    return PenstockError(Reason.GROUP_FULL, f"group {group_id!r} has {members} members, which is the limit")
