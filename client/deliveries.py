"""Tells everyone concerned what became of a batch: batch callback, record callbacks, futures, or nobody.

A failure that nobody is told of is kept for the next flush. A callback that raises is logged and does no further harm.
"""

import asyncio
import logging
from itertools import count, repeat

from penstock.client.accumulator import PendingBatch
from penstock.client.options import OnBatch
from penstock.client.records import NO_LEADER_EPOCH, NO_OFFSET, BatchDelivery, Delivery
from penstock.protocol.errors import PenstockError
from penstock.v1 import common_pb2
from penstock.v1 import producer_service_pb2 as pb

_LOG = logging.getLogger("penstock.client")
_DURABILITY = {
    common_pb2.DURABILITY_COMMIT: "commit",
    common_pb2.DURABILITY_INTERVAL: "interval",
    common_pb2.DURABILITY_OS: "os",
}
_new_delivery = tuple.__new__  # what Delivery() does, without its keyword arguments: half the time
_NOT_ANSWERED = pb.BatchAppended(base_offset=NO_OFFSET, leader_epoch=NO_LEADER_EPOCH)


class Deliveries:
    """See the module."""

    def __init__(self, on_batch: OnBatch | None) -> None:
        self._on_batch = on_batch
        self._unobserved: PenstockError | None = None
        self._unobserved_records = 0

    def tell(
        self, batch: PendingBatch, answer: pb.BatchAppended | None, error: PenstockError | None, *, append_time: bool
    ) -> None:
        """Tell of a settled batch: with `answer` None and no error it went out with acks none."""
        if self._on_batch is not None:
            self._tell_batch(self._on_batch, batch, answer, error)
        if error is not None:
            self._tell_failure(batch, error)
        else:
            self._tell_success(batch, _NOT_ANSWERED if answer is None else answer, append_time=append_time)

    def take_unobserved(self) -> PenstockError | None:
        """Give the first failure nobody was told of, once."""
        error, self._unobserved = self._unobserved, None
        if error is not None and self._unobserved_records > 1:
            error.add_note(f"{self._unobserved_records} records failed since the last flush, this is the first error")
        self._unobserved_records = 0
        return error

    def refuse(self, waiter: object, error: PenstockError) -> None:
        """Tell one record's waiter of a failure before the record was in a batch."""
        if waiter is None:
            self._unobserved = self._unobserved or error
            self._unobserved_records += 1
        else:
            _tell(waiter, None, error)

    def _tell_failure(self, batch: PendingBatch, error: PenstockError) -> None:
        for waiter in batch.waiters:
            if waiter is not None:
                _tell(waiter, None, error)
            elif self._on_batch is None:
                self.refuse(None, error)

    def _tell_success(self, batch: PendingBatch, answer: pb.BatchAppended, *, append_time: bool) -> None:
        if not batch.has_waiters:
            return
        base = answer.base_offset
        offsets = repeat(NO_OFFSET) if base == NO_OFFSET else count(base)
        stamps = repeat(answer.append_time_ms) if append_time else batch.stamps
        topic, partition, epoch = batch.lane.topic, batch.lane.partition, answer.leader_epoch
        kind, is_callback = type(None), False
        fields = zip(repeat(topic), repeat(partition), offsets, stamps, repeat(epoch), strict=False)
        deliveries = map(_new_delivery, repeat(Delivery), fields)
        for waiter, delivery in zip(batch.waiters, deliveries, strict=False):
            if waiter is None:
                continue
            if type(waiter) is not kind:  # looked at once where all are alike
                kind = type(waiter)
                is_callback = callable(waiter) and not isinstance(waiter, asyncio.Future)
            if is_callback:  # as _tell does, without the call
                try:
                    waiter(delivery, None)
                except Exception:  # noqa: BLE001 - the application's code; its fault must not stop the producer
                    _LOG.exception("a delivery callback raised")
            else:
                _tell(waiter, delivery, None)

    def _tell_batch(
        self, on_batch: OnBatch, batch: PendingBatch, answer: pb.BatchAppended | None, error: PenstockError | None
    ) -> None:
        appended = _NOT_ANSWERED if answer is None else answer
        delivery = BatchDelivery(
            batch.lane.topic,
            batch.lane.partition,
            appended.base_offset,
            batch.record_count,
            appended.append_time_ms,
            appended.leader_epoch,
            _DURABILITY.get(appended.durability, ""),
            appended.duplicate,
            error,
        )
        try:
            on_batch(delivery)
        except Exception:  # noqa: BLE001 - the application's code; its fault must not stop the producer
            _LOG.exception("the batch callback raised")


def _tell(waiter: object, delivery: Delivery | None, error: PenstockError | None) -> None:
    if isinstance(waiter, asyncio.Future):
        if waiter.done():
            return
        if error is None:
            waiter.set_result(delivery)
        else:
            waiter.set_exception(error)
    elif callable(waiter):
        try:
            waiter(delivery, error)
        except Exception:  # noqa: BLE001 - the application's code; its fault must not stop the producer
            _LOG.exception("a delivery callback raised")
