"""Order and no duplicates: the window of batches of one partition that were sent and are not settled. Pure.

The problem: a batch may be refused, its answer may be lost, its leader may change while more batches of the partition
are on their way behind it; and a request lost from sight may still reach a leader later.

Decisions
- A batch gets its sequence numbers when it enters the window and keeps them over every attempt, so that the leader
  tells a repeat from a new batch. At most `max_in_flight` (5, what a leader remembers) are in the window.
- After any failure nothing of the partition is sent until every attempt under way is answered or lost; then all that
  is left in the window goes again, in order. All attempts under way are on one stream.
- A batch given up leaves a gap in the sequence. Then the partition's producer epoch is raised by one and numbers begin
  at 0 (as KIP-360): what is still under way in the old epoch comes before, or is fenced. A batch of the window whose
  every attempt was refused gets new numbers; one that may have been appended is reported as of unknown outcome,
  because under new numbers it could be appended twice.
  After 32767 such epochs a new producer id is taken, which fences nothing: then a request that was reported as of
  unknown outcome, and only such a one, could still land behind later batches.
- Without idempotence the window is 1 and an unknown outcome is reported at once.

Invariants: flights are in the order of their sequence numbers; each batch handed in is settled exactly once; what was
settled is never sent again.
"""

from collections import deque
from typing import Generic, NamedTuple, Protocol, TypeVar

from penstock.client.errors import OutcomeUnknownError, RequestTimeoutError, is_retriable, is_unknown
from penstock.protocol.batch import NOT_STAMPED, ProducerStamp, advance_sequence
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

MAX_IN_FLIGHT = 5
"""Batches of a producer that a leader remembers in a partition."""
MAX_PRODUCER_EPOCH = 0x7FFF

_SEQUENCE_ERRORS = frozenset({Reason.OUT_OF_ORDER_SEQUENCE, Reason.UNKNOWN_PRODUCER})


class Sendable(Protocol):
    """What the window needs to know of a batch."""

    deadline_ms: int

    @property
    def record_count(self) -> int:
        """Number of its records, which are as many sequence numbers."""


class Waits(Protocol):
    """How long to wait before the next attempt (retry.Backoff)."""

    def next_ms(self) -> float:
        """The next wait."""

    def reset(self) -> None:
        """Begin anew."""


B = TypeVar("B", bound=Sendable)
A = TypeVar("A")


class Flight(Generic[B]):
    """A batch in the window."""

    __slots__ = ("attempt", "batch", "error", "stamp", "uncertain")

    def __init__(self, batch: B, stamp: ProducerStamp) -> None:
        self.batch = batch
        self.stamp = stamp
        self.attempt: int | None = None
        """Number of the attempt under way."""
        self.uncertain = False
        """An attempt ended without an answer that says whether it was appended."""
        self.error: PenstockError | None = None
        """Of the last attempt."""


class Settled(NamedTuple, Generic[B, A]):
    """What became of a batch: an answer, or an error."""

    batch: B
    answer: A | None
    error: PenstockError | None


class Window(Generic[B, A]):
    """See the module. `closed` is the queue of batches not yet in the window, filled by the accumulator."""

    def __init__(self, closed: deque[B], backoff: Waits, *, idempotent: bool, max_in_flight: int) -> None:
        self.flights: deque[Flight[B]] = deque()
        self.retry_at_ms: float = 0.0
        """Before this time nothing is sent again; where nothing is left to send again it means nothing."""
        self._closed = closed
        self._backoff = backoff
        self._idempotent = idempotent
        self._max_in_flight = min(max_in_flight, MAX_IN_FLIGHT) if idempotent else 1
        self._producer: tuple[int, int] | None = None
        self._next_sequence = 0
        self._draining = False
        self._gap = False

    @property
    def needs_producer(self) -> bool:
        """A producer id must be adopted before anything is sent."""
        return self._idempotent and self._producer is None

    @property
    def has_room(self) -> bool:
        """One more batch could enter the window now."""
        return not self._draining and len(self.flights) < self._max_in_flight

    @property
    def waits_to_retry(self) -> bool:
        """Something is to be sent again at `retry_at_ms`."""
        return self._draining and bool(self.flights) and not self.under_way

    @property
    def under_way(self) -> bool:
        """An attempt awaits its answer."""
        return any(flight.attempt is not None for flight in self.flights)

    @property
    def is_empty(self) -> bool:
        """Nothing is in the window or waits to enter it."""
        return not self.flights and not self._closed

    def adopt(self, producer_id: int, producer_epoch: int) -> None:
        """Use this producer identity, fresh in this partition."""
        self._producer = (producer_id, producer_epoch)
        self._next_sequence = 0
        for flight in self.flights:
            flight.stamp = self._stamp(flight.batch.record_count)

    def next_to_send(self, now_ms: float) -> Flight[B] | None:
        """Give the flight to send next; call `sent` with it, then ask again until there is none."""
        if self.needs_producer:
            return None
        if self._draining:
            if self.under_way or (self.flights and now_ms < self.retry_at_ms):
                return None
            self._draining = False
        for flight in self.flights:
            if flight.attempt is None:
                return flight
        if not self._closed or len(self.flights) >= self._max_in_flight:
            return None
        batch = self._closed.popleft()
        flight = Flight(batch, self._stamp(batch.record_count))
        self.flights.append(flight)
        return flight

    def sent(self, flight: Flight[B], attempt: int) -> None:
        """The flight goes out as this attempt, a number used only once."""
        flight.attempt = attempt

    def appended(self, attempt: int, answer: A) -> list[Settled[B, A]]:
        """The leader has appended the batch of this attempt."""
        flight = self._landed(attempt)
        if flight is None:
            return []
        self._backoff.reset()
        self.flights.remove(flight)
        return [Settled(flight.batch, answer, None), *self._mend()]

    def failed(self, attempt: int, error: PenstockError, now_ms: float) -> list[Settled[B, A]]:
        """The leader answered this attempt with an error."""
        flight = self._landed(attempt)
        if flight is None:
            return []
        flight.error = error
        if error.reason is Reason.PRODUCER_FENCED:
            return self.abort(error)
        if error.reason in _SEQUENCE_ERRORS:
            return [*self._out_of_sequence(flight, now_ms), *self._mend()]
        if is_unknown(error):
            return [*self._unanswered(flight, error, now_ms), *self._mend()]
        if is_retriable(error):
            self._pause(now_ms)
            return self._mend()
        return [self._given_up(flight, error), *self._mend()]

    def lost(self, error: PenstockError, now_ms: float) -> list[Settled[B, A]]:
        """The stream that carried all attempts under way is gone, or its answers no longer count."""
        settled: list[Settled[B, A]] = []
        for flight in [flight for flight in self.flights if flight.attempt is not None]:
            flight.attempt = None
            settled += self._unanswered(flight, error, now_ms)
        return settled + self._mend()

    def retry_now(self) -> None:
        """Forget the wait: there is a new leader."""
        self.retry_at_ms = 0.0

    def expire(self, now_ms: float) -> list[Settled[B, A]]:
        """Give up what is past its deadline."""
        settled = []
        for flight in [flight for flight in self.flights if flight.batch.deadline_ms <= now_ms]:
            settled.append(
                self._given_up(flight, _timeout("not acknowledged within the delivery timeout", flight.error))
            )
            self._pause(now_ms)
        while self._closed and self._closed[0].deadline_ms <= now_ms:
            settled.append(
                Settled(self._closed.popleft(), None, _timeout("not sent within the delivery timeout", None))
            )
        return settled + self._mend()

    def abort(self, error: PenstockError) -> list[Settled[B, A]]:
        """Give up everything, for this reason."""
        settled = [self._given_up(flight, error) for flight in list(self.flights)]
        settled += [Settled(batch, None, error) for batch in self._closed]
        self._closed.clear()
        return settled + self._mend()

    def _landed(self, attempt: int) -> Flight[B] | None:
        for flight in self.flights:
            if flight.attempt == attempt:
                flight.attempt = None
                return flight
        return None

    def _stamp(self, count: int) -> ProducerStamp:
        if self._producer is None:
            return NOT_STAMPED
        stamp = ProducerStamp(*self._producer, self._next_sequence)
        self._next_sequence = advance_sequence(self._next_sequence, count)
        return stamp

    def _pause(self, now_ms: float) -> None:
        if not self._draining:
            self._draining = True
            self.retry_at_ms = now_ms + self._backoff.next_ms()

    def _unanswered(self, flight: Flight[B], error: PenstockError, now_ms: float) -> list[Settled[B, A]]:
        flight.uncertain = True
        flight.error = error
        self._pause(now_ms)
        return [] if self._idempotent else [self._given_up(flight, error)]

    def _out_of_sequence(self, flight: Flight[B], now_ms: float) -> list[Settled[B, A]]:
        """Behind an unsettled batch: this one must wait. At the head: the leader forgot the producer."""
        self._pause(now_ms)
        if flight is not self.flights[0] or not self._idempotent:
            return []
        if flight.uncertain:
            return [self._given_up(flight, flight.error or _timeout("out of sequence", None))]
        self._gap = True
        return []

    def _given_up(self, flight: Flight[B], error: PenstockError) -> Settled[B, A]:
        self.flights.remove(flight)
        if self._idempotent:
            self._gap = True
            self._draining = True
        if flight.attempt is None and not flight.uncertain:
            return Settled(flight.batch, None, error)
        return Settled(flight.batch, None, _unknown(error))

    def _mend(self) -> list[Settled[B, A]]:
        """Close the gap, once nothing is under way: a new producer epoch for what was certainly not appended."""
        if not self._gap or self.under_way or self._producer is None:
            return []
        self._gap = False
        settled: list[Settled[B, A]] = []
        for flight in [flight for flight in self.flights if flight.uncertain]:
            self.flights.remove(flight)
            settled.append(Settled(flight.batch, None, _unknown(flight.error)))
        producer_id, producer_epoch = self._producer
        if producer_epoch < MAX_PRODUCER_EPOCH:
            self.adopt(producer_id, producer_epoch + 1)
        else:
            self._producer = None
        return settled


def _timeout(message: str, last: PenstockError | None) -> RequestTimeoutError:
    """The error of a batch that was certainly not appended in time; its reason is the last refusal's."""
    if last is None:
        return RequestTimeoutError(Reason.LEADER_NOT_AVAILABLE, message)
    return RequestTimeoutError(last.reason, f"{message}; last: {last}", last.metadata)


def _unknown(error: PenstockError | None) -> PenstockError:
    if isinstance(error, OutcomeUnknownError):
        return error
    message = f"the batch may have been appended; last: {error}"
    return OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, message, error.metadata if error else None)
