"""What a coordinator knows of one member beside the metadata: soft state, gone with the coordinator. Pure.

Invariants: a member that is condemned stays so; what it released stays released until the metadata has it as nobody's
or granted anew. A condemned member gets no acknowledgement any more, so at `free_ms`, the end of the session that the
last one began, it believes to have nothing: its own session counts from the sending of that heartbeat.
"""

from dataclasses import dataclass, field

from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition, MemberInfo

NO_STREAM = 0


@dataclass(frozen=True, slots=True)
class Condemned:
    """A member that is to be taken out of the group."""

    cause: str
    """What it did, after its name: "was silent for 10 s"."""
    free_ms: int
    """From then on it may be taken out."""
    reason: Reason = Reason.UNKNOWN_MEMBER
    """What it is told."""
    by_itself: bool = False
    """It has left."""


@dataclass(slots=True)
class Session:
    """Times monotonic ms."""

    heard_ms: int
    """When the last acknowledged heartbeat came, or later: after a pause of this process, or a takeover."""
    polled_ms: int
    """When `polls` was last seen to change, or later."""
    polls: int = -1
    stream: int = NO_STREAM
    """The present Join stream."""
    returning: bool = False
    """It has said that it stops and comes back: it reads nothing now."""
    condemned: Condemned | None = None
    revoked: dict[GroupPartition, int] = field(default_factory=dict)
    """What it is to give up, and since when."""
    released: dict[GroupPartition, int] = field(default_factory=dict)
    """What it gave up and the metadata has as its own still, with the generation in which it had got that."""

    def heartbeat(self, polls: int, now_ms: int) -> None:
        """It lives."""
        self.heard_ms = max(self.heard_ms, now_ms)
        if polls != self.polls:
            self.polls, self.polled_ms = polls, max(self.polled_ms, now_ms)

    def prolong(self, pause_ms: int) -> None:
        """This process stood still: what the member did meanwhile is not known."""
        self.heard_ms += pause_ms
        self.polled_ms += pause_ms
        self.revoked = {partition: since_ms + pause_ms for partition, since_ms in self.revoked.items()}

    def end_ms(self, member: MemberInfo) -> int:
        """When it is silent for too long."""
        return self.heard_ms + member.session_timeout_ms

    def condemn(self, member: MemberInfo, cause: str, reason: Reason = Reason.UNKNOWN_MEMBER) -> None:
        """Begin to take it out."""
        if self.condemned is None:
            self.condemned = Condemned(cause, self.heard_ms if self.returning else self.end_ms(member), reason)

    def leave(self, cause: str, now_ms: int) -> None:
        """It goes by itself: it believes to have nothing."""
        if self.condemned is None:
            self.condemned = Condemned(cause, now_ms, by_itself=True)

    def due_ms(self, member: MemberInfo) -> int:
        """When `fault` has something to say next, if nothing comes; or when a condemned member may be taken out."""
        if self.condemned is not None:
            return self.condemned.free_ms
        due_ms = self.end_ms(member)
        if member.max_poll_interval_ms and not self.returning:
            due_ms = min(due_ms, self.polled_ms + member.max_poll_interval_ms)
        if self.revoked and not self.returning:
            due_ms = min(due_ms, min(self.revoked.values()) + member.rebalance_timeout_ms)
        return due_ms

    def fault(self, member: MemberInfo, now_ms: int) -> str | None:
        """Return why it cannot stay in the group, in words that follow its name; None: it can."""
        if now_ms >= self.end_ms(member):
            what = "did not come back within" if self.returning else "was silent for"
            return f"{what} {duration(member.session_timeout_ms)}"
        if self.returning:
            return None
        if member.max_poll_interval_ms and now_ms >= self.polled_ms + member.max_poll_interval_ms:
            return f"did not poll for {duration(member.max_poll_interval_ms)}"
        late = [p for p, since_ms in self.revoked.items() if now_ms >= since_ms + member.rebalance_timeout_ms]
        if late:
            what = "1 partition" if len(late) == 1 else f"{len(late)} partitions"
            return f"did not give up {what} within {duration(member.rebalance_timeout_ms)}"
        return None

    def follow(self, member: MemberInfo, now_ms: int) -> None:
        """The metadata of the member changed."""
        self.released = {p: granted for p, granted in self.released.items() if member.owned.get(p) == granted}
        asked = [p for p in member.owned if p not in member.target and p not in self.released]
        self.revoked = {p: self.revoked.get(p, now_ms) for p in asked}


def duration(time_ms: int) -> str:
    """Return a time for people."""
    return f"{time_ms / 1000:g} s"
