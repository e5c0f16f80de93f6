"""The shell of a coordinator's members on a stand: streams, time and metadata are in the test's hands."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from penstock.internal.v1 import metadata_pb2
from penstock.node.group.joining import GroupLimits
from penstock.node.group.members import Members
from penstock.node.group.seat import Seat
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition
from penstock.v1 import group_service_pb2 as pb
from tests.node.group.metadata import GROUP, alter, leadership
from tests.raft.metadata_world import World

COMMITTED = pb.CommittedOffset(offset=7, metadata="here")


class Offsets:
    """Commits are answered when the test says so."""

    def __init__(self) -> None:
        self.commits: list[tuple[pb.CommitOffsetsRequest, asyncio.Future[list[pb.OffsetCommitResult]]]] = []
        self.generations: list[int] = []
        self.error: PenstockError | None = None

    def committed(self, group_id: str, partition: GroupPartition) -> pb.CommittedOffset | None:
        return COMMITTED if partition.partition == 0 else None

    def commit(self, request: pb.CommitOffsetsRequest, client_id: str) -> "asyncio.Future[list[pb.OffsetCommitResult]]":
        if self.error is not None:
            raise self.error
        answer: asyncio.Future[list[pb.OffsetCommitResult]] = asyncio.get_running_loop().create_future()
        self.commits.append((request, answer))
        return answer

    def rebalanced(self, group: GroupInfo) -> None:
        self.generations.append(group.generation)


class Stream:
    """A member's side of one Join stream."""

    def __init__(self, members: Members) -> None:
        self.sent: asyncio.Queue[pb.JoinRequest | None] = asyncio.Queue()
        self.received: asyncio.Queue[pb.JoinResponse] = asyncio.Queue()
        self.room = asyncio.Event()
        """Until it is cleared whatever is sent is taken at once."""
        self.room.set()
        self.task = asyncio.create_task(members.join(self._requests(), self._take, "ipv4:127.0.0.1"))

    async def _requests(self) -> AsyncIterator[pb.JoinRequest]:
        while (request := await self.sent.get()) is not None:
            yield request

    async def _take(self, data: bytes) -> None:
        await self.room.wait()
        self.received.put_nowait(pb.JoinResponse.FromString(data))

    def send(self, **request: object) -> None:
        self.sent.put_nowait(pb.JoinRequest(**request))  # type: ignore[arg-type]

    def start(self, member_id: str, *topics: str, **fields: object) -> None:
        subscription = pb.Subscription(topics=topics or ("t",))
        start = pb.JoinStart(group_id=GROUP, member_id=member_id, subscription=subscription, **fields)  # type: ignore[arg-type]
        self.send(start=start)

    async def next(self, kind: str) -> pb.JoinResponse:
        """The next response, which is of this kind."""
        response = await self.received.get()
        assert response.WhichOneof("response") == kind
        return response

    async def assignment(self) -> pb.Assignment:
        return (await self.next("assignment")).assignment

    async def error(self) -> PenstockError:
        with pytest.raises(PenstockError) as caught:
            await self.task
        return caught.value


class Stand:
    """Members on a seat; what they propose is applied as soon as `gate` is open."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now_ms = 1_000
        self.is_serving = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests: list[int] = []
        """Numbers of changes."""
        self.proposed: list[metadata_pb2.GroupChange] = []
        self.failures: list[BaseException] = []
        self.offsets = Offsets()
        node_id, leader_epoch = leadership(world)
        seat = Seat(
            node_id,
            0,
            leader_epoch,
            lambda: self.world.image,
            self._propose,
            lambda: self.is_serving,
            lambda: self.now_ms,
        )
        self.members = Members(seat, self.offsets, GroupLimits())
        self._streams: list[Stream] = []

    async def _propose(self, changes: Sequence[metadata_pb2.GroupChange]) -> list[metadata_pb2.ChangeResult]:
        self.requests.append(len(changes))
        self.proposed += changes
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        return self.do(lambda: alter(self.world, changes))

    def do(self, change: Callable[[], list[metadata_pb2.ChangeResult] | None]) -> list[metadata_pb2.ChangeResult]:
        """Change the metadata and show them."""
        old = self.world.image
        results = change()
        self.members.on_image(old, self.world.image)
        return results or []

    def stream(self) -> Stream:
        stream = Stream(self.members)
        self._streams.append(stream)
        return stream

    async def joined(self, member_id: str, **fields: object) -> Stream:
        """A member that has joined, and was told so; its assignments follow."""
        stream = self.stream()
        stream.start(member_id, **fields)
        await stream.next("joined")
        return stream

    async def pass_time(self, time_ms: int) -> None:
        """Let the time task see a later time."""
        self.now_ms += time_ms
        self.members._ticked_ms += time_ms  # the event loop did not stand still
        self.members._look.set()
        await turns()

    async def close(self) -> None:
        self.members.close(PenstockError(Reason.NOT_COORDINATOR, "over"))
        for stream in self._streams:
            stream.task.cancel()
        await asyncio.gather(*(stream.task for stream in self._streams), *self.members._tasks, return_exceptions=True)


async def turns() -> None:
    """Let the loop do what it has to do now."""
    for _ in range(10):
        await asyncio.sleep(0)
