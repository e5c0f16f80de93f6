"""The leader's side of replication streams: one per follower node, carrying all partitions that it follows here.

What gathers while a message is being written goes into the next one, no timer. A caught-up partition is served from
the tail and takes hot credit; one that is behind is read from the store off the loop and takes cold credit, so that it
cannot starve the others (rule 29). Owns the streams and their slots; the protocol is the replica cores'.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from penstock.internal.v1 import replication_pb2 as pb
from penstock.node.replication.events import RefusalKind, SessionKey
from penstock.node.replication.shell import ReplicaShell
from penstock.node.replication.wire import REFUSALS, append_parts, position_of, seed_message
from penstock.storage import Log, LogBatch, PartitionKey, StorageError
from penstock.storage.compaction import begin_at

LOG = logging.getLogger(__name__)
SERVICE = "penstock.internal.v1.ReplicationService"
MESSAGE_BYTES = 4 * 1024 * 1024
"""A message takes no further batch above this."""
COLD_READ_BYTES = 1024 * 1024
"""One cold read."""
SLOTS_PER_STREAM = 1_000_000
"""Opens that one stream may ever make."""
PROGRESS_DELAY_MS = 20
"""How long a moved high watermark waits for batches to travel with. Nobody waits for it: a follower serves no reads,
and one that becomes the leader finds the high watermark by what its own followers hold."""

Context = Any  # grpc.aio.ServicerContext; its published types do not know EOF nor bytes


class SourceHost(Protocol):
    """What the source needs of its node."""

    node_id: int
    cluster_id: str

    def replica(self, key: PartitionKey) -> ReplicaShell | None:
        """Return the replica of a partition."""
        ...

    def follower_lost(self, node_id: int) -> None:
        """A follower's stream ended: it may be dead."""
        ...

    def follower_back(self, node_id: int) -> None:
        """A follower's stream begins: it lives."""
        ...

    async def read_cold(self, log: Log, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Read a log off the loop."""
        ...


class Slot:
    """A partition's place in a stream."""

    def __init__(self, stream: "FollowerStream", replica: ReplicaShell, session: SessionKey) -> None:
        self.follower = stream.node_id
        self.session = session
        self.replica = replica
        self.queued = False
        self.reading = False
        self.cold: list[LogBatch] = []
        self.said: tuple[int, int, int] | None = None
        """High watermark, log start and passed offset, as the follower was told last."""
        self._stream = stream

    def wake(self) -> None:
        """There may be something to send."""
        self._stream.queue(self)

    def advanced(self) -> None:
        """The high watermark or the log start moved."""
        self._stream.note_advance(self)

    def diverge(self, leader_epoch: int, end_offset: int) -> None:
        """Send a divergence."""
        self.cold, self.said = [], None  # what was said of the log start goes with what is cut
        self._stream.outbox.divergences.add(slot=self.session.slot, leader_epoch=leader_epoch, end_offset=end_offset)
        self._stream.wake()

    def seed(self) -> None:
        """Send the seed of the log's start."""
        self.cold, self.said = [], None
        log = self.replica.log
        if log is None:
            return
        self._stream.outbox.seeds.append(seed_message(self.session.slot, log.replica_seed()))
        self._stream.wake()

    def refuse(self, reason: RefusalKind) -> None:
        """Send a refusal; the slot is closed."""
        self._stream.close_slot(self.session.slot)
        self._stream.outbox.refusals.add(slot=self.session.slot, reason=REFUSALS[reason])
        self._stream.wake()


class FollowerStream:
    """One Replicate call."""

    def __init__(self, host: SourceHost, context: Context) -> None:
        self.node_id = -1
        self.node_epoch = 0
        self.stream_number = 0
        self._outbox: pb.ReplicateResponse | None = None
        self._host = host
        self._context = context
        self._slots: dict[int, Slot] = {}
        self._ready: deque[Slot] = deque()
        self._advanced: dict[Slot, None] = {}
        """Slots whose follower does not know the newest high watermark or log start."""
        self._progress_timer: asyncio.TimerHandle | None = None
        self._progress_is_due = False
        self._credit = {False: 0, True: 0}
        self._changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._reads: dict[asyncio.Task[None], None] = {}

    # ---- lifecycle

    @property
    def order(self) -> tuple[int, int]:
        """Streams of one follower in time."""
        return self.node_epoch, self.stream_number

    async def run(self) -> None:
        """Serve the call until the follower goes or `close`. Returning ends it; cancelling the handler would not."""
        parts = [asyncio.create_task(part) for part in (self._write(), self._read(), self._closing.wait())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                self._note_end(part)
        finally:
            for task in (*parts, *self._reads):
                task.cancel()
            if self._progress_timer is not None:
                self._progress_timer.cancel()
            for number in list(self._slots):
                self.close_slot(number)

    def close(self) -> None:
        """End the call; the follower may dial again."""
        self._closing.set()

    async def _read(self) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._take(request)

    def _note_end(self, part: "asyncio.Task[Any]") -> None:
        error = None if part.cancelled() else part.exception()
        if error is not None:
            LOG.info("stream to follower node %d ends: %s", self.node_id, error, exc_info=error)

    async def welcome(self) -> bool:
        """Read the hello and prepare the answer; False: the follower went at once. Aborts a call meant for another."""
        first = await self._context.read()
        if first is grpc.aio.EOF:
            return False
        hello = first.hello
        if hello.cluster_id != self._host.cluster_id or hello.leader_node_id != self._host.node_id:
            text = (
                f"this is node {self._host.node_id} of cluster {self._host.cluster_id!r}; "
                f"dialled was node {hello.leader_node_id} of {hello.cluster_id!r}"
            )
            await self._context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        self.node_id, self.node_epoch, self.stream_number = hello.node_id, first.node_epoch, hello.stream_number
        self.outbox.welcome.cluster_id = self._host.cluster_id
        self.outbox.welcome.node_id = self._host.node_id
        self._take(first)
        self._changed.set()
        return True

    @property
    def outbox(self) -> pb.ReplicateResponse:
        """All that waits but appends and progress, which are taken from the slots when a message is made."""
        if self._outbox is None:
            self._outbox = pb.ReplicateResponse()
        return self._outbox

    # ---- from the follower

    def _take(self, request: pb.ReplicateRequest) -> None:
        if request.node_epoch != self.node_epoch:  # rule 7: a new node_epoch means new streams
            LOG.warning("node %d changed its node_epoch within a stream", self.node_id)
            return
        for number in request.closes:
            self.close_slot(number)
        for fetch in request.fetches:
            slot = self._slots.get(fetch.slot)
            if slot is not None:
                slot.replica.on_fetch(slot, position_of(fetch.position))
        for message in request.opens:
            self._open(message)
        if request.hot_credit_bytes or request.cold_credit_bytes:
            self._credit[False] += request.hot_credit_bytes
            self._credit[True] += request.cold_credit_bytes
            self.wake()

    def _open(self, message: pb.OpenPartition) -> None:
        replica = self._host.replica(PartitionKey(message.topic_id, message.partition))
        if message.slot in self._slots or message.slot >= SLOTS_PER_STREAM:
            LOG.warning("node %d opens slot %d, which it may not", self.node_id, message.slot)
            return
        if replica is None or replica.core is None:
            self.outbox.refusals.add(slot=message.slot, reason=pb.REFUSAL_REASON_UNKNOWN_PARTITION)
            self.wake()
            return
        session = SessionKey(self.node_epoch, self.stream_number, message.slot)
        slot = self._slots[message.slot] = Slot(self, replica, session)
        replica.on_open(slot, position_of(message.position))

    def close_slot(self, number: int) -> None:
        """The follower left it, was refused, or the stream ends."""
        slot = self._slots.pop(number, None)
        if slot is not None:
            slot.cold = []
            slot.replica.on_closed(slot)

    # ---- to the follower

    def wake(self) -> None:
        """There is something to send, or credit for it."""
        self._changed.set()

    def queue(self, slot: Slot) -> None:
        """The slot may have something to send."""
        if not slot.queued:
            slot.queued = True
            self._ready.append(slot)
        self._changed.set()

    def note_advance(self, slot: Slot) -> None:
        """Tell the follower with the next message, or by itself in a while."""
        self._advanced[slot] = None
        if self._progress_timer is None:
            loop = asyncio.get_running_loop()
            self._progress_timer = loop.call_later(PROGRESS_DELAY_MS / 1000, self._on_progress_due)

    def _on_progress_due(self) -> None:
        self._progress_timer = None
        if self._advanced:
            self._progress_is_due = True
            self._changed.set()

    async def _write(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            message = self._message()
            if message:
                await self._context.write(message)

    def _message(self) -> bytes:
        """Everything that may be sent now, in one message; b"" for nothing."""
        parts: list[bytes] = []
        room = MESSAGE_BYTES
        waiting: list[Slot] = []
        for _ in range(len(self._ready)):
            slot = self._ready.popleft()
            slot.queued = False
            if slot.session.slot not in self._slots:
                continue
            room -= self._fill(slot, parts, room)
            if self._has_more(slot):
                waiting.append(slot)
            if slot.said is None:
                self._advanced[slot] = None
                self._progress_is_due = True
        outbox, self._outbox = self._outbox, None
        for slot in waiting:
            slot.queued = True
            self._ready.append(slot)
        if waiting and room <= 0:
            self._changed.set()
        if outbox is not None:
            parts.append(outbox.SerializeToString())
        if self._advanced and (self._progress_is_due or parts):
            parts.append(self._progress())
        return b"".join(parts)

    def _progress(self) -> bytes:
        """The high watermarks and log starts that the follower does not know."""
        self._progress_is_due = False
        advanced, self._advanced = self._advanced, {}
        progress = pb.ReplicateResponse()
        for slot in advanced:
            if slot.session.slot in self._slots:
                self._note_progress(slot, progress)
        return progress.SerializeToString()

    def _fill(self, slot: Slot, parts: list[bytes], room: int) -> int:
        """Take the slot's next batches as room and credit allow; their bytes."""
        core = slot.replica.core
        leader = None if core is None else core.leader
        start = None if leader is None else leader.next_push(self.node_id, slot.session)
        if core is None or leader is None or start is None or start >= core.log.log_end_offset or room <= 0:
            return 0
        batches, cold = self._next_batches(slot, start, core.log.log_end_offset, room)
        if not batches:
            return 0
        size = sum(len(batch.payload) for batch in batches)
        self._credit[cold] -= size
        parts += append_parts(slot.session.slot, batches, cold=cold)
        leader.on_pushed(self.node_id, slot.session, batches[-1].last_offset + 1)
        return size

    def _next_batches(self, slot: Slot, start: int, end: int, room: int) -> tuple[list[LogBatch], bool]:
        tail = slot.replica.tail
        if start >= tail.start_offset:
            if self._credit[False] <= 0:
                return [], False
            return list(tail.read(start, end, min(room, self._credit[False])) or ()), False
        if slot.cold and slot.cold[0].base_offset == start:
            batches, slot.cold = slot.cold, []
            return batches, True
        slot.cold = []
        if self._credit[True] > 0 and not slot.reading:
            slot.reading = True
            task = asyncio.create_task(self._read_cold(slot, start))
            self._reads[task] = None
            task.add_done_callback(self._reads.pop)
        return [], True

    async def _read_cold(self, slot: Slot, start: int) -> None:
        log = slot.replica.log
        try:
            if log is not None:
                size = min(COLD_READ_BYTES, self._credit[True])
                cold = await self._host.read_cold(log, start, log.state.log_end_offset, size)
                if cold and cold[0].base_offset < start:  # compaction has made one batch of several
                    cold[0] = begin_at(cold[0], start)
                slot.cold = cold
        except (StorageError, ValueError) as error:
            LOG.warning("cold read of %s at %d failed: %s", slot.replica.key, start, error)
            return
        finally:
            slot.reading = False
        self.queue(slot)

    def _has_more(self, slot: Slot) -> bool:
        """Whether it must be looked at again when there is room or credit."""
        core = slot.replica.core
        leader = None if core is None else core.leader
        start = None if leader is None else leader.next_push(self.node_id, slot.session)
        return core is not None and start is not None and start < core.log.log_end_offset and not slot.reading

    def _note_progress(self, slot: Slot, progress: pb.ReplicateResponse) -> None:
        core = slot.replica.core
        if core is None or core.leader is None or core.leader.next_push(self.node_id, slot.session) is None:
            return
        said = (core.log.high_watermark, core.log.log_start_offset, core.passed_offset)
        if said == slot.said:
            return
        slot.said = said
        mark, start, passed = said
        progress.progress.add(slot=slot.session.slot, high_watermark=mark, log_start_offset=start, passed_offset=passed)


class Source:
    """All streams from followers to this node."""

    def __init__(self, host: SourceHost) -> None:
        self._host = host
        self._streams: dict[int, FollowerStream] = {}

    async def replicate(self, request_iterator: object, context: Context) -> None:
        """Serve one Replicate call."""
        del request_iterator
        stream = FollowerStream(self._host, context)
        try:
            if await stream.welcome() and self._is_newest(stream):
                former = self._streams.get(stream.node_id)
                if former is not None:
                    former.close()
                self._streams[stream.node_id] = stream
                self._host.follower_back(stream.node_id)
                await stream.run()
        finally:
            if self._streams.get(stream.node_id) is stream:
                del self._streams[stream.node_id]
                self._host.follower_lost(stream.node_id)

    def _is_newest(self, stream: FollowerStream) -> bool:
        """Rule 11: a stream that is older than one already seen is late."""
        known = self._streams.get(stream.node_id)
        return known is None or known.order < stream.order

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for the peer listener; responses are bytes already."""
        decode: Callable[[bytes], pb.ReplicateRequest] = pb.ReplicateRequest.FromString
        method: Any = grpc.stream_stream_rpc_method_handler(self.replicate, decode, None)
        return grpc.method_handlers_generic_handler(SERVICE, {"Replicate": method})

    def close(self) -> None:
        """End all streams."""
        for stream in self._streams.values():
            stream.close()
