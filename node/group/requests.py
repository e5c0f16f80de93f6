"""What a member says on its Join stream after its JoinStart, handed to its group's core. Loop thread only."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from penstock.node.group.events import Outputs
from penstock.node.group.joining import Wish, invalid
from penstock.node.group.membership import GroupCore
from penstock.node.group.seat import CommittedOffsets
from penstock.node.group.stream import MemberStream
from penstock.node.group.subscription import check_subscription
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb


class Shell(Protocol):
    """What is needed of members.Members."""

    def serving_core(self, group_id: str) -> GroupCore:
        """Return the core of a group. Raises NOT_SERVING."""
        ...

    async def patiently(self, act: Callable[[], None], session_timeout_ms: int) -> None:
        """Do what names topics, which may be missing for a moment."""
        ...

    def now_ms(self) -> int:
        """The monotonic time."""
        ...

    def perform(self, core: GroupCore, outputs: Outputs) -> None:
        """Do what a core says."""
        ...


class MemberRequests:
    """The reader of one stream."""

    def __init__(self, shell: Shell, stream: MemberStream, offsets: CommittedOffsets) -> None:
        self._shell = shell
        self._stream = stream
        self._offsets = offsets

    async def run(self, requests: AsyncIterator[pb.JoinRequest]) -> None:
        """Read until the member half-closes. Raises the PenstockError that ends the stream."""
        async for request in requests:
            if self._stream.is_ended:
                return
            if not self._stream.has_left:
                await self._take(request)

    async def _take(self, request: pb.JoinRequest) -> None:
        kind = request.WhichOneof("request")
        if kind == "heartbeat":  # the most of them
            self._heartbeat(request.heartbeat)
        elif kind == "commit":
            self._commit(request.commit)
        elif kind == "release":
            core = self._shell.serving_core(self._stream.group_id)
            given_up = [GroupPartition(p.topic_id, p.partition) for p in request.release.partitions]
            core.on_release(self._stream.member_id, request.release.generation, given_up)
            self._shell.perform(core, [])
        elif kind == "subscribe":
            await self._subscribe(request.subscribe)
        elif kind == "leave":
            self._leave(request.leave)
        else:
            raise invalid(f"unexpected request {kind} in a Join stream")

    def _heartbeat(self, heartbeat: pb.MemberHeartbeat) -> None:
        if not self._stream.is_joined:
            return  # there is no session yet
        core = self._shell.serving_core(self._stream.group_id)
        core.on_heartbeat(self._stream.member_id, heartbeat.polls, self._shell.now_ms())
        self._stream.acknowledge(heartbeat.sequence)

    def _commit(self, commit: pb.MemberCommit) -> None:
        self._stream.check_room()
        request = pb.CommitOffsetsRequest(
            group_id=self._stream.group_id,
            member_id=self._stream.member_id,
            generation=commit.generation,
            sequence=commit.sequence,
            offsets=commit.offsets,
        )
        self._stream.commit(commit.sequence, asyncio.ensure_future(self._results(request)))

    def _results(self, request: pb.CommitOffsetsRequest) -> Awaitable[list[pb.OffsetCommitResult]]:
        """Begin a commit. A coordinator that has too many refuses it, and keeps the stream: joining anew costs more."""
        try:
            return self._offsets.commit(request, self._stream.member.client_id)
        except PenstockError as error:
            if error.reason is not Reason.OVERLOADED:
                raise
            refused: asyncio.Future[list[pb.OffsetCommitResult]] = asyncio.get_running_loop().create_future()
            refused.set_result([pb.OffsetCommitResult(error=to_status(error)) for _ in request.offsets])
            return refused

    async def _subscribe(self, subscription: pb.Subscription) -> None:
        subscribed = check_subscription(subscription.topics, subscription.pattern)
        member = replace(self._stream.member, topics=subscribed.topics, pattern=subscribed.pattern)

        def subscribe() -> None:
            if self._stream.is_ended:
                return
            core = self._shell.serving_core(self._stream.group_id)
            core.on_subscribe(Wish(member, generation=0))
            self._stream.member = member
            self._shell.perform(core, [])

        await self._shell.patiently(subscribe, member.session_timeout_ms)

    def _leave(self, leave: pb.LeaveGroup) -> None:
        core = self._shell.serving_core(self._stream.group_id)
        self._stream.has_left = True
        member_id, now_ms = self._stream.member_id, self._shell.now_ms()
        self._shell.perform(core, core.on_leave(member_id, leave.reason, now_ms, returning=leave.returning))
