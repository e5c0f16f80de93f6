"""Settings of a consumer in a group, checked once. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from penstock.client.checks import between, invalid, one_of
from penstock.client.errors import InvalidRequestError
from penstock.client.group.listener import RebalanceListener
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

MAX_ID = 249
"""Characters of a group id, an instance id, a client id."""
MAX_TOPICS = 1_000
"""Topics that a member may subscribe to by name."""
MAX_REBALANCE_TIMEOUT_MS = 1_800_000
MAX_POLL_INTERVAL_MS = 86_400_000

ASSIGNORS = {
    "sticky": pb.ASSIGNOR_STICKY,
    "range": pb.ASSIGNOR_RANGE,
    "roundrobin": pb.ASSIGNOR_ROUND_ROBIN,
}


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What a member reads: topics by name, by pattern, or both."""

    topics: tuple[str, ...] = ()
    pattern: str = ""

    def __bool__(self) -> bool:
        """Something is subscribed."""
        return bool(self.topics or self.pattern)


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """Settings of a consumer in a group and their defaults."""

    group: str
    topics: str | Sequence[str] = ()
    """To read, by name; they must exist. See `pattern` and Consumer.subscribe."""
    pattern: str | None = None
    """An RE2 expression: all topics whose whole name it matches, those that come later too."""
    instance_id: str | None = None
    """Makes the member static: who comes back by the same one has its partitions again, without a rebalance."""
    client_id: str | None = None
    """For people."""
    assignor: str | None = None
    """ "sticky", "range", "roundrobin"; None: what the others want, "sticky" where none says."""
    session_timeout_ms: int = 10_000
    """A member not heard of for longer is removed, and stops reading by itself before that."""
    rebalance_timeout_ms: int = 60_000
    """How long giving up partitions may take."""
    max_poll_interval_ms: int = 300_000
    """Who asks for no records for longer gives its partitions up."""
    auto_commit: bool = True
    """Commit, in the background, what was handed out and asked past."""
    auto_commit_interval_ms: int = 5_000
    start: str = "earliest"
    """Where to begin in partitions of which the group has no committed offset: "earliest"; "latest": only in topics of
    which it has none at all; "error": raise."""
    listener: RebalanceListener | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name in ("group", "instance_id", "client_id"):
            self._check_id(name)
        if self.assignor is not None:
            one_of("assignor", self.assignor, ASSIGNORS)
        one_of("start", self.start, ("earliest", "latest", "error"))
        between("session_timeout_ms", self.session_timeout_ms, 100, 1 << 31)
        between("rebalance_timeout_ms", self.rebalance_timeout_ms, 100, MAX_REBALANCE_TIMEOUT_MS)
        between("max_poll_interval_ms", self.max_poll_interval_ms, 100, MAX_POLL_INTERVAL_MS)
        between("auto_commit_interval_ms", self.auto_commit_interval_ms, 1, 1 << 31)
        _ = self.subscribed  # checks it

    @property
    def subscribed(self) -> Subscribed:
        """What is subscribed from the start."""
        return subscribed(self.topics, self.pattern)

    def _check_id(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
            reason = Reason.INVALID_GROUP_ID if name == "group" else Reason.INVALID_ARGUMENT
            raise InvalidRequestError(reason, f"{name} is {value!r}, not 1 to {MAX_ID} characters")


def subscribed(topics: str | Sequence[str], pattern: str | None) -> Subscribed:
    """Make a subscription of what an application gives. One name alone works too."""
    names = (topics,) if isinstance(topics, str) else tuple(dict.fromkeys(topics))
    if len(names) > MAX_TOPICS:
        raise invalid(f"{len(names)} topics are subscribed by name, above {MAX_TOPICS}: use a pattern")
    for name in names:
        if not name or not isinstance(name, str):
            raise invalid(f"{name!r} is no topic name")
    return Subscribed(names, pattern or "")


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], GroupConfig | None]:
    """Tell the settings of any consumer from those of a group; without `group` there must be none of these."""
    names = {field.name for field in fields(GroupConfig)}
    plain = {name: value for name, value in options.items() if name not in names}
    grouped = {name: value for name, value in options.items() if name in names}
    if grouped.get("group") is not None:
        return plain, GroupConfig(**grouped)
    grouped.pop("group", None)
    if grouped:
        raise invalid(
            f"{', '.join(sorted(grouped))} can be set in a group only: give group=..., or use assign() without these"
        )
    return plain, None
