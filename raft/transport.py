"""Consensus messages over gRPC: a stream for each directed pair of nodes, on the peer listener and the event loop.

Invariants: messages to a peer leave in order, each at most once; what was queued when a stream ends is lost, and the
machine is told (Disconnected before the next Connected). A peer's new stream ends its former one before any of its
messages is taken. Both sides name cluster, node and journal before anything else; a wrong name ends the stream. Idle
streams carry keepalives, so that the first request for votes finds a living one. Queues are bounded: a full one refuses
the message, a full inbox stops the reading.

A peer that nobody here dials (an observer: its address is in no configuration) is sent to over the responses of the
stream that it dialed.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from penstock.internal.v1 import raft_pb2, raft_pb2_grpc
from penstock.raft import messages
from penstock.raft.journal import Identity
from penstock.raft.machine import Connected, Disconnected, Event, Received
from penstock.raft.outbox import Message

PROTOCOL = 1
QUEUE_BYTES = 32 * 1024 * 1024  # to one peer, not yet handed to gRPC
REQUEST_BYTES = 1024 * 1024  # of messages put together in one request
KEEPALIVE_S = 0.5
DEAD_S = 2.0  # without any sign of the other side the stream is given up
HANDSHAKE_S = 1.0
BACKOFF_S = (0.02, 0.2)  # between two dials: first, longest; jittered
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # each dial is a new attempt, without gRPC's own backoff of seconds
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)

log = logging.getLogger(__name__)


class HandshakeError(Exception):
    """The other side is not who it should be."""


class SendQueue:
    """What waits to leave on one stream. `post` is called on the consensus thread, the rest on the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[raft_pb2.RaftMessage, int]] = deque()
        self._ready = asyncio.Event()
        self._posted = 0  # bytes; written by the consensus thread only
        self._written = 0  # bytes; written by the event loop only

    @property
    def has_room(self) -> bool:
        """Whether another message may be posted."""
        return self._posted - self._written < QUEUE_BYTES

    def count(self, size: int) -> None:
        """Account for a message that is about to be put (consensus thread)."""
        self._posted += size

    def put(self, message: raft_pb2.RaftMessage, size: int) -> None:
        """Queue a message (event loop)."""
        self._waiting.append((message, size))
        self._ready.set()

    def answer_keepalive(self) -> None:
        """Let an empty message leave soon."""
        self._ready.set()

    async def run(self, write: Callable[[list[raft_pb2.RaftMessage]], Awaitable[None]], keepalive_s: float) -> None:
        """Write until cancelled or the stream fails; at least an empty request each `keepalive_s`."""
        loop = asyncio.get_running_loop()
        due = loop.time() + keepalive_s
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._ready.wait()
            except TimeoutError:
                pass
            self._ready.clear()
            idle = not self._waiting
            while self._waiting:
                await self._write_some(write)
            if idle or loop.time() >= due:
                await write([])
                due = loop.time() + keepalive_s

    async def _write_some(self, write: Callable[[list[raft_pb2.RaftMessage]], Awaitable[None]]) -> None:
        batch: list[raft_pb2.RaftMessage] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0][1] <= REQUEST_BYTES):
            message, length = self._waiting.popleft()
            batch.append(message)
            size += length
        await write(batch)
        self._written += size


class Inbox:
    """What came in and the consensus thread has not taken yet; says when reading should pause."""

    def __init__(self, deliver: Callable[[list[Event]], None]) -> None:
        self.deliver = deliver
        self.room = asyncio.Event()
        self.room.set()


@dataclass(eq=False)
class Inbound:
    """A stream that a peer dialed."""

    peer: int
    queue: SendQueue = field(default_factory=SendQueue)
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set: let go of it
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # nothing of it is taken any more

    async def end(self) -> None:
        """End the stream, and return when it has ended."""
        self.ending.set()
        await self.ended.wait()


class Link:
    """Keeps a stream to one peer: dials, greets, writes, reads, and dials again."""

    def __init__(self, transport: "PeerTransport", peer: int, address: str) -> None:
        self.peer = peer
        self.address = address
        self._transport = transport
        self._hint = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"raft link to node {peer}")

    def redial(self) -> None:
        """The peer is alive: do not wait for the next attempt."""
        self._hint.set()

    async def close(self) -> None:
        """End the stream and stop dialing."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep(self) -> None:
        wait, known = BACKOFF_S[0], ""
        while True:
            self._hint.clear()
            try:
                await self._session()
                wait, problem = BACKOFF_S[0], "the stream ended"
            except asyncio.CancelledError:
                if self._closing:
                    raise
                problem = "the peer cancelled the stream"  # which gRPC raises as if this task had been cancelled
            except Exception as error:  # noqa: BLE001  whatever ended the stream: the link lives on
                problem = str(error.details() if isinstance(error, grpc.aio.AioRpcError) else error)
                problem = problem or type(error).__name__
            if problem != known:
                log.info("no consensus stream to node %d at %s: %s", self.peer, self.address, problem)
                known = problem
            try:
                async with asyncio.timeout(wait * self._transport.rng.uniform(0.5, 1.0)):
                    await self._hint.wait()
            except TimeoutError:
                wait = min(2 * wait, BACKOFF_S[1])

    async def _session(self) -> None:
        async with self._transport.channel(self.address) as channel:
            call = raft_pb2_grpc.RaftServiceStub(channel).Exchange()
            try:
                await self._greet(call)
                await self._exchange(call)
            finally:
                call.cancel()

    async def _greet(self, call: Any) -> None:
        hello = self._transport.hello(self.peer)
        async with asyncio.timeout(HANDSHAKE_S):
            await call.write(raft_pb2.ExchangeRequest(hello=hello))
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise HandshakeError(await call.details() or "the peer closed the stream")
        self._transport.check_hello(answer.hello, self.peer)

    async def _exchange(self, call: Any) -> None:
        async def write(batch: list[raft_pb2.RaftMessage]) -> None:
            await call.write(raft_pb2.ExchangeRequest(messages=batch))

        async def read() -> None:
            while True:
                async with asyncio.timeout(DEAD_S):
                    answer = await call.read()
                if answer is grpc.aio.EOF:
                    return
                await self._transport.take(self.peer, answer.messages)

        queue = SendQueue()
        self._transport.opened(self.peer, queue)
        try:
            await _first_of(queue.run(write, KEEPALIVE_S), read())
        finally:
            self._transport.closed(self.peer, queue)


class PeerTransport:
    """All streams of this node. A Wire for the machine (`post`, `has_room`, `set_voters`: consensus thread)."""

    def __init__(
        self,
        identity: Identity,
        overrides: Mapping[int, str],
        credentials: grpc.ChannelCredentials | None,
        inbox: Inbox,
        rng: random.Random,
    ) -> None:
        self.identity = identity
        self.rng = rng
        self._overrides = overrides
        self._credentials = credentials
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._links: dict[int, Link] = {}
        self._inbound: dict[int, Inbound] = {}
        self._queues: dict[int, SendQueue] = {}  # where messages to a peer go now
        self._closing: set[asyncio.Task[None]] = set()
        self._stopped = False

    # --- the machine's side (consensus thread) ----------------------------------------------------------------------

    def post(self, batch: Sequence[tuple[int, Message]]) -> None:
        """Encode and hand over; lost where the stream is gone."""
        encoded = []
        for peer, message in batch:
            queue = self._queues.get(peer)
            if queue is not None:
                record = messages.encode(message)
                size = record.ByteSize()
                queue.count(size)
                encoded.append((queue, record, size))
        self._call(self._put, encoded)

    def has_room(self, peer: int) -> bool:
        """Whether the queue to this peer takes another message."""
        queue = self._queues.get(peer)
        return queue is not None and queue.has_room

    def set_voters(self, addresses: dict[int, str]) -> None:
        """Dial these from now on, and nobody else."""
        self._call(self._dial_only, addresses)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.debug("the event loop has ended; consensus messages are dropped")

    # --- the event loop ---------------------------------------------------------------------------------------------

    @staticmethod
    def _put(batch: list[tuple[SendQueue, raft_pb2.RaftMessage, int]]) -> None:
        for queue, record, size in batch:
            queue.put(record, size)

    def _dial_only(self, addresses: dict[int, str]) -> None:
        if self._stopped:
            return
        wanted = {peer: self._overrides.get(peer, address) for peer, address in addresses.items()}
        for peer, link in list(self._links.items()):
            if wanted.get(peer) != link.address:
                del self._links[peer]
                task = self._loop.create_task(link.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
                if peer in self._inbound and peer not in wanted:
                    self.opened(peer, self._inbound[peer].queue)
        for peer, address in wanted.items():
            if peer not in self._links:
                self._links[peer] = Link(self, peer, address)

    def channel(self, address: str) -> grpc.aio.Channel:
        """Return a new channel to a peer's listener."""
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)

    def hello(self, peer: int) -> raft_pb2.RaftHello:
        """Return this node's greeting."""
        cluster, node, journal = self.identity
        return raft_pb2.RaftHello(
            protocol=PROTOCOL, cluster_id=cluster, from_node=node, to_node=peer, journal_id=journal
        )

    def check_hello(self, hello: raft_pb2.RaftHello, peer: int | None) -> None:
        """Raise HandshakeError unless the other side is of this cluster, means this node, and is the one expected."""
        cluster, node, _ = self.identity
        if hello.protocol != PROTOCOL:
            raise HandshakeError(f"consensus protocol {hello.protocol} is not {PROTOCOL}: the nodes' versions differ")
        if hello.cluster_id != cluster:
            raise HandshakeError(f"cluster {hello.cluster_id!r} is not this cluster, {cluster!r}")
        if hello.to_node != node:
            raise HandshakeError(f"node {hello.to_node} was meant, but this is node {node}")
        if hello.from_node in (0, node) or hello.from_node != (peer or hello.from_node):
            raise HandshakeError(f"node {hello.from_node} was not expected here")

    def opened(self, peer: int, queue: SendQueue) -> None:
        """Messages to the peer go this way from now on."""
        if peer in self._queues:
            self._inbox.deliver([Disconnected(peer)])
        self._queues[peer] = queue
        self._inbox.deliver([Connected(peer)])

    def closed(self, peer: int, queue: SendQueue) -> None:
        """This way to the peer is gone."""
        if self._queues.get(peer) is queue:
            del self._queues[peer]
            self._inbox.deliver([Disconnected(peer)])

    async def take(self, peer: int, records: Sequence[raft_pb2.RaftMessage]) -> None:
        """Hand a peer's messages to the machine; returns when there is room for more."""
        if records:
            self._inbox.deliver([Received(peer, messages.decode(record)) for record in records])
            await self._inbox.room.wait()

    async def serve(self, context: Any) -> None:
        """Serve a stream that a peer dialed."""
        async with asyncio.timeout(HANDSHAKE_S):
            first = await context.read()
        if first is grpc.aio.EOF:
            return
        try:
            self.check_hello(first.hello, None)
        except HandshakeError as error:
            log.warning("refused a consensus stream: %s", error)
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        inbound = Inbound(first.hello.from_node)
        former = self._inbound.get(inbound.peer)
        self._inbound[inbound.peer] = inbound
        try:
            if former is not None:
                await former.end()
            await context.write(raft_pb2.ExchangeResponse(hello=self.hello(inbound.peer)))
            if inbound.peer in self._links:
                self._links[inbound.peer].redial()
            else:
                self.opened(inbound.peer, inbound.queue)
            await self._serve_messages(inbound, context)
        finally:
            if self._inbound.get(inbound.peer) is inbound:
                del self._inbound[inbound.peer]
            self.closed(inbound.peer, inbound.queue)
            inbound.ended.set()

    async def _serve_messages(self, inbound: Inbound, context: Any) -> None:
        async def write(batch: list[raft_pb2.RaftMessage]) -> None:
            await context.write(raft_pb2.ExchangeResponse(messages=batch))

        async def read() -> None:
            while True:
                async with asyncio.timeout(DEAD_S):
                    request = await context.read()
                if request is grpc.aio.EOF or self._inbound.get(inbound.peer) is not inbound:
                    return
                if not request.messages:
                    inbound.queue.answer_keepalive()
                await self.take(inbound.peer, request.messages)

        await _first_of(inbound.queue.run(write, KEEPALIVE_S), read(), inbound.ending.wait())

    async def stop(self) -> None:
        """End all streams."""
        self._stopped = True
        links, self._links = list(self._links.values()), {}
        for link in links:
            await link.close()
        for inbound in list(self._inbound.values()):
            await inbound.end()
        if self._closing:
            await asyncio.wait(list(self._closing))


async def _first_of(*coroutines: Any) -> None:
    """Run all until the first ends; cancel the others, and raise what ended it."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():  # gRPC raises CancelledError in a reader whose stream the peer cancelled
            task.result()


class RaftServicer(raft_pb2_grpc.RaftServiceServicer):
    """RaftService on the peer listener; refuses until the node's transport is there."""

    def __init__(self) -> None:
        self.transport: PeerTransport | None = None

    async def Exchange(  # type: ignore[override]  # noqa: N802  # gRPC's name; the stub knows only async generators
        self, _: Any, context: Any
    ) -> None:
        """Serve one dialer's stream."""
        if self.transport is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "consensus is not running on this node")
            return
        try:
            await self.transport.serve(context)
        except (TimeoutError, messages.MalformedMessageError, grpc.aio.AioRpcError) as error:
            await context.abort(grpc.StatusCode.ABORTED, str(error) or "nothing was heard for too long")
