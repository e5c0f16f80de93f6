"""One Consume stream: assignments, credit, and the loop that reads what is ready and may be sent.

Invariants: an assignment's position only moves forward, by whole batches that were handed to gRPC; nothing is read
while credit is used up; an assignment that was replaced or taken back is never answered again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

import grpc

from penstock.internal.v1 import data_pb2 as twin
from penstock.node.api.consume_wire import partition_parts
from penstock.node.api.locate import Locator
from penstock.node.api.status import Context
from penstock.node.config import Limits
from penstock.node.partition import Partition, ReadRequest
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.limits import MAX_MESSAGE_BYTES
from penstock.protocol.reasons import Reason
from penstock.storage import LogBatch
from penstock.v1 import common_pb2
from penstock.v1 import consumer_service_pb2 as pb

MAX_CREDIT = 2**62
MAX_ASSIGNMENTS = 10_000
MAX_READ_BYTES = 1024 * 1024
"""Read of one partition at once: while the store is read, the node's other work waits for the thread that does it."""


class Assignment:
    """One partition being read at one position."""

    __slots__ = ("answered", "fetch_offset", "id", "last_epoch", "leader_epoch", "partition", "paused", "unsubscribe")

    def __init__(self, position: pb.ConsumePosition, partition: Partition) -> None:
        self.id = position.assignment_id
        self.partition = partition
        self.fetch_offset = position.fetch_offset
        self.leader_epoch = position.leader_epoch if position.HasField("leader_epoch") else None
        # Leader epoch of the record before fetch_offset, as the client read it; checked against this log (KIP-320).
        self.last_epoch = position.last_fetched_epoch if position.HasField("last_fetched_epoch") else None
        self.paused = False
        self.answered = False
        self.unsubscribe: Callable[[], None] = lambda: None


class ConsumeStream:
    """The server's side of one stream."""

    def __init__(self, context: Context, locator: Locator, limits: Limits) -> None:
        self._context = context
        self._locator = locator
        self._limits = limits
        self._isolation = common_pb2.ISOLATION_UNSPECIFIED
        self._response_bytes = limits.consume_response_bytes
        self._assignments: dict[int, Assignment] = {}
        self._by_partition: dict[tuple[bytes, int], int] = {}
        # Assignments that may have something to send, in the order of their turns.
        self._ready: OrderedDict[int, None] = OrderedDict()
        self._refused: list[bytes] = []  # parts of the next response
        self._records = 0  # credit
        self._bytes = 0  # credit
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client half-closes or goes."""
        sender = asyncio.create_task(self._send())
        receiver = asyncio.create_task(self._receive())
        try:
            done, _ = await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (sender, receiver):
                task.cancel()
            await asyncio.gather(sender, receiver, return_exceptions=True)
            for assignment_id in list(self._assignments):
                self._end(assignment_id)

    async def _receive(self) -> None:
        first = await self._context.read()
        if first is grpc.aio.EOF:
            return
        self._start(first)
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._perform(request)
            self._changed.set()

    def _start(self, request: pb.ConsumeRequest) -> None:
        if request.WhichOneof("request") != "start":
            raise PenstockError(Reason.INVALID_ARGUMENT, "the first request of a Consume stream must be start")
        self._isolation = request.start.isolation
        check_isolation(self._isolation)
        if request.start.max_response_bytes:
            self._response_bytes = min(request.start.max_response_bytes, MAX_MESSAGE_BYTES // 2)

    def _perform(self, request: pb.ConsumeRequest) -> None:
        kind = request.WhichOneof("request")
        if kind == "assign":
            for position in request.assign.positions:
                self._assign(position)
        elif kind == "unassign":
            for assignment_id in request.unassign.assignment_ids:
                self._end(assignment_id)
        elif kind == "pause":
            self._pause(request.pause.assignment_ids, paused=True)
        elif kind == "resume":
            self._pause(request.resume.assignment_ids, paused=False)
        elif kind == "credit":
            self._records = min(MAX_CREDIT, self._records + request.credit.records)
            self._bytes = min(MAX_CREDIT, self._bytes + request.credit.bytes)
        else:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"unexpected request {kind} in a Consume stream")

    def _assign(self, position: pb.ConsumePosition) -> None:
        key = (position.topic_id, position.partition)
        if position.assignment_id in self._assignments:
            text = f"assignment_id {position.assignment_id} is in use; each assign needs one of its own"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        if len(self._assignments) >= MAX_ASSIGNMENTS:
            raise PenstockError(Reason.OVERLOADED, f"more than {MAX_ASSIGNMENTS} assignments in one stream")
        former = self._by_partition.get(key)
        if former is not None:
            self._end(former)
        if position.fetch_offset < 0:
            text = f"fetch_offset {position.fetch_offset} is negative"
            self._refuse(position.assignment_id, PenstockError(Reason.INVALID_ARGUMENT, text))
            return
        try:
            assignment = Assignment(position, self._locator.leader_of(*key))
        except PenstockError as error:
            self._refuse(position.assignment_id, error)
            return
        self._assignments[assignment.id] = assignment
        self._by_partition[key] = assignment.id
        assignment.unsubscribe = assignment.partition.on_progress(partial(self._wake, assignment.id))
        self._ready[assignment.id] = None

    def _wake(self, assignment_id: int) -> None:
        assignment = self._assignments.get(assignment_id)
        if assignment is not None and not assignment.paused:
            self._ready[assignment_id] = None
            self._changed.set()

    def _pause(self, assignment_ids: Iterable[int], *, paused: bool) -> None:
        for assignment_id in assignment_ids:
            assignment = self._assignments.get(assignment_id)
            if assignment is None:
                continue
            assignment.paused = paused
            if paused:
                self._ready.pop(assignment_id, None)
            else:
                self._wake(assignment_id)

    def _end(self, assignment_id: int) -> None:
        assignment = self._assignments.pop(assignment_id, None)
        if assignment is None:
            return
        assignment.unsubscribe()
        self._ready.pop(assignment_id, None)
        key = (assignment.partition.key.topic_id, assignment.partition.key.partition)
        if self._by_partition.get(key) == assignment_id:
            del self._by_partition[key]

    def _refuse(self, assignment_id: int, error: PenstockError) -> None:
        self._refused += partition_parts(twin.ConsumedPartition(assignment_id=assignment_id, error=to_status(error)))

    async def _send(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            while (response := await self._gather()) is not None:
                await self._context.write(response)

    async def _gather(self) -> bytes | None:
        """Take one response's worth of what is ready, serialized; None when there is nothing that may be sent."""
        parts, self._refused = self._refused, []
        room = self._response_bytes
        while room > 0 and self._records > 0 and self._bytes > 0 and self._ready:
            assignment_id, _ = self._ready.popitem(last=False)
            assignment = self._assignments[assignment_id]
            batches = await self._read(assignment, min(room, self._bytes, MAX_READ_BYTES))
            if batches is None:
                continue
            parts += partition_parts(self._head(assignment), batches)
            sent = sum(len(batch.payload) for batch in batches)
            room -= max(sent, 1)
            self._bytes -= sent
            self._records -= sum(batch.header.record_count for batch in batches)
        return b"".join(parts) or None

    async def _read(self, assignment: Assignment, max_bytes: int) -> list[LogBatch] | None:
        """What is to be sent of an assignment, which then stands after it; None: nothing."""
        partition = assignment.partition
        try:
            self._locator.check_serving()
            batches = await partition.read(
                ReadRequest(
                    offset=assignment.fetch_offset,
                    max_bytes=max_bytes,
                    isolation=self._isolation,
                    leader_epoch=assignment.leader_epoch,
                    last_fetched_epoch=assignment.last_epoch,
                )
            )
        except PenstockError as error:
            if self._assignments.get(assignment.id) is assignment:
                self._end(assignment.id)
                explained = self._locator.explain(error, partition.key.topic_id, partition.key.partition)
                self._refuse(assignment.id, explained)
                self._changed.set()
            return None
        if self._assignments.get(assignment.id) is not assignment:  # replaced or taken back while it was read
            return None
        if not batches and assignment.answered:
            return None  # at the end: the next progress wakes it
        assignment.answered = True
        if batches:
            assignment.fetch_offset = batches[-1].last_offset + 1
            assignment.last_epoch = batches[-1].leader_epoch
            if not assignment.paused:
                self._ready[assignment.id] = None
        return batches

    def _head(self, assignment: Assignment) -> twin.ConsumedPartition:
        partition = assignment.partition
        return twin.ConsumedPartition(
            assignment_id=assignment.id,
            leader_epoch=partition.leader_epoch,
            high_watermark=partition.high_watermark,
            last_stable_offset=partition.last_stable_offset,
            log_start_offset=partition.log_start_offset,
        )


def check_isolation(isolation: int) -> None:
    """Refuse an isolation level that is not one of the known ones."""
    if isolation not in {common_pb2.ISOLATION_READ_UNCOMMITTED, common_pb2.ISOLATION_READ_COMMITTED}:
        text = f"isolation is {isolation}, not one of READ_UNCOMMITTED, READ_COMMITTED"
        raise PenstockError(Reason.INVALID_ARGUMENT, text)
