"""What a member asks for when it joins, and whether it may. Pure.

Owns the defaults and bounds of what a JoinStart may say; everything outside them is a precise error.
"""

from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration

from penstock.node.group.subscription import Subscribed, check_subscription
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_GROUP_ID, MAX_GROUP_MEMBERS, MAX_MEMBER_HOST, MAX_MEMBER_ID
from penstock.protocol.reasons import Reason
from penstock.raft.image import MemberInfo
from penstock.v1 import group_service_pb2 as pb

DEFAULT_SESSION_TIMEOUT_MS = 10_000
DEFAULT_REBALANCE_TIMEOUT_MS = 60_000
MAX_REBALANCE_TIMEOUT_MS = 1_800_000
MAX_POLL_INTERVAL_MS = 86_400_000
HEARTBEATS_PER_SESSION = 3
"""That a member is asked to send."""
MAX_HEARTBEAT_INTERVAL_MS = 3_000


class GroupLimits(NamedTuple):
    """Bounds that a node sets. Times in ms."""

    session_timeout_min_ms: int = 1_000
    session_timeout_max_ms: int = 1_800_000
    takeover_grace_ms: int = 3_000
    """A coordinator acknowledges no heartbeat later than this after another has taken over."""
    max_members: int = MAX_GROUP_MEMBERS


@dataclass(frozen=True, slots=True)
class Wish:
    """A member as it wants to be; it has no partitions yet."""

    member: MemberInfo
    generation: int
    """That it has last heard; 0: it joins anew."""

    @property
    def subscribed(self) -> Subscribed:
        """What it subscribes to."""
        return subscribed_of(self.member)


def subscribed_of(member: MemberInfo) -> Subscribed:
    """Return what a member subscribes to."""
    return Subscribed(member.topics, member.pattern)


def heartbeat_interval_ms(session_timeout_ms: int) -> int:
    """Return how often a member is to send a heartbeat."""
    return max(1, min(MAX_HEARTBEAT_INTERVAL_MS, session_timeout_ms // HEARTBEATS_PER_SESSION))


def wish_of(start: pb.JoinStart, host: str, limits: GroupLimits) -> Wish:
    """Return what a JoinStart asks for. Raises INVALID_GROUP_ID, INVALID_ARGUMENT, INVALID_SUBSCRIPTION."""
    check_group_id(start.group_id)
    _check_texts(start)
    if start.HasField("assignor") and start.assignor not in _ASSIGNORS:
        raise invalid(f"assignor {start.assignor} is none of STICKY, RANGE, ROUND_ROBIN")
    subscribed = check_subscription(start.subscription.topics, start.subscription.pattern)
    session_ms = _duration_ms(start, "session_timeout", DEFAULT_SESSION_TIMEOUT_MS)
    if not limits.session_timeout_min_ms <= session_ms <= limits.session_timeout_max_ms:
        text = f"from {limits.session_timeout_min_ms} to {limits.session_timeout_max_ms} ms"
        raise invalid(f"session_timeout is {session_ms} ms, this cluster allows {text}")
    member = MemberInfo(
        member_id=start.member_id,
        instance_id=start.instance_id,
        client_id=start.client_id,
        host=host[:MAX_MEMBER_HOST],
        topics=subscribed.topics,
        pattern=subscribed.pattern,
        assignor=start.assignor if start.HasField("assignor") else 0,
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=_bounded(start, "rebalance_timeout", DEFAULT_REBALANCE_TIMEOUT_MS),
        max_poll_interval_ms=_bounded(start, "max_poll_interval", 0),
    )
    return Wish(member, start.generation)


def check_group_id(group_id: str) -> None:
    """Raise INVALID_GROUP_ID for what cannot be a group's id."""
    if not group_id:
        raise PenstockError(Reason.INVALID_GROUP_ID, "the group id is empty")
    if len(group_id) > MAX_GROUP_ID:
        text = f"the group id has {len(group_id)} characters, {MAX_GROUP_ID} may be"
        raise PenstockError(Reason.INVALID_GROUP_ID, text)


def invalid(detail: str) -> PenstockError:
    """Return INVALID_ARGUMENT."""
    return PenstockError(Reason.INVALID_ARGUMENT, detail)


_ASSIGNORS = frozenset({pb.ASSIGNOR_STICKY, pb.ASSIGNOR_RANGE, pb.ASSIGNOR_ROUND_ROBIN})
_LONGEST_MS = {"rebalance_timeout": MAX_REBALANCE_TIMEOUT_MS, "max_poll_interval": MAX_POLL_INTERVAL_MS}


def _check_texts(start: pb.JoinStart) -> None:
    if not start.member_id:
        raise invalid("the member id is empty: choose a unique one, a UUID, say")
    for name in ("member_id", "instance_id", "client_id"):
        length = len(getattr(start, name))
        if length > MAX_MEMBER_ID:
            raise invalid(f"{name} has {length} characters, {MAX_MEMBER_ID} may be")


def _bounded(start: pb.JoinStart, name: str, default_ms: int) -> int:
    value_ms = _duration_ms(start, name, default_ms)
    if start.HasField(name) and not 0 < value_ms <= _LONGEST_MS[name]:  # type: ignore[arg-type]  # one of its fields
        raise invalid(f"{name} is {value_ms} ms, it may be from 1 to {_LONGEST_MS[name]} ms")
    return value_ms


def _duration_ms(start: pb.JoinStart, name: str, default_ms: int) -> int:
    if not start.HasField(name):  # type: ignore[arg-type]  # one of its fields
        return default_ms
    duration: Duration = getattr(start, name)
    return duration.seconds * 1000 + duration.nanos // 1_000_000
