"""A member of a consumer group as its client knows it: from what the coordinator says and the time, what may be read.

Pure; one object a consumer, over all its streams and memberships. Invariants (rule 21 on the client's side):
- Nothing is held later than `session_timeout` after the *sending* of the last heartbeat that was acknowledged, nor
  later than `max_poll_interval` after the application last asked; a revoked partition not later than its deadline. The
  coordinator counts from a later moment each, so what it gives away is held here no more.
- Nothing is given out later than `rebalance_timeout` after the sending of the last heartbeat acknowledged *on the
  stream*: whatever the coordinator said before it is known, and a revocation that is not known yet has as long.
- After a loss of all the stream is given up: what was said on it before is not believed.
- What is said of a lower generation than one heard before is not believed: a former coordinator says it.
- A broken stream ends nothing; the next one continues the membership under the same member_id.
"""

import math
from collections.abc import Callable, Iterable
from enum import Enum

from penstock.client.errors import is_retriable, is_unknown, make_error
from penstock.client.group.holds import Change, Hold, Holds, Key
from penstock.client.group.options import ASSIGNORS, GroupConfig, Subscribed
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

HEARTBEATS_PER_TIMEOUT = 3
"""A heartbeat is sent at least so many times in a session timeout, and in a rebalance timeout."""
JOIN_TIMEOUT_MS = 15_000
"""A stream on which a new member is not answered for so long is given up."""
MAX_UNACKNOWLEDGED = 64
"""Heartbeats whose sending is remembered."""
_ENDS_MEMBERSHIP = frozenset({Reason.UNKNOWN_MEMBER, Reason.UNKNOWN_GROUP})
_CONTINUES = frozenset({Reason.MEMBER_REPLACED})


class Phase(Enum):
    """Where a member stands."""

    UNSUBSCRIBED = "unsubscribed"
    AWAY = "away"
    """No stream; one is wanted."""
    JOINING = "joining"
    """A stream was opened, the coordinator has not answered."""
    MEMBER = "member"
    RESTING = "resting"
    """It left, or could not join; it joins again when the application asks for records."""
    ENDED = "ended"
    """Closed, or fenced for good."""


class MemberCore:
    """See the module. `unique` makes member ids."""

    def __init__(self, config: GroupConfig, unique: Callable[[], str], now_ms: int) -> None:
        self.config = config
        self.member_id = unique()
        self.generation = 0
        """The last one heard; 0: it joins anew."""
        self.phase = Phase.AWAY if config.subscribed else Phase.UNSUBSCRIBED
        self.subscription = config.subscribed
        self.holds = Holds()
        self.polls = 0
        self.waiting = False
        """The application waits for records right now."""
        self.wants_new_stream = False
        """The present stream is to be given up."""
        self.fatal: PenstockError | None = None
        """Why it cannot be a member any more."""
        self.first_generation: int | None = None
        """Of the first assignment after joining or subscribing; None until it has come."""
        self._unique = unique
        self._asked_ms = now_ms
        self._acked_ms = now_ms
        self._read_up_to_ms = now_ms
        """When the last heartbeat that was acknowledged on the stream was sent."""
        self._opened_ms = now_ms
        self._session_timeout_ms = config.session_timeout_ms
        self._rebalance_timeout_ms = config.rebalance_timeout_ms
        self._interval_ms = config.session_timeout_ms // HEARTBEATS_PER_TIMEOUT
        self._sequence = 0
        self._sent: dict[int, int] = {}
        """When each heartbeat that is not acknowledged was sent."""
        self._next_heartbeat_ms = 0
        self._requests: list[pb.JoinRequest] = []
        self._changes: list[Change] = []
        self._error: PenstockError | None = None

    # -- what the stream calls

    def open(self, now_ms: int) -> pb.JoinRequest:
        """Begin a stream: gives its first request."""
        self.phase = Phase.JOINING
        self.wants_new_stream = False
        self._opened_ms = now_ms
        self._sent.clear()
        self._requests.clear()
        start = pb.JoinStart(
            group_id=self.config.group,
            member_id=self.member_id,
            instance_id=self.config.instance_id or "",
            client_id=self.config.client_id or "",
            subscription=_subscription(self.subscription),
            assignor=None if self.config.assignor is None else ASSIGNORS[self.config.assignor],
            generation=self.generation,
        )
        start.session_timeout.FromMilliseconds(self.config.session_timeout_ms)
        start.rebalance_timeout.FromMilliseconds(self.config.rebalance_timeout_ms)
        start.max_poll_interval.FromMilliseconds(self.config.max_poll_interval_ms)
        return pb.JoinRequest(start=start)

    def received(self, response: pb.JoinResponse, now_ms: int) -> None:
        """Take what the coordinator says. What comes too late to be believed is dropped."""
        self.tick(now_ms)
        if self.wants_new_stream or self.phase not in (Phase.JOINING, Phase.MEMBER):
            return
        if _generation_of(response) < self.generation:  # a former coordinator: it neither assigns nor acknowledges
            self.wants_new_stream = True
            return
        kind = response.WhichOneof("response")
        if kind == "joined":
            self._joined(response.joined, now_ms)
        elif kind == "heartbeat_ack":
            self._acknowledged_here(self._sent.pop(response.heartbeat_ack.sequence, 0))
        elif kind == "assignment":
            self._assigned(response.assignment, now_ms)

    def ended(self, error: PenstockError | None, now_ms: int) -> None:
        """The stream has ended; None where it just broke."""
        self.wants_new_stream = False
        self._sent.clear()
        self._requests.clear()
        if not self.wants_stream:
            return
        self.phase = Phase.AWAY
        if error is None or is_retriable(error) or is_unknown(error) or error.reason in _CONTINUES:
            return
        self._lose_all(error)
        self._begin_anew()
        if error.reason in _ENDS_MEMBERSHIP:
            return
        self._error = error
        self.phase = Phase.RESTING
        if error.reason is Reason.INSTANCE_FENCED:
            self.fail(error)
        self.tick(now_ms)

    def fail(self, error: PenstockError) -> None:
        """It cannot be a member any more."""
        self.phase = Phase.ENDED
        self.fatal = self._error = error

    def acknowledged(self, sent_ms: int) -> None:
        """A heartbeat that was sent then, on this stream or beside it, has reached the coordinator."""
        self._acked_ms = max(self._acked_ms, sent_ms)

    def take_requests(self) -> list[pb.JoinRequest]:
        """Give what is to be sent, in order, once."""
        requests, self._requests = self._requests, []
        return requests

    @property
    def wants_stream(self) -> bool:
        """There should be a stream."""
        return self.phase in (Phase.AWAY, Phase.JOINING, Phase.MEMBER)

    # -- what the reader calls

    def asked(self, now_ms: int) -> None:
        """The application asks for records."""
        self.tick(now_ms)
        self._note_poll(now_ms)
        if self.phase is Phase.RESTING:
            self.phase = Phase.AWAY

    def subscribe(self, subscription: Subscribed) -> None:
        """Read other topics from now on."""
        self.subscription = subscription
        self.first_generation = None
        if self.phase in (Phase.UNSUBSCRIBED, Phase.RESTING):
            self.phase = Phase.AWAY
        elif self.phase is Phase.MEMBER:
            self._requests.append(pb.JoinRequest(subscribe=_subscription(subscription)))
        elif self.phase is Phase.JOINING:
            self.wants_new_stream = True

    def waited(self, now_ms: int) -> None:
        """The application waits for records no longer."""
        self.tick(now_ms)
        self._note_poll(now_ms)
        self.waiting = False

    def release(self, holds: Iterable[Hold]) -> list[Hold]:
        """The application has finished with revoked partitions; gives those that were held still."""
        released = [hold for hold in holds if self.holds.release(hold)]
        if released:
            self._send_release([hold.key for hold in released])
        return released

    def leave(self, reason: str, *, returning: bool) -> bool:
        """Go for good; False where there is nobody to be told. What is held is lost without a word."""
        told = self.phase in (Phase.JOINING, Phase.MEMBER) and not self.wants_new_stream
        if told:
            self._requests.append(pb.JoinRequest(leave=pb.LeaveGroup(reason=reason, returning=returning)))
        self.phase = Phase.ENDED
        self.holds.drop(self.holds)
        return told

    def tick(self, now_ms: int) -> None:
        """Let time pass: heartbeats that are due, what is held no more."""
        if self.phase in (Phase.UNSUBSCRIBED, Phase.ENDED):
            return
        self._check_session(now_ms)
        self._check_polls(now_ms)
        self._check_deadlines(now_ms)
        self._check_stall(now_ms)
        if self.phase is Phase.MEMBER and now_ms >= self._next_heartbeat_ms:
            self._heartbeat(now_ms)

    def due_ms(self) -> int | None:
        """When `tick` has something to do next, at the latest; None: not before there is news."""
        times = [self._lost_ms] if self.holds else []
        deadline_ms = self.holds.next_deadline_ms()
        if deadline_ms is not None:
            times.append(deadline_ms)
        if self.phase is Phase.MEMBER:
            times.append(self._next_heartbeat_ms)
        if self.phase in (Phase.JOINING, Phase.MEMBER) and not self.wants_new_stream:
            times.append(self._stall_ms)
        if not self.waiting and self.wants_stream:
            times.append(self._asked_ms + self.config.max_poll_interval_ms)
        return min(times, default=None)

    def take_changes(self) -> list[Change]:
        """Give what became of the holds, in order, once."""
        changes, self._changes = self._changes, []
        return changes

    def take_error(self) -> PenstockError | None:
        """Give what the application must be told, once."""
        error, self._error = self._error, None
        return error

    @property
    def valid_until_ms(self) -> int:
        """Until when what is read may be given out, if nothing else is heard."""
        return min(self._lost_ms, self._read_up_to_ms + self._rebalance_timeout_ms)

    @property
    def _lost_ms(self) -> int:
        """When all is lost, if nothing else is heard."""
        session_ms = self._acked_ms + self._session_timeout_ms
        return session_ms if self.waiting else min(session_ms, self._asked_ms + self.config.max_poll_interval_ms)

    @property
    def heartbeat_interval_ms(self) -> int:
        """How often the coordinator hears of the member."""
        return self._interval_ms

    # -- inside

    @property
    def _stall_ms(self) -> int:
        """When a stream without acknowledgements is given up, for there may be another coordinator."""
        if self.generation == 0:
            return self._opened_ms + JOIN_TIMEOUT_MS
        return max(self._acked_ms, self._opened_ms) + self._session_timeout_ms * 2 // 3

    def _joined(self, joined: pb.MemberJoined, now_ms: int) -> None:
        self.phase = Phase.MEMBER
        self.generation = max(self.generation, joined.generation)
        self._session_timeout_ms = joined.session_timeout.ToMilliseconds() or self.config.session_timeout_ms
        self._rebalance_timeout_ms = joined.rebalance_timeout.ToMilliseconds() or self.config.rebalance_timeout_ms
        most_ms = min(self._session_timeout_ms, self._rebalance_timeout_ms) // HEARTBEATS_PER_TIMEOUT
        self._interval_ms = max(1, min(most_ms, joined.heartbeat_interval.ToMilliseconds() or most_ms))
        self._acknowledged_here(self._opened_ms)
        self._next_heartbeat_ms = now_ms + self._interval_ms

    def _acknowledged_here(self, sent_ms: int) -> None:
        self.acknowledged(sent_ms)
        self._read_up_to_ms = max(self._read_up_to_ms, sent_ms)

    def _assigned(self, assignment: pb.Assignment, now_ms: int) -> None:
        self.generation = max(self.generation, assignment.generation)
        if self.first_generation is None:
            self.first_generation = assignment.generation
        deadline_ms = self._read_up_to_ms + assignment.release_within.ToMilliseconds()
        changes, again = self.holds.take(assignment, deadline_ms)
        text = "it is not assigned to the member any more: it goes to another one, or its topic was deleted"
        why = make_error(Reason.PARTITION_NOT_OWNED, text)
        self._changes += [change._replace(why=why) if change.kind == "lost" else change for change in changes]
        if again:
            self._send_release(again)
        self._check_deadlines(now_ms)

    def _heartbeat(self, now_ms: int) -> None:
        if self.waiting:
            self._note_poll(now_ms)
        self._sequence += 1
        if len(self._sent) >= MAX_UNACKNOWLEDGED:
            del self._sent[next(iter(self._sent))]
        self._sent[self._sequence] = now_ms
        beat = pb.MemberHeartbeat(sequence=self._sequence, polls=self.polls)
        self._requests.append(pb.JoinRequest(heartbeat=beat))
        self._next_heartbeat_ms = now_ms + self._interval_ms

    def _note_poll(self, now_ms: int) -> None:
        self.polls += 1
        self._asked_ms = now_ms

    def _check_session(self, now_ms: int) -> None:
        silent_ms = now_ms - self._acked_ms
        if self.holds and silent_ms >= self._session_timeout_ms:
            text = f"the coordinator has not been heard of for {silent_ms} ms (session_timeout_ms)"
            self._lose_all(make_error(Reason.UNKNOWN_MEMBER, text))
            self.wants_new_stream = self.phase in (Phase.JOINING, Phase.MEMBER)

    def _check_polls(self, now_ms: int) -> None:
        if self.waiting or self.phase not in (Phase.AWAY, Phase.JOINING, Phase.MEMBER):
            return
        idle_ms = now_ms - self._asked_ms
        if idle_ms < self.config.max_poll_interval_ms:
            return
        text = f"the application did not ask for records for {idle_ms} ms (max_poll_interval_ms)"
        self._lose_all(make_error(Reason.UNKNOWN_MEMBER, text))
        self._requests.append(pb.JoinRequest(leave=pb.LeaveGroup(reason=text)))
        self._begin_anew()
        self.phase = Phase.RESTING

    def _check_deadlines(self, now_ms: int) -> None:
        overdue = self.holds.overdue(now_ms)
        if not overdue:
            return
        for hold in overdue:
            self.holds.release(hold)
        text = f"it was not given up in time (rebalance_timeout_ms is {self.config.rebalance_timeout_ms})"
        self._changes.append(Change("lost", tuple(overdue), make_error(Reason.PARTITION_NOT_OWNED, text)))
        self._send_release([hold.key for hold in overdue])

    def _check_stall(self, now_ms: int) -> None:
        if self.phase in (Phase.JOINING, Phase.MEMBER) and now_ms >= self._stall_ms:
            self.wants_new_stream = True

    def _lose_all(self, why: PenstockError) -> None:
        lost = self.holds.drop(self.holds)
        if lost:
            self._changes.append(Change("lost", tuple(lost), why))

    def _begin_anew(self) -> None:
        """The membership is over; the next one is another member's."""
        self.member_id = self._unique()
        self.generation = 0
        self.first_generation = None
        self.holds.clear_released()

    def _send_release(self, keys: list[Key]) -> None:
        if self.phase is not Phase.MEMBER:
            return  # the next stream's assignment asks again
        release = pb.ReleasePartitions(generation=self.generation)
        for topic_id, partition in keys:
            release.partitions.add(topic_id=topic_id, partition=partition)
        self._requests.append(pb.JoinRequest(release=release))


def _generation_of(response: pb.JoinResponse) -> float:
    """Of which generation a response is; infinity where it does not say."""
    kind = response.WhichOneof("response")
    if kind == "joined":
        return response.joined.generation
    return response.assignment.generation if kind == "assignment" else math.inf


def _subscription(subscribed: Subscribed) -> pb.Subscription:
    return pb.Subscription(topics=subscribed.topics, pattern=subscribed.pattern)
