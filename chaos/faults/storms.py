"""Rebalance storms: members that join a group and leave it again, many each second, past all proxies.

Each is one Join stream, without a consumer behind it: it reads nothing, gives up at once what it is asked for, and
leaves. So it costs the runner little, and what it is granted for a moment is read by nobody meanwhile.
"""

import asyncio
import itertools
import random
from collections.abc import Mapping
from typing import Any

import grpc

from penstock.chaos.faults.base import Group, Hit
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc

SESSION_TIMEOUT_S = 5
MOST_AT_ONCE = 40
"""Members; a storm that gets no answers does not pile up more."""
CALL_TIMEOUT_S = 20.0
"""Of one member's stream."""
FIND_TIMEOUT_S = 2.0
_CHANNEL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]


class Storm:
    """See the module."""

    def __init__(self, addresses: Mapping[int, str], group: Group, rng: random.Random) -> None:
        self._channels = {node: grpc.aio.insecure_channel(at, _CHANNEL) for node, at in addresses.items()}
        self._group = group
        self._rng = rng
        self._members: set[asyncio.Task[None]] = set()
        self._coordinator = next(iter(addresses))
        self._joined = 0
        self._left = 0
        self._generations: list[int] = []
        """The lowest and the highest that was heard of."""

    async def rage(self, hertz: float, stays_s: tuple[float, float]) -> None:
        """Let members join, until cancelled."""
        for number in itertools.count(1):
            if len(self._members) < MOST_AT_ONCE:
                member = asyncio.create_task(self._member(number, self._rng.uniform(*stays_s)))
                self._members.add(member)
                member.add_done_callback(self._members.discard)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) / hertz)

    async def close(self) -> None:
        """Let who is there leave, and end everything."""
        if self._members:
            await asyncio.wait(self._members, timeout=SESSION_TIMEOUT_S)
        for member in self._members:
            member.cancel()
        await asyncio.gather(*self._members, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    def hit(self) -> Hit:
        """Say what it did."""
        rise = self._generations[-1] - self._generations[0] if self._generations else 0
        return Hit(rise > 0, f"{self._joined} joined, {self._left} left; the generation rose by {rise}")

    async def _member(self, number: int, stays_s: float) -> None:
        try:
            await self._live(number, stays_s)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the latter: it ended before something was said
            await self._find()

    async def _live(self, number: int, stays_s: float) -> None:
        """One member, from joining to the end of its stream."""
        stub: Any = group_service_pb2_grpc.GroupServiceStub(self._channels[self._coordinator])
        call, now = stub.Join(timeout=CALL_TIMEOUT_S), asyncio.get_running_loop().time
        await call.write(pb.JoinRequest(start=self._start(number)))
        leaves_s: float | None = None
        has_left = False
        reading = asyncio.ensure_future(call.read())  # never cancelled by itself: that would end the call
        try:
            while True:
                await asyncio.wait({reading}, timeout=None if leaves_s is None else max(0.0, leaves_s - now()))
                if not reading.done():
                    leaves_s, has_left = None, True
                    await self._leave(call)
                    continue
                response = reading.result()
                if response is grpc.aio.EOF:
                    return
                if response.WhichOneof("response") == "joined":
                    leaves_s = now() + stays_s
                if not has_left:
                    await self._obey(call, response)
                reading = asyncio.ensure_future(call.read())
        finally:
            call.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _obey(self, call: Any, response: pb.JoinResponse) -> None:
        kind = response.WhichOneof("response")
        if kind == "joined":
            self._joined += 1
            self._heard(response.joined.generation)
        elif kind == "assignment":
            self._heard(response.assignment.generation)
            if response.assignment.revoked:
                await call.write(_release(response.assignment))

    async def _leave(self, call: Any) -> None:
        await call.write(pb.JoinRequest(leave=pb.LeaveGroup(reason="the storm passes")))
        await call.done_writing()
        self._left += 1

    def _start(self, number: int) -> pb.JoinStart:
        start = pb.JoinStart(
            group_id=self._group.name,
            member_id=f"storm-{number}-{self._rng.randrange(1 << 60):x}",
            client_id="chaos-storm",
            subscription=pb.Subscription(topics=self._group.topics),
        )
        start.session_timeout.FromSeconds(SESSION_TIMEOUT_S)
        start.rebalance_timeout.FromSeconds(SESSION_TIMEOUT_S)
        return start

    def _heard(self, generation: int) -> None:
        known = [*self._generations, generation]
        self._generations = [min(known), max(known)]

    async def _find(self) -> None:
        """Ask who coordinates now, of anybody who answers."""
        for channel in self._channels.values():
            stub: Any = group_service_pb2_grpc.GroupServiceStub(channel)
            try:
                request = pb.FindCoordinatorRequest(group_id=self._group.name)
                answer = await stub.FindCoordinator(request, timeout=FIND_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                continue
            if answer.node_id in self._channels:
                self._coordinator = answer.node_id
                return


def _release(assignment: pb.Assignment) -> pb.JoinRequest:
    release = pb.ReleasePartitions(generation=assignment.generation, partitions=assignment.revoked)
    return pb.JoinRequest(release=release)
