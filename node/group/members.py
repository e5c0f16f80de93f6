"""The members of all groups of one led partition of __offsets, in one leader epoch: the shell around their cores.

Owns the Join streams, the time of the sessions, and the way of the groups' changes to the metadata: one request at a
time, and whatever gathers meanwhile is in the next. Ends with `close`. Loop thread only.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from penstock.node.clock import occasion
from penstock.node.group.assignment import encoded_assignment
from penstock.node.group.due import DueTimes
from penstock.node.group.events import Assign, Joined, Outputs
from penstock.node.group.joining import GroupLimits, Wish, check_group_id, invalid, wish_of
from penstock.node.group.membership import Coordinator, GroupCore
from penstock.node.group.proposing import Proposing
from penstock.node.group.requests import MemberRequests
from penstock.node.group.seat import CommittedOffsets, Seat
from penstock.node.group.stream import MemberStream, Send
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage
from penstock.v1 import group_service_pb2 as pb

_log = logging.getLogger(__name__)

TICK_MS = 500
"""Longest time between two looks at the clock."""
PAUSE_MS = 500
"""An event loop that stood still for longer prolongs the sessions."""
CALL_TIMEOUT_S = 10.0
"""Longest wait for a group to be made or deleted."""
TOPIC_PATIENCE_S = 1.0
"""How long a topic that a member names may be missing, at most: this node's metadata may be a moment behind."""


class Members:
    """Made when the partition's leadership has begun and its offsets are loaded."""

    def __init__(self, seat: Seat, offsets: CommittedOffsets, limits: GroupLimits) -> None:
        self._seat = seat
        self._offsets = offsets
        self._limits = limits
        self._error: PenstockError | None = None
        self._streams: dict[int, MemberStream] = {}
        self._last_stream = 0
        self._cores: dict[str, GroupCore] = {}
        self._due = DueTimes()
        self._look = asyncio.Event()
        self._ticked_ms = seat.now_ms()
        self._waiting: dict[asyncio.Event, None] = {}
        """Of those who wait for a change, one each."""
        self._proposing = Proposing(seat, self._cores, self.perform)
        self._start(seat.image())
        self._tasks = [asyncio.create_task(self._keep_time()), asyncio.create_task(self._proposing.run())]
        for task in self._tasks:
            task.add_done_callback(_report)

    def _start(self, image: MetadataImage) -> None:
        self._catalog = self._seat.catalogs.of(image.topics)
        for group in image.groups.values():
            if self._is_here(group.group_id, image):
                self._add(group)

    def _is_here(self, group_id: str, image: MetadataImage) -> bool:
        place = image.offsets_partition(group_id)
        return place is not None and place.partition == self._seat.partition

    def _made(self, group: GroupInfo) -> GroupCore:
        coordinator = Coordinator(self._seat.node_id, self._seat.leader_epoch)
        return GroupCore(group, coordinator, self._limits, self._catalog, self._seat.now_ms())

    def _add(self, group: GroupInfo) -> GroupCore:
        core = self._cores[group.group_id] = self._made(group)
        self._touch(core)
        return core

    def close(self, error: PenstockError) -> None:
        """End all streams, and whatever waits, with this error."""
        if self._error is not None:
            return
        self._error = error
        for task in self._tasks:
            task.cancel()
        for stream in list(self._streams.values()):
            stream.end(error)
        self._tell_change()

    # ---- streams

    async def join(self, requests: AsyncIterator[pb.JoinRequest], send: Send, host: str = "") -> None:
        """Serve a member's stream from its JoinStart to its end. Raises the PenstockError that ends it.

        `send` gets serialized JoinResponses. `host`: where the member is, for people.
        """
        first = await anext(requests, None)
        if first is None:
            return
        if first.WhichOneof("request") != "start":
            raise invalid("the first request of a Join stream must be start")
        wish = wish_of(first.start, host, self._limits)
        self._last_stream += 1
        stream = MemberStream(self._last_stream, first.start.group_id, wish.member)
        self._streams[stream.number] = stream
        try:
            await self._admit(stream, wish)
            await self._serve(stream, requests, send)
        finally:
            del self._streams[stream.number]
            self._gone(stream)

    async def _admit(self, stream: MemberStream, wish: Wish) -> None:
        """Begin to join."""

        def join() -> None:
            core = self._core(stream.group_id)
            self.perform(core, core.on_join(wish, stream.number, self._seat.now_ms()))

        await self.patiently(join, wish.member.session_timeout_ms)

    async def _serve(self, stream: MemberStream, requests: AsyncIterator[pb.JoinRequest], send: Send) -> None:
        """Read and write until either ends. Who has left, or is not wanted any more, is told before the stream ends."""
        reading = MemberRequests(self, stream, self._offsets)
        writer = asyncio.create_task(stream.write(send, lambda: self._assignment(stream)))
        reader = asyncio.create_task(reading.run(requests))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
                if not (stream.has_left or stream.is_ended or writer.done()):
                    return
            await writer
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    def _gone(self, stream: MemberStream) -> None:
        core = self._cores.get(stream.group_id)
        if core is not None:
            core.on_stream_gone(stream.member_id, stream.number)
            self._drop_idle(core)

    def _assignment(self, stream: MemberStream) -> bytes | None:
        core = self._cores.get(stream.group_id)
        assigned = None if core is None else core.assignment(stream.member_id, self._seat.now_ms())
        if assigned is None:
            return None
        committed = self._offsets.committed
        return encoded_assignment(assigned, self._catalog.names, lambda p: committed(stream.group_id, p))

    # ---- for MemberRequests and Proposing

    def serving_core(self, group_id: str) -> GroupCore:
        """Return the core of a group. Raises NOT_SERVING where this node may have lost its place unknowingly."""
        if not self._seat.serving():
            raise PenstockError(Reason.NOT_SERVING, "the coordinator is cut off from the controller")
        return self._seen(group_id)

    async def patiently(self, act: Callable[[], None], session_timeout_ms: int) -> None:
        """Do what names topics. One that is not there is waited for a moment: it may just have been made elsewhere.

        The member's heartbeats wait too: so it takes no more than half of its session.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(TOPIC_PATIENCE_S, session_timeout_ms / 2000)
        while True:
            try:
                act()
            except PenstockError as error:
                if error.reason is not Reason.UNKNOWN_TOPIC or loop.time() >= deadline:
                    raise
                await self._change(deadline - loop.time())
            else:
                return

    def now_ms(self) -> int:
        """The monotonic time."""
        return self._seat.now_ms()

    def perform(self, core: GroupCore, outputs: Outputs) -> None:
        """Do what a core says, and look at it again."""
        for output in outputs:
            stream = self._streams.get(output.stream)
            if stream is None:
                continue
            if isinstance(output, Joined):
                stream.joined(output)
            elif isinstance(output, Assign):
                stream.assign()
            else:
                stream.end(output.error)
        self._touch(core)
        if core.failure is not None:
            self._tell_change()
        self._drop_idle(core)

    # ---- unary calls

    def heartbeat(self, request: pb.HeartbeatRequest) -> None:
        """Acknowledge a heartbeat outside of a stream. Raises UNKNOWN_MEMBER, INSTANCE_FENCED, NOT_SERVING."""
        check_group_id(request.group_id)
        core = self.serving_core(request.group_id)
        core.on_heartbeat(request.member_id, request.polls, self._seat.now_ms())

    def check_commit(
        self, group_id: str, member_id: str, generation: int, partitions: Sequence[GroupPartition]
    ) -> list[PenstockError | None]:
        """Return for each partition why a commit is refused, or None (rule 20)."""
        return self._seen(group_id).check_commit(member_id, generation, partitions)

    def commit_began(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        """A commit that was checked is in flight: its partitions stay where they are (rule 31)."""
        self._core(group_id).commit_began(partitions)

    def commit_ended(self, group_id: str, partitions: Sequence[GroupPartition]) -> None:
        """Its fate is known."""
        core = self._cores.get(group_id)
        if core is not None:
            core.commit_ended(partitions)
            if core.is_dirty:
                self._touch(core)
            self._drop_idle(core)

    def is_committing(self, group_id: str) -> bool:
        """Whether a commit of the group is in flight."""
        core = self._cores.get(group_id)
        return core is not None and core.is_committing

    async def ensure_group(self, group_id: str) -> None:
        """Make a group without members, if there is none. Raises GROUP_FULL, OUTCOME_UNKNOWN."""
        core = self._core(group_id)
        if not core.exists:
            core.want()
            self._touch(core)
            await self._until(core, lambda: core.exists)

    async def delete_group(self, group_id: str, *, validate_only: bool) -> int:
        """Delete a group without members; the metadata version without it.

        Raises UNKNOWN_GROUP, GROUP_NOT_EMPTY; OUTCOME_UNKNOWN where the leadership ends or the time is over meanwhile.
        """
        core = self._core(group_id)
        try:
            core.delete(validate_only=validate_only)
        finally:
            self._drop_idle(core)
        if not validate_only:
            self._touch(core)
            await self._until(core, lambda: not core.is_deleting, may_be_done=True)
            if core.exists:
                text = f"somebody came to join group {group_id!r} before it was deleted"
                raise PenstockError(Reason.GROUP_NOT_EMPTY, text)
        return self._seat.image().version

    async def _until(self, core: GroupCore, condition: Callable[[], bool], *, may_be_done: bool = False) -> None:
        """Wait for a change. `may_be_done`: who asks again elsewhere, when this leadership is over, might harm."""
        deadline = asyncio.get_running_loop().time() + CALL_TIMEOUT_S
        while not condition():
            if self._error is not None:
                if not may_be_done:
                    raise self._error
                text = f"it is not known whether group {core.group_id!r} was changed: {self._error.message}"
                raise PenstockError(Reason.OUTCOME_UNKNOWN, text)
            if core.failure is not None:
                raise core.failure
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise PenstockError(Reason.OUTCOME_UNKNOWN, f"group {core.group_id!r} was not changed in time")
            await self._change(left_s)

    # ---- the metadata

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        """The metadata changed."""
        if self._error is not None:
            return
        self._look_at_topics(new)
        if new.groups is not old.groups:
            self._look_at_groups(old, new)
        self._tell_change()

    def _look_at_groups(self, old: MetadataImage, new: MetadataImage) -> None:
        for core in list(self._cores.values()):
            group = new.groups.get(core.group_id)
            if group is not core.group and (group is not None or core.exists):
                self._show(core, group)
        for group_id in sorted(new.groups.keys() - old.groups.keys() - self._cores.keys()):
            if self._is_here(group_id, new):  # made by a change whose outcome was unknown, and nobody waited any more
                self._add(new.groups[group_id])

    def _look_at_topics(self, image: MetadataImage) -> None:
        catalog = self._seat.catalogs.of(image.topics)
        if catalog is not self._catalog:
            self._catalog = catalog
            for core in self._cores.values():
                core.on_catalog(catalog)
                self._touch(core)

    def _show(self, core: GroupCore, group: GroupInfo | None) -> None:
        generation = core.group.generation
        self.perform(core, core.on_group(group, self._seat.now_ms()))
        if group is not None and group.generation > generation:
            self._offsets.rebalanced(group)
        self._drop_idle(core)

    # ---- inside

    def _core(self, group_id: str) -> GroupCore:
        """Return the core of a group; what it takes in is kept, even where there is no such group yet."""
        if self._error is not None:
            raise self._error
        return self._cores.get(group_id) or self._add(self._group(group_id))

    def _seen(self, group_id: str) -> GroupCore:
        """Return the core of a group, to be asked only."""
        if self._error is not None:
            raise self._error
        return self._cores.get(group_id) or self._made(self._group(group_id))

    def _group(self, group_id: str) -> GroupInfo:
        return self._seat.image().groups.get(group_id) or GroupInfo(group_id, group_epoch=0)

    def _drop_idle(self, core: GroupCore) -> None:
        if core.is_idle and self._cores.get(core.group_id) is core:
            del self._cores[core.group_id]
            self._due.forget(core.group_id)

    async def _change(self, timeout_s: float) -> None:
        """Wait for a change, or until the time is over."""
        event = asyncio.Event()  # no one else's: it stays set when the time is over
        self._waiting[event] = None
        try:
            await occasion(event, timeout_s)
        finally:
            del self._waiting[event]

    def _tell_change(self) -> None:
        for event in self._waiting:
            event.set()

    def _touch(self, core: GroupCore) -> None:
        """Something happened to a group: it may have a change to propose, or another time to be looked at."""
        if core.is_dirty:
            self._proposing.want(core.group_id)
        now_ms = self._seat.now_ms()
        due_ms = core.due_ms(now_ms)
        self._due.put(core.group_id, due_ms)
        if due_ms is not None and due_ms < now_ms + TICK_MS:
            self._look.set()

    async def _keep_time(self) -> None:
        while True:
            now_ms = self._seat.now_ms()
            self._look_for_pause(now_ms)
            for group_id in self._due.take(now_ms):
                core = self._cores.get(group_id)
                if core is not None:
                    self.perform(core, core.tick(now_ms))
            next_ms = self._due.next_ms()
            wait_ms = TICK_MS if next_ms is None else max(1, min(TICK_MS, next_ms - now_ms))
            self._look.clear()
            await occasion(self._look, wait_ms / 1000)

    def _look_for_pause(self, now_ms: int) -> None:
        pause_ms = now_ms - self._ticked_ms - TICK_MS
        self._ticked_ms = now_ms
        if pause_ms > PAUSE_MS:
            _log.warning("this process stood still for %d ms; the sessions of groups are prolonged", pause_ms)
            for core in self._cores.values():
                core.on_pause(pause_ms)
                self._touch(core)


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("the members of groups are looked after no more", exc_info=error)
