"""One Consume stream to one broker: assignments out, batches in, within a credit of bytes.

Owns the stream's task. Whatever is to be said (assign, unassign, credit) gathers while the last write is under way.
After a break all cursors are assigned again, from their fetch offsets. Credit: `window_bytes` at the start of a
session, and back what the application has taken, in steps of a quarter.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from penstock.client.clock import Clock
from penstock.client.connection import Connections
from penstock.client.cursor import NO_EPOCH, Cursor
from penstock.client.errors import UnavailableError, error_of
from penstock.client.failures import fault_of_stream
from penstock.client.retry import Backoff
from penstock.protocol.errors import PenstockError
from penstock.v1 import consumer_service_pb2 as pb

RECORDS_CREDIT = 1 << 62
"""Records are not bounded, bytes are."""


class StreamReader(Protocol):
    """What a stream tells its consumer."""

    def received(self, cursor: Cursor, consumed: pb.ConsumedPartition, source: object) -> None:
        """Batches came."""

    def failed(self, cursor: Cursor, error: PenstockError) -> None:
        """The assignment has ended."""

    def broken(self, address: str, cursors: Sequence[Cursor], fault: PenstockError | None) -> None:
        """The stream broke, or the broker cannot be connected to.

        `fault`: why, where that is neither a lost connection nor retriable; it hit these `cursors`.
        """


class _Session:
    """One call; batches refer to it, so that credit goes back only to the call that gave it."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.credit_bytes = 0
        self.received = False
        self.fault: PenstockError | None = None


class ConsumeStream:
    """See the module. Used from one event loop."""

    def __init__(
        self, address: str, reader: StreamReader, start: pb.ConsumeStart, window_bytes: int, clock: Clock
    ) -> None:
        self.address = address
        self._reader = reader
        self._start = start
        self._window_bytes = window_bytes
        self._clock = clock
        self._last_id = 0
        self._ids: dict[Cursor, int] = {}
        self._cursors: dict[int, Cursor] = {}
        self._to_assign: dict[Cursor, None] = {}
        self._to_unassign: list[int] = []
        self._session: _Session | None = None
        self._wake = asyncio.Event()

    def assign(self, cursor: Cursor) -> None:
        """Read this partition from its fetch offset on; what an earlier assignment sends is dropped from now on."""
        self._forget(cursor)
        self._to_assign[cursor] = None
        self._wake.set()

    def unassign(self, cursor: Cursor) -> None:
        """Read this partition no more."""
        self._to_assign.pop(cursor, None)
        number = self._forget(cursor)
        if number is not None:
            self._to_unassign.append(number)
            self._wake.set()

    def give_back(self, source: object, size: int) -> None:
        """The application has taken `size` bytes of what `source` delivered."""
        session = self._session
        if session is None or session is not source:
            return
        session.credit_bytes += size
        if session.credit_bytes >= self._window_bytes // 4:
            self._wake.set()

    async def run(self, connections: Connections, rng: random.Random) -> None:
        """Serve until cancelled."""
        backoff = Backoff(rng)
        while True:
            await self._wake.wait()
            fault, hit = None, []
            try:
                connection = await connections.ready(self.address)
            except UnavailableError:
                pass
            else:
                session = _Session(connection.consumer.Consume())
                hit = await self._serve(session)
                fault = session.fault
                if session.received and fault is None:
                    backoff.reset()
            self._reader.broken(self.address, hit, fault)
            await self._clock.sleep_ms(backoff.next_ms())

    async def _serve(self, session: _Session) -> list[Cursor]:
        """Write and read until one of the two ends; gives the cursors that were assigned then."""
        self._session = session
        for cursor in list(self._ids):
            self.assign(cursor)
        self._to_unassign.clear()
        tasks = (asyncio.create_task(self._read(session)), asyncio.create_task(self._write(session)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if session.call.done():
                await asyncio.wait(tasks[:1])  # a write failed: reading tells why
        finally:
            for task in tasks:
                task.cancel()
            session.call.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._session = None
            assigned = list(self._ids)
            for cursor in assigned:
                self.assign(cursor)
        for result in results:
            expected = (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError)
            if isinstance(result, BaseException) and not isinstance(result, expected):
                raise result
        return assigned

    async def _write(self, session: _Session) -> None:
        await session.call.write(pb.ConsumeRequest(start=self._start))
        credit = pb.ConsumeCredit(records=RECORDS_CREDIT, bytes=self._window_bytes)
        await session.call.write(pb.ConsumeRequest(credit=credit))
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._to_unassign:
                gone, self._to_unassign = self._to_unassign, []
                await session.call.write(pb.ConsumeRequest(unassign=pb.ConsumeUnassign(assignment_ids=gone)))
            if self._to_assign:
                await session.call.write(pb.ConsumeRequest(assign=self._assignments()))
            if session.credit_bytes:
                credit = pb.ConsumeCredit(bytes=session.credit_bytes)
                session.credit_bytes = 0
                await session.call.write(pb.ConsumeRequest(credit=credit))

    def _assignments(self) -> pb.ConsumeAssign:
        assign = pb.ConsumeAssign()
        for cursor in self._to_assign:
            self._last_id += 1
            self._ids[cursor] = self._last_id
            self._cursors[self._last_id] = cursor
            assign.positions.add(
                assignment_id=self._last_id,
                topic_id=cursor.topic_id,
                partition=cursor.partition.partition,
                fetch_offset=cursor.fetch_offset,
                leader_epoch=None if cursor.leader_epoch == NO_EPOCH else cursor.leader_epoch,
                last_fetched_epoch=None if cursor.last_epoch == NO_EPOCH else cursor.last_epoch,
            )
        self._to_assign.clear()
        return assign

    async def _read(self, session: _Session) -> None:
        try:
            async for response in session.call:
                session.received = True
                for consumed in response.partitions:
                    self._take(session, consumed)
        except grpc.aio.AioRpcError as failure:
            session.fault = fault_of_stream(failure)

    def _take(self, session: _Session, consumed: pb.ConsumedPartition) -> None:
        cursor = self._cursors.get(consumed.assignment_id)
        if cursor is None:
            self.give_back(session, sum(stored.batch.ByteSize() for stored in consumed.batches))
        elif consumed.HasField("error"):
            self._forget(cursor)
            self._reader.failed(cursor, error_of(consumed.error))
        else:
            self._reader.received(cursor, consumed, session)

    def _forget(self, cursor: Cursor) -> int | None:
        number = self._ids.pop(cursor, None)
        if number is not None:
            del self._cursors[number]
        return number
