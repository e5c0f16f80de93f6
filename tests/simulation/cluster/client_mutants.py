"""Deliberate bugs in what the client tells its application; the rules of `history`, or the clients, must notice each.

(Those in its retries are in the table of the whole system.)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from penstock.client import PenstockError, RequestTimeoutError, retry
from penstock.client.accumulator import PendingBatch
from penstock.client.admin import Admin
from penstock.client.cursor import NO_EPOCH, Cursor
from penstock.client.deliveries import Deliveries, _tell
from penstock.client.fetched import FetchedBatch
from penstock.client.records import Delivery
from penstock.client.sequencing import Settled, Window
from penstock.protocol.reasons import Reason
from penstock.v1 import producer_service_pb2 as pb
from tests.simulation.cluster.world import World


@dataclass(frozen=True)
class Mutant:
    """What is put in the place of what."""

    name: str
    rule: str
    what: str
    target: Any
    attribute: str
    instead: Callable[..., Any]
    budget: int = 60
    """So many seeds find it."""
    first_seed: int = 0

    @contextmanager
    def apply(self) -> Iterator[None]:
        """While this lasts the bug is there."""
        with mock.patch.object(self.target, self.attribute, self.instead):
            yield


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """Give the first seed whose world fails with the bug in place."""
    with mutant.apply():
        return next((seed for seed in seeds if World(seed).run().failure is not None), None)


# ---- the producer


def _lost_is_appended(self: Any, error: PenstockError, now_ms: float) -> list[Any]:
    lost = [flight for flight in self.flights if flight.attempt is not None]
    for flight in lost:
        self.flights.remove(flight)
    return [Settled(flight.batch, None, None) for flight in lost]


def _refusals_are_final(self: Any, attempt: int, error: PenstockError, now_ms: float) -> list[Any]:
    flight = self._landed(attempt)
    if flight is None:
        return []
    self.flights.remove(flight)
    return [Settled(flight.batch, None, error)]


def _never_given_up(self: Any, now_ms: float) -> list[Any]:
    return []


def _one_offset_a_batch(self: Any, batch: PendingBatch, answer: pb.BatchAppended, *, append_time: bool) -> None:
    for waiter, stamp in zip(batch.waiters, batch.stamps, strict=True):
        _tell(waiter, Delivery(batch.lane.topic, batch.lane.partition, answer.base_offset, stamp), None)


def _no_answer_is_a_failure(last: PenstockError | None, policy: retry.CallPolicy, *, unknown: bool) -> PenstockError:
    return RequestTimeoutError(Reason.NOT_SERVING, "not served")


# ---- the consumer


def _move_keeps_records(self: Any, offset: int) -> list[FetchedBatch]:
    dropped = list(self._fetched)
    self._fetched.clear()
    self._end = self.fetch_offset = offset
    self.last_epoch = self._given_epoch = NO_EPOCH
    self.stopped = False
    self.above_end = self._faults = 0
    return dropped


_rewind = Cursor.rewind


def _rewind_loses_records(self: Any) -> list[FetchedBatch]:
    fetch_offset = self.fetch_offset
    dropped = _rewind(self)
    self.fetch_offset = fetch_offset
    return dropped


# ---- the admin client


async def _version_forgotten(self: Any, rpc: Any, request: Any, returns: Any, *, repeatable: bool) -> Any:
    policy = retry.CallPolicy(self._timeout_ms, write=True, repeatable=repeatable)
    return await self._open_session().caller.call(rpc, request, returns, policy)


MUTANTS = (
    Mutant(
        "client: lost is appended",
        "acknowledgement",
        "a broken stream counts as an acknowledgement",
        Window,
        "lost",
        _lost_is_appended,
    ),
    Mutant(
        "client: refusals are final",
        "retries",
        "a retriable refusal reaches the application",
        Window,
        "failed",
        _refusals_are_final,
    ),
    Mutant(
        "client: never given up",
        "delivery timeout",
        "nothing is given up at the delivery timeout",
        Window,
        "expire",
        _never_given_up,
    ),
    Mutant(
        "client: one offset a batch",
        "acknowledgement",
        "every record of a batch is told the first one's offset",
        Deliveries,
        "_tell_success",
        _one_offset_a_batch,
    ),
    Mutant(
        "client: no answer is a failure",
        "outcome unknown",
        "a call whose answer was lost is reported as failed",
        retry,
        "_given_up",
        _no_answer_is_a_failure,
    ),
    Mutant(
        "client: a seek keeps records",
        "reads",
        "records that were fetched before a seek are given out after it",
        Cursor,
        "move",
        _move_keeps_records,
        first_seed=7,
    ),
    Mutant(
        "client: a pause loses records",
        "reads",
        "what was fetched and not given out when a partition paused is never read",
        Cursor,
        "rewind",
        _rewind_loses_records,
        first_seed=120,
    ),
    Mutant(
        "client: the version is forgotten",
        "read your writes",
        "a read does not name the metadata version that a change was answered with",
        Admin,
        "_change",
        _version_forgotten,
    ),
)
