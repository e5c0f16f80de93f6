"""The follower's side of replication streams: one to each node that leads something this node follows.

A link dials again with growing, jittered pauses, tells when the connection was refused, and gives every partition a new
slot in a new stream (rules 7, 11). What gathers while a message is being written goes into the next one.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from penstock.internal.v1 import replication_pb2 as pb
from penstock.internal.v1 import replication_pb2_grpc as pb_grpc
from penstock.node.replication.events import Position, SessionKey
from penstock.node.replication.shell import ReplicaShell
from penstock.node.replication.wire import position_message, seed_of
from penstock.storage import PartitionKey

LOG = logging.getLogger(__name__)
FIRST_PAUSE_MS = 20
LAST_PAUSE_MS = 1_000
REOPEN_FIRST_MS = 10
REOPEN_LAST_MS = 1_000
Call = Any  # grpc.aio.StreamStreamCall; its published types do not know EOF
CREDIT_STEP = 8
"""Credit is given back in messages of its own once an eighth of the window has gathered."""


class FetcherHost(Protocol):
    """What the fetcher needs of its node."""

    node_id: int
    cluster_id: str
    node_epoch: int | None
    credit_bytes: int

    def dial(self, node_id: int) -> grpc.aio.Channel | None:
        """Open a new channel to a node's peer address; None while the address is not known."""
        ...

    def connection_refused(self, node_id: int) -> None:
        """A leader's address refused the connection: its process is gone."""
        ...

    def fatal(self, error: BaseException) -> None:
        """The code is wrong: the node must end."""
        ...


class LeaderLink:
    """The stream to one leader node, and the partitions that are followed there."""

    def __init__(
        self, host: FetcherHost, leader: int, rng: random.Random, next_stream_number: Callable[[], int]
    ) -> None:
        self.leader = leader
        self._host = host
        self._rng = rng
        self._next_stream_number = next_stream_number
        self._members: dict[PartitionKey, ReplicaShell] = {}
        self._slots: dict[int, ReplicaShell] = {}
        self._reopen_ms: dict[PartitionKey, int] = {}
        self._opened: dict[PartitionKey, float] = {}
        self._timers: dict[PartitionKey, asyncio.TimerHandle] = {}
        self._request = pb.ReplicateRequest()
        self._fetches: dict[int, Position] = {}
        self._credit = {False: 0, True: 0}
        self._node_epoch = 0
        self._stream_number = 0
        self._last_slot = 0
        self._connected = False
        self._changed = asyncio.Event()
        self._told: tuple[grpc.StatusCode, str] | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- members

    def add(self, replica: ReplicaShell) -> None:
        """Follow a partition here."""
        self._members[replica.key] = replica
        self._reopen_ms.pop(replica.key, None)
        self._wanted.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)
        elif self._connected:
            self._connect(replica)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._host.fatal(error)

    def leave(self, replica: ReplicaShell, session: SessionKey, *, retry: bool) -> None:
        """The session is over; with `retry` a new slot follows after a pause.

        The pause doubles from session to session, and is short again after one that outlived it: what the leader sends
        at once says nothing where it cannot be written (a full store).
        """
        if self._slots.pop(session.slot, None) is not None:
            self._fetches.pop(session.slot, None)
            self._request.closes.append(session.slot)
            self._changed.set()
        if not retry:
            self._drop(replica.key)
            return
        loop = asyncio.get_running_loop()
        pause = self._reopen_ms.get(replica.key, REOPEN_FIRST_MS)
        if (loop.time() - self._opened.get(replica.key, loop.time())) * 1000 > pause:
            pause = REOPEN_FIRST_MS
        self._reopen_ms[replica.key] = min(2 * pause, REOPEN_LAST_MS)
        self._cancel_timer(replica.key)
        self._timers[replica.key] = loop.call_later(pause / 1000, self._reopen, replica)

    def drop(self, replica: ReplicaShell) -> None:
        """Follow it here no more, whether or not it had a session."""
        for number, member in list(self._slots.items()):
            if member is replica:
                del self._slots[number]
                self._fetches.pop(number, None)
                self._request.closes.append(number)
                self._changed.set()
        self._drop(replica.key)

    def _drop(self, key: PartitionKey) -> None:
        self._members.pop(key, None)
        self._reopen_ms.pop(key, None)
        self._opened.pop(key, None)
        self._cancel_timer(key)

    def _cancel_timer(self, key: PartitionKey) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _reopen(self, replica: ReplicaShell) -> None:
        self._timers.pop(replica.key, None)
        if self._connected and self._members.get(replica.key) is replica:
            self._connect(replica)

    def _connect(self, replica: ReplicaShell) -> None:
        self._last_slot += 1
        self._slots[self._last_slot] = replica
        self._opened[replica.key] = asyncio.get_running_loop().time()
        replica.connect(self, SessionKey(self._node_epoch, self._stream_number, self._last_slot))

    def release(self) -> list[ReplicaShell]:
        """Give the members up; the link says nothing to them any more."""
        members = list(self._members.values())
        for key in list(self._timers):
            self._cancel_timer(key)
        self._members.clear()
        self._slots.clear()
        return members

    async def close(self) -> None:
        """End the stream for good."""
        self.release()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---- to the leader (the replica shell's LeaderLink)

    def send_open(self, session: SessionKey, key: PartitionKey, position: Position) -> None:
        """Send an open."""
        self._request.opens.add(
            slot=session.slot,
            topic_id=key.topic_id,
            partition=key.partition,
            position=position_message(position),
        )
        self._changed.set()

    def send_fetch(self, session: SessionKey, position: Position) -> None:
        """Send a fetch; a later one of the session replaces it while it waits."""
        if session.slot in self._slots:
            self._fetches[session.slot] = position
            self._changed.set()

    def give_back(self, size: int, *, cold: bool) -> None:
        """Received bytes are dealt with: the leader may send as many more."""
        self._credit[cold] += size
        if self._credit[cold] >= self._host.credit_bytes // CREDIT_STEP:
            self._changed.set()

    # ---- the stream

    async def _run(self) -> None:
        pause = FIRST_PAUSE_MS
        while True:
            if not self._members:
                self._wanted.clear()
                await self._wanted.wait()
            node_epoch = self._host.node_epoch
            channel = self._host.dial(self.leader) if node_epoch is not None else None
            if channel is not None and node_epoch is not None and await self._serve(channel, node_epoch):
                pause = FIRST_PAUSE_MS
            await asyncio.sleep(pause / 1000 * self._rng.uniform(0.5, 1.0))
            pause = min(2 * pause, LAST_PAUSE_MS)

    async def _serve(self, channel: grpc.aio.Channel, node_epoch: int) -> bool:
        """Serve one stream until it breaks; whether it ever stood."""
        welcomed = False
        call = pb_grpc.ReplicationServiceStub(channel).Replicate()
        try:
            await self._hello(call, node_epoch)
            welcome: Any = await call.read()
            if welcome is grpc.aio.EOF or not welcome.HasField("welcome"):
                return False
            welcomed = True
            await self._exchange(call, welcome)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: a write after the call had ended
            await self._note_break(call)
        except asyncio.CancelledError:  # also raised where the other side cancelled the call
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            self._break()
            await channel.close()
        return welcomed

    async def _hello(self, call: Call, node_epoch: int) -> None:
        self._node_epoch = node_epoch
        self._stream_number = self._next_stream_number()
        self._last_slot = 0
        self._request = pb.ReplicateRequest()
        self._fetches = {}
        self._credit = {False: 0, True: 0}
        hello = pb.Hello(
            cluster_id=self._host.cluster_id,
            node_id=self._host.node_id,
            leader_node_id=self.leader,
            stream_number=self._stream_number,
        )
        window = self._host.credit_bytes
        await call.write(
            pb.ReplicateRequest(hello=hello, node_epoch=node_epoch, hot_credit_bytes=window, cold_credit_bytes=window)
        )

    async def _exchange(self, call: Call, first: pb.ReplicateResponse) -> None:
        self._connected = True
        for replica in list(self._members.values()):
            self._connect(replica)
        writer = asyncio.create_task(self._write(call))
        writer.add_done_callback(self._writer_ended)
        try:
            response: Any = first
            while response is not grpc.aio.EOF:
                self._take(response)
                response = await call.read()
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _writer_ended(self, task: "asyncio.Task[None]") -> None:
        """A break of the stream is the reader's to notice; anything else is a fault of the code."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, grpc.aio.AioRpcError | asyncio.InvalidStateError):
            self._host.fatal(error)

    async def _write(self, call: Call) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await call.write(self._message())

    def _message(self) -> pb.ReplicateRequest:
        request, self._request = self._request, pb.ReplicateRequest()
        fetches, self._fetches = self._fetches, {}
        request.node_epoch = self._node_epoch
        for number, position in fetches.items():
            request.fetches.add(slot=number, position=position_message(position))
        request.hot_credit_bytes, request.cold_credit_bytes = self._credit[False], self._credit[True]
        self._credit = {False: 0, True: 0}
        return request

    def _break(self) -> None:
        self._connected = False
        self._slots.clear()
        for replica in list(self._members.values()):
            replica.disconnect()

    async def _note_break(self, call: Call) -> None:
        code, details = await call.code(), await call.details() or ""
        if self._connected or (code, details) != self._told:  # attempts that fail alike are told once
            LOG.info("stream to leader node %d ended: %s %s", self.leader, code, details)
        self._told = (code, details)
        if code is grpc.StatusCode.UNAVAILABLE and "onnection refused" in details:
            self._host.connection_refused(self.leader)

    # ---- from the leader

    def _take(self, response: pb.ReplicateResponse) -> None:
        for append in response.appends:
            self._take_append(append)
        for progress in response.progress:
            if (replica := self._slots.get(progress.slot)) is not None:
                self._reopen_ms.pop(replica.key, None)
                session, mark = self._session(progress.slot), progress.high_watermark
                replica.on_progress(session, mark, progress.log_start_offset, progress.passed_offset)
        for cut in response.divergences:
            if (replica := self._slots.get(cut.slot)) is not None:
                replica.on_divergence(self._session(cut.slot), cut.leader_epoch, cut.end_offset)
        for seed in response.seeds:
            if (replica := self._slots.get(seed.slot)) is not None:
                replica.on_seed(self._session(seed.slot), seed_of(seed))
        for refusal in response.refusals:
            if (replica := self._slots.get(refusal.slot)) is not None:
                replica.on_refused(self._session(refusal.slot))

    def _take_append(self, append: pb.PartitionAppend) -> None:
        replica = self._slots.get(append.slot)
        if replica is None:  # left meanwhile
            self.give_back(sum(len(batch.batch) for batch in append.batches), cold=append.cold)
            return
        replica.on_batches(self, self._session(append.slot), append.batches, cold=append.cold)

    def _session(self, slot: int) -> SessionKey:
        return SessionKey(self._node_epoch, self._stream_number, slot)


class Fetcher:
    """All links of this node, by leader."""

    def __init__(self, host: FetcherHost, rng: random.Random) -> None:
        self._host = host
        self._rng = rng
        self._streams = 0
        self._links: dict[int, LeaderLink] = {}
        self._of: dict[PartitionKey, LeaderLink] = {}
        self._closing: dict[asyncio.Task[None], None] = {}

    def follow(self, replica: ReplicaShell, leader: int) -> None:
        """Follow a partition at a leader; it leaves its former one."""
        self.unfollow(replica)
        link = self._links.get(leader)
        if link is None:
            link = self._links[leader] = LeaderLink(self._host, leader, self._rng, self._next_stream_number)
        self._of[replica.key] = link
        link.add(replica)

    def unfollow(self, replica: ReplicaShell) -> None:
        """Follow it no more."""
        link = self._of.pop(replica.key, None)
        if link is not None:
            link.drop(replica)

    def leave(self, replica: ReplicaShell, session: SessionKey, *, retry: bool) -> None:
        """A session is over."""
        link = self._of.get(replica.key)
        if link is None:
            return
        link.leave(replica, session, retry=retry)
        if not retry:
            del self._of[replica.key]

    def _next_stream_number(self) -> int:
        self._streams += 1
        return self._streams

    def restart(self) -> None:
        """The node got a new node_epoch: close every stream and open it again (rule 7)."""
        links, self._links = self._links, {}
        members = [(replica, link.leader) for link in links.values() for replica in link.release()]
        for link in links.values():
            self._close(link)
        for replica, leader in members:
            self._of.pop(replica.key, None)
            replica.disconnect()
            self.follow(replica, leader)

    def _close(self, link: LeaderLink) -> None:
        task = asyncio.create_task(link.close())
        self._closing[task] = None
        task.add_done_callback(self._closing.pop)

    async def close(self) -> None:
        """End all streams."""
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._closing)
