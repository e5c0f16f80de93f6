"""One member's Join stream: what waits to be sent. Bounded: of acknowledgements and assignments the last one waits.

What a member is told is read when it is written, so it is never older than what was there to be told.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from penstock.node.group.events import Joined
from penstock.node.group.joining import heartbeat_interval_ms
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import MemberInfo
from penstock.v1 import group_service_pb2 as pb

MAX_COMMITS = 256
"""Commits of one stream that are not answered yet."""

Send = Callable[[bytes], Awaitable[None]]
"""Sends one serialized JoinResponse."""


class MemberStream:
    """Fed by the group's outputs; `write` sends. Loop thread only."""

    def __init__(self, number: int, group_id: str, member: MemberInfo) -> None:
        self.number = number
        self.group_id = group_id
        self.member = member
        """As it has said what it wants to be."""
        self.member_id = member.member_id
        self.has_left = False
        self._joined: Joined | None = None
        self._is_joined = False
        self._acknowledged: int | None = None
        self._must_assign = False
        self._commits: deque[tuple[int, asyncio.Future[list[pb.OffsetCommitResult]]]] = deque()
        self._ended = False
        self._error: PenstockError | None = None
        self._changed = asyncio.Event()

    @property
    def is_ended(self) -> bool:
        """Nothing that comes on it counts any more."""
        return self._ended

    @property
    def is_joined(self) -> bool:
        """Its member is in the group."""
        return self._is_joined

    def joined(self, joined: Joined) -> None:
        """Answer the JoinStart."""
        self._joined, self._is_joined = joined, True
        self._changed.set()

    def assign(self) -> None:
        """Send the assignment as it will be then."""
        self._must_assign = True
        self._changed.set()

    def acknowledge(self, sequence: int) -> None:
        """Answer a heartbeat; it answers the earlier ones too."""
        self._acknowledged = sequence
        self._changed.set()

    def check_room(self) -> None:
        """Raise OVERLOADED where too many commits wait: before one more is begun."""
        if len(self._commits) >= MAX_COMMITS:
            raise PenstockError(Reason.OVERLOADED, f"more than {MAX_COMMITS} commits of one stream wait")

    def commit(self, sequence: int, results: "asyncio.Future[list[pb.OffsetCommitResult]]") -> None:
        """Send what becomes of a commit, after the earlier ones' results."""
        self._commits.append((sequence, results))
        results.add_done_callback(lambda _: self._changed.set())

    def end(self, error: PenstockError | None) -> None:
        """Send what there is, then end. Without an error also what becomes of the commits."""
        if not self._ended:
            self._ended, self._error = True, error
            self._changed.set()

    async def write(self, send: Send, assignment: Callable[[], bytes | None]) -> None:
        """Send until the end, which raises its error. `assignment`: encoded as it is now; None: nothing to tell."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write_due(send, assignment)
            if not self._ended or self._changed.is_set():
                continue
            if self._error is not None:
                raise self._error
            if not self._commits:  # each is answered, be it when its time is over
                return

    async def _write_due(self, send: Send, assignment: Callable[[], bytes | None]) -> None:
        if self._joined is not None:
            joined, self._joined = self._joined, None
            await send(_joined_response(joined))
        if self._acknowledged is not None:
            sequence, self._acknowledged = self._acknowledged, None
            await send(pb.JoinResponse(heartbeat_ack=pb.HeartbeatAck(sequence=sequence)).SerializeToString())
        if self._must_assign:
            self._must_assign = False
            encoded = assignment()
            if encoded is not None:
                await send(encoded)
        while self._commits and self._commits[0][1].done():
            sequence, results = self._commits.popleft()
            if not results.cancelled():
                result = pb.MemberCommitResult(sequence=sequence, results=results.result())
                await send(pb.JoinResponse(commit_result=result).SerializeToString())


def _joined_response(joined: Joined) -> bytes:
    member = joined.member
    message = pb.MemberJoined(member_id=member.member_id, generation=joined.generation)
    message.session_timeout.FromMilliseconds(member.session_timeout_ms)
    message.rebalance_timeout.FromMilliseconds(member.rebalance_timeout_ms)
    message.heartbeat_interval.FromMilliseconds(heartbeat_interval_ms(member.session_timeout_ms))
    return pb.JoinResponse(joined=message).SerializeToString()
