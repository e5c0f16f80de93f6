"""The blocking producer: records cross to the background thread in bulk, through a bounded hand-over."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

from penstock.client import producer as _producer
from penstock.client.blocking.face import Face
from penstock.client.errors import BufferFullError, ClientClosedError
from penstock.client.options import OnDelivery, ProducerOptions
from penstock.client.records import Delivery, Headers, NewRecord
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

HANDOVER_RECORDS = 10_000
"""Records handed to the background thread and not yet taken over by the producer there, at most."""
HANDOVER_BYTES = 8 * 1024 * 1024
"""Bytes of them, at most, beyond the first."""
RECORDS_A_TURN = 500
"""Records that the background thread takes over before it lets its event loop run."""

_Handed: TypeAlias = tuple[str, bytes | None, bytes | None, Headers, int, int | None, OnDelivery | None]


class Producer(Face):
    """Appends records; see penstock.client.Producer. `send` and `send_nowait` cost no switch of threads a record."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ProducerOptions]) -> None:
        super().__init__()
        self._inner = _producer.Producer(bootstrap, **options)
        self._changed = threading.Condition()
        self._handed: deque[_Handed] = deque()
        self._handed_bytes = 0
        self._drainer: asyncio.Task[None] | None = None
        self._drain_due = False
        self._refusal: PenstockError | None = ClientClosedError(Reason.NOT_SERVING, "the producer is not open")

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Close; with an exception under way (Ctrl-C too) without waiting for deliveries."""
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(PenstockError):
                self._close(self._abandon())

    @property
    def inner(self) -> _producer.Producer:
        """The asyncio producer, which lives on the background thread's event loop."""
        return self._inner

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)
        self._refusal = None

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> "Future[Delivery]":
        """Hand a record over, waiting for memory only. `result()` of the future gives the delivery, or raises."""
        future: Future[Delivery] = Future()

        def settle(delivery: Delivery | None, error: PenstockError | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if delivery is None:
                future.set_exception(error)
            else:
                future.set_result(delivery)

        stamp = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._hand_over((topic, value, key, headers, stamp, partition, settle), wait=True)
        return future

    def send_nowait(  # noqa: PLR0913 - the fields of a record, by keyword
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Hand a record over at once; BufferFullError when there is no room (see wait_for_room).

        What is wrong with the record itself is reported to `on_delivery`, else by the next flush.
        """
        stamp = time.time_ns() // 1_000_000 if timestamp_ms is None else timestamp_ms
        self._hand_over((topic, value, key, headers, stamp, partition, on_delivery), wait=False)

    def send_many_nowait(self, topic: str, values: Sequence[bytes], *, partition: int | None = None) -> int:
        """Hand over many records without keys in order; how many were taken: fewer where there is no room.

        What is wrong with a record itself is reported by the next flush.
        """
        stamp = time.time_ns() // 1_000_000
        with self._changed:
            for taken, value in enumerate(values):
                try:
                    self._hand_over((topic, value, None, (), stamp, partition, None), wait=False)
                except BufferFullError:
                    return taken
        return len(values)

    def wait_for_room(self) -> None:
        """Wait until send_nowait has room again."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._refusal is not None)

    def append(
        self,
        topic: str,
        partition: int,
        records: Sequence[NewRecord],
        *,
        expected_offset: int | None = None,
        timeout: float = 30.0,
    ) -> list[Delivery]:
        """See penstock.client.Producer.append."""
        return self._run(
            self._inner.append(topic, partition, records, expected_offset=expected_offset, timeout=timeout)
        )

    def flush(self, timeout: float | None = None) -> None:
        """See penstock.client.Producer.flush."""
        self._run(self._flush(timeout))

    def close(self, timeout: float = 30.0) -> None:
        """See penstock.client.Producer.close."""
        self._close(self._finish(timeout))

    # -- inside

    def _hand_over(self, record: _Handed, *, wait: bool) -> None:
        with self._changed:
            while self._refusal is None and not self._has_room():
                if not wait:
                    raise BufferFullError(Reason.OVERLOADED, f"{len(self._handed)} records wait to be taken over")
                self._changed.wait()
            if self._refusal is not None or self._thread is None:
                raise self._refusal or ClientClosedError(Reason.NOT_SERVING, "the producer is closed")
            self._handed.append(record)
            self._handed_bytes += _size(record)
            if not self._drain_due:
                self._drain_due = True
                self._thread.call_soon(self._begin_drain)

    def _has_room(self) -> bool:
        return len(self._handed) < HANDOVER_RECORDS and self._handed_bytes < HANDOVER_BYTES

    def _begin_drain(self) -> None:
        """On the loop: take over what was handed over. One task while there is something, not one a record."""
        self._drainer = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        while True:
            with self._changed:
                batch = [self._handed.popleft() for _ in range(min(RECORDS_A_TURN, len(self._handed)))]
                self._handed_bytes -= sum(map(_size, batch))
                self._changed.notify_all()
                if not batch:
                    self._drain_due = False
                    return
            for record in batch:
                await self._take_over(record)
            await asyncio.sleep(0)

    async def _take_over(self, record: _Handed) -> None:
        topic, value, key, headers, stamp, partition, waiter = record
        while True:
            try:
                self._inner.send_nowait(
                    topic, value, key=key, headers=headers, timestamp_ms=stamp, partition=partition, on_delivery=waiter
                )
            except BufferFullError:
                with contextlib.suppress(ClientClosedError):
                    await self._inner.wait_for_room()
            except PenstockError as error:
                self._inner.refuse(waiter, error)
                return
            else:
                return

    async def _drained(self) -> None:
        """Return when all that was handed over before is the producer's."""
        await asyncio.sleep(0)  # the drainer may only be due to begin
        if self._drainer is not None:
            await asyncio.wait([self._drainer])

    async def _flush(self, timeout_s: float | None) -> None:
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):  # the producer's own flush then says what is left
            async with asyncio.timeout(timeout_s):
                await self._drained()
        await self._inner.flush(None if timeout_s is None else max(0.0, timeout_s - (time.monotonic() - began)))

    async def _finish(self, timeout_s: float) -> None:
        try:
            await self._flush(timeout_s)
        except TimeoutError:
            await self._inner.close(0)
        else:
            await self._inner.close(timeout_s)
        finally:
            await self._drained()

    async def _abandon(self) -> None:
        await self._inner.abandon()
        await self._drained()

    def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        with self._changed:
            already = self._refusal is not None
            self._refusal = ClientClosedError(Reason.NOT_SERVING, "the producer is closed")
            self._changed.notify_all()
        if already or self._thread is None:
            closing.close()
            return
        try:
            self._run(closing)
        except KeyboardInterrupt:
            self._run(self._abandon())
            raise
        finally:
            self._stop()


def _size(record: _Handed) -> int:
    return len(record[1] or b"") + len(record[2] or b"")
