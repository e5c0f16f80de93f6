"""The ordered window against a model of a partition whose leaders change, streams break, and answers get lost.

Claims: at any time the log holds each batch at most once and in the order of sending; what was reported as appended is
committed where it was reported; what was reported as failed (not: unknown) is not there and never gets there; every
batch is settled exactly once. The one exception: once all producer epochs are used up, a batch whose outcome was
reported as unknown may land late (still once).
"""

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.client.errors import OutcomeUnknownError, UnavailableError, make_error
from penstock.client.sequencing import MAX_PRODUCER_EPOCH, Settled, Window
from penstock.protocol.batch import BatchHeader, ProducerStamp
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Outcome, Reason
from tests.client.idempotence import Accepted, Duplicate, ProducerStates

DELIVERY_TIMEOUT_MS = 100


@dataclass(eq=False)
class Batch:
    number: int
    record_count: int
    deadline_ms: int


@dataclass
class Message:
    attempt: int
    batch: Batch
    stamp: ProducerStamp


@dataclass
class Pipe:
    """A stream to the leader of one leader epoch: messages on their way, and answers on theirs."""

    leader_epoch: int
    messages: deque[Message] = field(default_factory=deque)
    answers: deque[tuple[int, int | PenstockError, int]] = field(default_factory=deque)
    """Attempt, base offset or error, and the high watermark that the answer waits for."""


class FixedBackoff:
    def next_ms(self) -> float:
        return 1.0

    def reset(self) -> None:
        pass


def header(message: Message) -> BatchHeader:
    return BatchHeader(1, message.batch.record_count, 0, 0, 0, *message.stamp, transactional=False, control=False)


class Log:
    """The partition: the present leader's log, committed below the high watermark."""

    def __init__(self) -> None:
        self.leader_epoch = 0
        self.entries: list[tuple[Batch, int, ProducerStates]] = []
        """Batch, base offset, producer state before it."""
        self.producers = ProducerStates()
        self.high_watermark = 0

    @property
    def end(self) -> int:
        return self.entries[-1][1] + self.entries[-1][0].record_count if self.entries else 0

    def append(self, message: Message) -> int | Reason:
        verdict = self.producers.check(header(message))
        if isinstance(verdict, Reason):
            return verdict
        if isinstance(verdict, Duplicate):
            return verdict.base_offset
        assert isinstance(verdict, Accepted)
        base = self.end
        self.entries.append((message.batch, base, self.producers.copy()))
        self.producers.advance(header(message), base)
        return base

    def truncate(self, keep: int) -> None:
        """Keep this many entries; producer state goes back with the rest (rule 13)."""
        if keep < len(self.entries):
            self.producers = self.entries[keep][2]
            del self.entries[keep:]


class LossyPartition(RuleBasedStateMachine):
    """See the module."""

    @initialize(in_flight=st.integers(1, 5), near_last_epoch=st.booleans())
    def begin(self, in_flight: int, near_last_epoch: bool) -> None:
        self.now_ms = 0
        self.closed: deque[Batch] = deque()
        self.window: Window[Batch, int] = Window(self.closed, FixedBackoff(), idempotent=True, max_in_flight=in_flight)
        self.window.adopt(7, MAX_PRODUCER_EPOCH - 2 if near_last_epoch else 0)
        self.next_producer = 8
        self.log = Log()
        self.pipe = Pipe(0)
        self.old: list[Pipe] = []
        self.batches: list[Batch] = []
        self.settled: dict[int, Settled[Batch, int]] = {}
        self.attempts = 0

    def take(self, settled: list[Settled[Batch, int]]) -> None:
        for one in settled:
            assert one.batch.number not in self.settled, "settled twice"
            self.settled[one.batch.number] = one
        if self.window.needs_producer:
            self.window.adopt(self.next_producer, 0)
            self.next_producer += 1

    # -- the client

    @rule(count=st.integers(1, 4))
    def submit(self, count: int) -> None:
        batch = Batch(len(self.batches), count, self.now_ms + DELIVERY_TIMEOUT_MS)
        self.batches.append(batch)
        self.closed.append(batch)

    @rule()
    def pump(self) -> None:
        while (flight := self.window.next_to_send(self.now_ms)) is not None:
            self.attempts += 1
            self.window.sent(flight, self.attempts)
            self.pipe.messages.append(Message(self.attempts, flight.batch, flight.stamp))
            assert len(self.window.flights) <= 5

    @rule(ms=st.integers(1, 60))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.take(self.window.expire(self.now_ms))

    @rule()
    def break_stream(self) -> None:
        self.old.append(self.pipe)
        self.pipe = Pipe(self.pipe.leader_epoch)
        self.take(self.window.lost(make_error(Reason.OUTCOME_UNKNOWN, "cut"), self.now_ms))

    @precondition(lambda self: self.pipe.leader_epoch != self.log.leader_epoch)
    @rule()
    def learn_leader(self) -> None:
        self.break_stream()
        self.pipe = Pipe(self.log.leader_epoch)
        self.window.retry_now()

    # -- the leader

    def answer(self, result: int | PenstockError, message: Message) -> None:
        until = result + message.batch.record_count if isinstance(result, int) else 0
        self.pipe.answers.append((message.attempt, result, until))

    def process(self, pipe: Pipe) -> tuple[Message, int | PenstockError]:
        message = pipe.messages.popleft()
        if pipe.leader_epoch != self.log.leader_epoch:
            return message, make_error(Reason.NOT_LEADER, "moved")
        result = self.log.append(message)
        return message, make_error(result, "refused") if isinstance(result, Reason) else result

    @precondition(lambda self: self.pipe.messages)
    @rule()
    def append(self) -> None:
        message, result = self.process(self.pipe)
        self.answer(result, message)

    @precondition(lambda self: self.pipe.messages)
    @rule(appended=st.booleans())
    def answer_unknown(self, appended: bool) -> None:
        message = self.process(self.pipe)[0] if appended else self.pipe.messages.popleft()
        self.answer(make_error(Reason.OUTCOME_UNKNOWN, "timed out"), message)

    @precondition(lambda self: self.pipe.messages)
    @rule(reason=st.sampled_from([Reason.NOT_ENOUGH_REPLICAS, Reason.STORE_FULL, Reason.RECORD_TOO_LARGE]))
    def refuse(self, reason: Reason) -> None:
        self.answer(make_error(reason, "refused"), self.pipe.messages.popleft())

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def append_late(self, data: st.DataObject) -> None:
        """A request that the client gave up is read by its leader all the same."""
        pipe = data.draw(st.sampled_from(self.old))
        if pipe.messages:
            self.process(pipe)

    @precondition(lambda self: self.log.high_watermark < self.log.end)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        ends = [base + b.record_count for b, base, _ in self.log.entries if base >= self.log.high_watermark]
        self.log.high_watermark = data.draw(st.sampled_from(ends))

    @rule(data=st.data())
    def change_leader(self, data: st.DataObject) -> None:
        committed = sum(base < self.log.high_watermark for _, base, _ in self.log.entries)
        self.log.truncate(data.draw(st.integers(committed, len(self.log.entries))))
        self.log.leader_epoch += 1
        lost, self.pipe.answers = self.pipe.answers, deque()
        for attempt, result, until in lost:
            sure = isinstance(result, PenstockError) or until <= self.log.high_watermark
            unknown = make_error(Reason.OUTCOME_UNKNOWN, "leader gone")
            self.pipe.answers.append((attempt, result if sure else unknown, 0))

    @precondition(lambda self: self.pipe.answers and self.pipe.answers[0][2] <= self.log.high_watermark)
    @rule()
    def deliver_answer(self) -> None:
        attempt, result, _ = self.pipe.answers.popleft()
        if isinstance(result, int):
            self.take(self.window.appended(attempt, result))
        else:
            self.take(self.window.failed(attempt, result, self.now_ms))

    # -- the claims

    @invariant()
    def log_is_in_order_and_has_no_duplicate(self) -> None:
        if not hasattr(self, "log"):
            return
        numbers = [batch.number for batch, _, _ in self.log.entries]
        assert len(numbers) == len(set(numbers)), numbers
        if self.next_producer > 8:
            numbers = [number for number in numbers if number not in self.settled or not self.settled[number].error]
        assert numbers == sorted(numbers), numbers

    @invariant()
    def reports_are_true(self) -> None:
        if not hasattr(self, "log"):
            return
        place = {batch.number: base for batch, base, _ in self.log.entries}
        for number, settled in self.settled.items():
            if settled.error is None:
                assert place.get(number) == settled.answer
            elif settled.error.outcome is not Outcome.UNKNOWN:
                assert number not in place, "reported as failed, but in the log"

    def teardown(self) -> None:
        """Without faults everything settles; late requests change nothing."""
        if not hasattr(self, "log"):
            return
        self.learn_leader() if self.pipe.leader_epoch != self.log.leader_epoch else self.break_stream()
        for _ in range(400):
            if len(self.settled) == len(self.batches):
                break
            self.now_ms += 1
            self.pump()
            while self.pipe.messages:
                self.append()
            self.log.high_watermark = self.log.end
            while self.pipe.answers:
                self.deliver_answer()
            self.reports_are_true()
        assert len(self.settled) == len(self.batches)
        for pipe in self.old:
            while pipe.messages:
                self.process(pipe)
                self.log_is_in_order_and_has_no_duplicate()
                self.reports_are_true()


TestLossyPartition = LossyPartition.TestCase
TestLossyPartition.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def window(*, idempotent: bool = True) -> tuple[Window[Batch, int], deque[Batch]]:
    closed: deque[Batch] = deque(Batch(number, 2, 100) for number in range(8))
    made: Window[Batch, int] = Window(closed, FixedBackoff(), idempotent=idempotent, max_in_flight=5)
    if idempotent:
        made.adopt(7, 0)
    return made, closed


def send_all(made: Window[Batch, int], first_attempt: int, now_ms: float = 0) -> list[tuple[int, ProducerStamp]]:
    out: list[tuple[int, ProducerStamp]] = []
    while (flight := made.next_to_send(now_ms)) is not None:
        made.sent(flight, first_attempt + len(out))
        out.append((flight.batch.number, flight.stamp))
    return out


def test_five_batches_are_under_way_with_rising_sequences() -> None:
    made, _ = window()
    assert send_all(made, 1) == [(n, ProducerStamp(7, 0, 2 * n)) for n in range(5)]


def test_nothing_is_sent_before_there_is_a_producer_id() -> None:
    made: Window[Batch, int] = Window(deque([Batch(0, 1, 9)]), FixedBackoff(), idempotent=True, max_in_flight=5)
    assert made.needs_producer
    assert made.next_to_send(0) is None


def test_a_retry_waits_for_what_is_under_way_and_keeps_sequences_and_order() -> None:
    made, _ = window()
    first = send_all(made, 1)
    made.failed(1, make_error(Reason.NOT_LEADER, ""), 0)
    assert send_all(made, 10, 50) == []
    for attempt in range(2, 6):
        made.failed(attempt, make_error(Reason.OUT_OF_ORDER_SEQUENCE, ""), 0)
    assert send_all(made, 20, 0.5) == []  # backoff
    assert send_all(made, 30, 50) == first


def test_what_is_past_its_deadline_and_was_lost_is_unknown_and_what_was_never_sent_is_not() -> None:
    made, _ = window()
    send_all(made, 1)
    made.lost(make_error(Reason.OUTCOME_UNKNOWN, "cut"), 0)
    errors = [one.error for one in made.expire(100)]
    assert [isinstance(error, OutcomeUnknownError) for error in errors] == [True] * 5 + [False] * 3
    assert all(isinstance(error, UnavailableError) for error in errors[5:])


def test_a_refused_batch_leaves_no_gap_in_the_new_epoch() -> None:
    made, _ = window()
    send_all(made, 1)
    made.appended(1, 0)
    refused = make_error(Reason.RECORD_TOO_LARGE, "")
    assert [one.error for one in made.failed(2, refused, 0)] == [refused]
    for attempt in range(3, 6):
        assert made.failed(attempt, make_error(Reason.OUT_OF_ORDER_SEQUENCE, ""), 0) == []
    assert send_all(made, 10, 50)[:3] == [(n, ProducerStamp(7, 1, 2 * i)) for i, n in enumerate((2, 3, 4))]


def test_a_leader_that_forgot_the_producer_gets_a_new_epoch() -> None:
    made, _ = window()
    send_all(made, 1)
    made.appended(1, 0)
    for attempt in range(2, 6):
        made.failed(attempt, make_error(Reason.UNKNOWN_PRODUCER, ""), 0)
    assert send_all(made, 10, 50)[0] == (1, ProducerStamp(7, 1, 0))


def test_a_fenced_producer_gives_up_everything() -> None:
    made, closed = window()
    send_all(made, 1)
    settled = made.failed(1, make_error(Reason.PRODUCER_FENCED, ""), 0)
    assert len(settled) == 8
    assert [type(one.error).__name__ for one in settled[:2]] == ["ProducerFencedError", "OutcomeUnknownError"]
    assert made.is_empty
    assert not closed


def test_without_idempotence_one_is_under_way_and_an_unknown_outcome_is_reported_at_once() -> None:
    made, _ = window(idempotent=False)
    assert len(send_all(made, 1)) == 1
    (settled,) = made.lost(make_error(Reason.OUTCOME_UNKNOWN, "cut"), 0)
    assert isinstance(settled.error, OutcomeUnknownError)
    assert [number for number, _ in send_all(made, 2, 50)] == [1]


def test_without_idempotence_a_refusal_is_retried_in_order() -> None:
    made, _ = window(idempotent=False)
    send_all(made, 1)
    assert made.failed(1, make_error(Reason.NOT_LEADER, ""), 0) == []
    assert [number for number, _ in send_all(made, 2, 50)] == [0]


@pytest.mark.parametrize("attempt", [99, 1])
def test_an_answer_that_no_longer_counts_changes_nothing(attempt: int) -> None:
    made, _ = window()
    send_all(made, 1)
    made.lost(make_error(Reason.OUTCOME_UNKNOWN, "cut"), 0)
    assert made.appended(attempt, 0) == []
    assert made.failed(attempt, make_error(Reason.RECORD_TOO_LARGE, ""), 0) == []
    assert len(made.flights) == 5
