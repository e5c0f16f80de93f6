"""The member's stream to its coordinator: opened again, wherever that is, for as long as the member wants one.

Owns the stream's task. What is to be said is asked of the core when the last write is done.
"""

import asyncio
import logging
from typing import Any, Protocol

import grpc

from penstock.client.errors import is_retriable
from penstock.client.failures import error_of_call
from penstock.client.group.coordinator import Coordinator
from penstock.client.group.member import MemberCore
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

FIND_TIMEOUT_MS = 5_000
END_TIMEOUT_S = 3.0
"""How long the coordinator may take to end a stream on which the member has left."""
_WAITED_FOR = frozenset({Reason.INSTANCE_IN_USE, Reason.GROUP_FULL})
"""Refusals that may last as long as others live."""
_LOG = logging.getLogger("penstock.client")


class StreamHost(Protocol):
    """What the stream asks of its reader."""

    def now_ms(self) -> int:
        """Monotonic time."""

    def changed(self) -> None:
        """The core was told something."""

    async def before_join(self) -> None:
        """A membership is about to begin; raises PenstockError where it cannot yet."""


class JoinStream:
    """See the module. Used from one event loop."""

    def __init__(self, core: MemberCore, coordinator: Coordinator, session: ClientSession, host: StreamHost) -> None:
        self.address = ""
        """Of the coordinator that the present stream, or the last one, leads to."""
        self._core = core
        self._coordinator = coordinator
        self._session = session
        self._host = host
        self._wake = asyncio.Event()
        self._waits_for: Reason | None = None
        """That this is over; the log has it."""
        self._idle = asyncio.Event()
        self._idle.set()

    def poke(self) -> None:
        """The core may want something said, or another stream."""
        self._wake.set()

    async def idle(self) -> None:
        """Return when there is no stream."""
        await self._idle.wait()

    async def run(self) -> None:
        """Serve until cancelled."""
        backoff = Backoff(self._session.rng)
        while True:
            while not self._core.wants_stream:
                self._wake.clear()
                await self._wake.wait()
            if await self._once():
                backoff.reset()
            await self._session.clock.sleep_ms(backoff.next_ms())

    async def _once(self) -> bool:
        """Have one stream; True where the member was in the group by it."""
        self._idle.clear()
        address, served, error = "", False, None
        try:
            if self._core.generation == 0:
                await self._host.before_join()
            address = await self._coordinator.address(FIND_TIMEOUT_MS)
            connection = await self._session.connections.ready(address)
            self.address = address
            served, error = await self._serve(connection.groups.Join())
        except PenstockError as raised:
            error = raised
        finally:
            self._idle.set()
        self._coordinator.failed(address, error)
        member_id = self._core.member_id
        self._core.ended(error, self._host.now_ms())
        if error is not None:
            _LOG.log(self._level(error), "member %s of group %s: %s", member_id, self._core.config.group, error)
            if error.reason in _WAITED_FOR:
                self._waits_for = error.reason
        if served:
            self._waits_for = None
        self._host.changed()
        return served

    def _level(self, error: PenstockError) -> int:
        """What the application is told is no warning too; what it waits for, perhaps for long, is one once."""
        if not self._core.wants_stream:  # it is its next poll's error
            return logging.DEBUG
        waits = error.reason in _WAITED_FOR and error.reason is not self._waits_for
        return logging.WARNING if waits or not is_retriable(error) else logging.DEBUG

    async def _serve(self, call: Any) -> tuple[bool, PenstockError | None]:
        """Write and read until one of the two ends, or another stream is wanted."""
        start = self._core.open(self._host.now_ms())
        reading = asyncio.create_task(self._read(call))
        writing = asyncio.create_task(self._write(call, start))
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if not self._core.wants_new_stream:  # a write failed: reading tells why; or it left: the answer is the end
                await asyncio.wait((reading,), timeout=END_TIMEOUT_S)
        finally:
            for task in (reading, writing):
                task.cancel()
            call.cancel()
            results = await asyncio.gather(reading, writing, return_exceptions=True)
        served, error = False, None
        if isinstance(results[0], tuple):
            served, error = results[0]
        for result in results:
            expected = (grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError)
            if isinstance(result, BaseException) and not isinstance(result, expected):
                raise result
        return served, error

    async def _read(self, call: Any) -> tuple[bool, PenstockError | None]:
        served = False
        try:
            async for response in call:
                served = True
                self._core.received(response, self._host.now_ms())
                self._host.changed()
        except grpc.aio.AioRpcError as failure:
            return served, error_of_call(failure, write=False)
        return served, None

    async def _write(self, call: Any, start: pb.JoinRequest) -> None:
        """Return when there is nothing more to be said on this stream."""
        await call.write(start)
        while not self._core.wants_new_stream:
            self._wake.clear()
            requests = self._core.take_requests()
            for request in requests:
                await call.write(request)
            if not self._core.wants_stream or any(request.HasField("leave") for request in requests):
                await call.done_writing()  # also where it wants the next one already
                return
            await self._wake.wait()
