"""A member's side, as docs/protocol.md asks for it: what it believes to own, and when it stops to. Virtual time."""

from dataclasses import dataclass, field

from penstock.node.group.events import Assigned
from penstock.node.group.joining import Wish
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition, MemberInfo

NEVER = 1 << 60


@dataclass
class Held:
    """A partition that the member reads, until `until_ms` at the latest."""

    granted: int
    until_ms: int = NEVER
    asked: int = 0
    """Generation of the assignment that asked for it back; 0: it may keep it."""


@dataclass
class Client:
    """One process. It rejoins by the same member_id until it is told that it is no member."""

    number: int
    topics: tuple[str, ...]
    pattern: str
    instance_id: str
    session_ms: int
    rebalance_ms: int
    poll_ms: int
    incarnation: int = 1
    alive: bool = True
    paused_until_ms: int = 0
    is_hung: bool = False
    """While it stands still, a thread of its own sends heartbeats outside of the stream."""
    now_ms: int = 0
    generation: int = 0
    stream: int | None = None
    """Its present Join stream."""
    is_joined: bool = False
    """The stream's JoinStart was answered."""
    left: bool = False
    acked_ms: int = -NEVER
    """When the last acknowledged heartbeat was sent."""
    polled_ms: int = 0
    polls: int = 0
    beat_ms: int = 0
    """When the last heartbeat was sent."""
    sequence: int = 0
    sent: dict[int, int] = field(default_factory=dict)
    """When which heartbeat was sent."""
    held: dict[GroupPartition, Held] = field(default_factory=dict)
    released: dict[GroupPartition, int] = field(default_factory=dict)
    """What it gave up, by the generation that it said so in: what was granted earlier is not its own."""
    owed: dict[GroupPartition, int] = field(default_factory=dict)
    """What it has to release still, by the generation that asked for it."""
    must_rejoin: bool = False
    """It has dropped what the coordinator may still call its own: only a new stream tells."""
    retry_ms: int = 0

    @property
    def member_id(self) -> str:
        """Of this incarnation."""
        return f"c{self.number}.{self.incarnation}"

    def wish(self) -> Wish:
        """What it joins with."""
        member = MemberInfo(
            self.member_id,
            self.instance_id,
            topics=self.topics,
            pattern=self.pattern,
            session_timeout_ms=self.session_ms,
            rebalance_timeout_ms=self.rebalance_ms,
            max_poll_interval_ms=self.poll_ms,
        )
        return Wish(member, self.generation)

    # ---- what it believes

    def in_session(self, now_ms: int) -> bool:
        """Whether it may give out records at all."""
        return now_ms < self.acked_ms + self.session_ms and (not self.poll_ms or now_ms < self.polled_ms + self.poll_ms)

    def believes(self, now_ms: int) -> list[GroupPartition]:
        """What it would read now. A process that stands still asks this before anything else when it goes on."""
        if not self.alive or not self.in_session(now_ms):
            return []
        return [partition for partition, held in self.held.items() if now_ms < held.until_ms]

    def lose_all(self) -> None:
        """It has nothing any more."""
        self.held.clear()
        self.owed.clear()

    # ---- what it is told

    def on_joined(self, generation: int, sent_ms: int) -> None:
        """`sent_ms`: when the JoinStart was sent."""
        self.is_joined = True
        self.generation = max(self.generation, generation)
        self._acknowledge(sent_ms)

    def on_ack(self, sequence: int) -> None:
        """A heartbeat was acknowledged."""
        self._acknowledge(self.sent[sequence])

    def _acknowledge(self, sent_ms: int) -> None:
        self.acked_ms = max(self.acked_ms, sent_ms)

    def on_assigned(self, assigned: Assigned) -> list[GroupPartition]:
        """Take the assignment; what it has and is told nothing of any more."""
        self.generation = max(self.generation, assigned.generation)
        told = {p: granted for p, granted in assigned.partitions if granted >= self.released.get(p, 0)}
        # What it does not have and is still called its own: the release was lost, or is on its way.
        self.owed = dict.fromkeys([p for p, _ in assigned.partitions if p not in told], assigned.generation)
        self.owed |= {p: assigned.generation for p in assigned.revoked if p not in self.held}
        self.released |= self.owed
        lost = [p for p in self.held if p not in told and p not in assigned.revoked]
        for partition, granted in told.items():
            held = self.held.get(partition)
            if held is None or held.granted != granted:
                self.held[partition] = Held(granted)
            else:
                held.until_ms, held.asked = NEVER, 0
        for partition in assigned.revoked:
            held = self.held.get(partition)
            if held is not None:
                held.until_ms = min(held.until_ms, self.acked_ms + assigned.release_within_ms)
                held.asked = assigned.generation
        for partition in lost:
            del self.held[partition]
        return lost

    def on_end(self, error: PenstockError | None, now_ms: int) -> None:
        """Its present stream ended."""
        self.stream, self.is_joined, self.must_rejoin = None, False, False
        if error is not None and error.reason in {Reason.UNKNOWN_MEMBER, Reason.INSTANCE_FENCED}:
            self.begin_anew()
        self.retry_ms = now_ms + 200

    def begin_anew(self) -> None:
        """Another member from now on."""
        self.lose_all()
        self.released.clear()
        self.sent.clear()
        self.incarnation += 1
        self.generation = self.polls = 0
        self.acked_ms = -NEVER
        self.is_joined = self.must_rejoin = False
        self.stream = None

    # ---- what it does

    def expire(self, now_ms: int) -> None:
        """Its own fencing (decision 8): asked before anything else."""
        self.now_ms = now_ms
        if self.is_joined and not self.in_session(now_ms):
            self.lose_all()
            self.must_rejoin = True
        for partition in [p for p, held in self.held.items() if now_ms >= held.until_ms]:
            self._give_up(partition)

    def release(self) -> dict[GroupPartition, int]:
        """Give up what it is asked to; what to release, by generation."""
        for partition in [p for p, held in self.held.items() if held.asked]:
            self._give_up(partition)
        owed, self.owed = self.owed, {}
        return owed

    def _give_up(self, partition: GroupPartition) -> None:
        self.owed[partition] = self.released[partition] = self.held.pop(partition).asked
