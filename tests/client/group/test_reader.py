"""What holds a membership together, without a coordinator: the test says what that would."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from penstock.client.connection import parse_bootstrap
from penstock.client.errors import BufferFullError, InvalidRequestError, make_error
from penstock.client.fetcher import Fetcher
from penstock.client.group.options import GroupConfig
from penstock.client.group.reader import GroupReader
from penstock.client.group.watchdog import Beat
from penstock.client.options import ConsumerConfig
from penstock.client.records import CommitPoint
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb
from tests.client.conftest import until
from tests.client.group.talk import joined, partition
from tests.client.reference_server import Cluster


class Told:
    """A watchdog that notes what it is told."""

    def __init__(self, *_: object) -> None:
        self.acknowledged_ms = 0
        self.beats: list[Beat] = []

    def alive(self, beat: Beat) -> None:
        self.beats.append(beat)

    def close(self) -> None: ...


class Silent:
    """A Join stream to a coordinator that takes everything and says nothing."""

    def __init__(self) -> None:
        self.written: list[str | None] = []

    async def write(self, request: pb.JoinRequest) -> None:
        self.written.append(request.WhichOneof("request"))

    async def done_writing(self) -> None: ...

    def cancel(self) -> None: ...

    def __aiter__(self) -> "Silent":
        return self

    async def __anext__(self) -> pb.JoinResponse:
        never: asyncio.Future[pb.JoinResponse] = asyncio.get_running_loop().create_future()
        return await never


@pytest.fixture
async def reader(cluster: Cluster) -> AsyncIterator[GroupReader]:
    seams = replace(Seams(), watchdog=Told)  # type: ignore[arg-type]  # what is asked of one
    session = ClientSession(parse_bootstrap(cluster.bootstrap()), None, seams)
    client = ConsumerConfig()
    fetcher = Fetcher(client, session, deletions_are_normal=True)
    yield GroupReader(GroupConfig(group="g", topics="orders"), client, seams, session, fetcher)
    await fetcher.close()
    await session.close()


async def test_the_threads_heartbeats_go_where_the_stream_leads_whatever_other_calls_came_to(
    reader: GroupReader,
) -> None:
    """A commit that fails has the coordinator looked for again, and a handler may block the loop meanwhile."""
    core, stream, coordinator = reader._core, reader._stream, reader._coordinator
    stream.address = "node-1:9000"
    coordinator.known = stream.address
    core.open(reader.now_ms())
    core.received(joined(), reader.now_ms())
    coordinator.failed("node-1:9000", make_error(Reason.NOT_ENOUGH_REPLICAS, "of __offsets"))
    ticking = asyncio.create_task(reader._tick())
    await asyncio.sleep(0)
    ticking.cancel()
    watchdog: Any = reader._watchdog
    assert [beat.address for beat in watchdog.beats] == ["node-1:9000"]


async def test_who_asks_again_at_once_does_not_wait_for_ever_on_the_stream_on_which_it_has_left(
    reader: GroupReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.group.stream.END_TIMEOUT_S", 0.01)
    core, call = reader._core, Silent()
    serving = asyncio.create_task(reader._stream._serve(call))
    await until(lambda: call.written == ["start"])
    core.received(joined(), reader.now_ms())
    core.asked(reader.now_ms() + core.config.max_poll_interval_ms)  # the application has blocked the loop for so long
    assert core.wants_stream
    reader._stream.poke()
    await serving
    assert call.written == ["start", "leave"]


async def test_who_was_fenced_is_told_whenever_it_asks(reader: GroupReader) -> None:
    core, errors = reader._core, reader._fetcher.errors
    core.open(reader.now_ms())
    core.ended(make_error(Reason.INSTANCE_FENCED, "another process has joined"), reader.now_ms())
    reader.changed()
    for _ in range(2):
        reader.ask()
        assert [error.reason for error in errors] == [Reason.INSTANCE_FENCED]
        errors.clear()


@pytest.mark.parametrize("at", [-1, 1 << 63, None, 1.5, "7", CommitPoint(1, 1 << 31), CommitPoint(1, None, "\ud800")])
async def test_what_no_commit_can_carry_is_refused_at_once(reader: GroupReader, at: Any) -> None:
    """In the task that commits it would end the membership."""
    with pytest.raises(InvalidRequestError):
        await reader.commit({partition(0): at})
    with pytest.raises(InvalidRequestError):
        reader.commit_soon({partition(0): at}, None)


async def test_a_commit_that_finds_no_room_changes_nothing_and_those_of_a_rebalance_find_some(
    reader: GroupReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.client.group.commit_queue.MAX_WAITING", 1)
    positions, place = reader.positions, partition(0)
    positions.add(place, 0)
    positions.hand_out(place, 7, 1)
    reader.commit_soon(None, None)
    positions.hand_out(place, 9, 1)
    positions.ask()
    with pytest.raises(BufferFullError):
        reader.commit_soon(None, None)
    assert positions.asked_past() == {place: CommitPoint(9, 1)}
    releasing = asyncio.create_task(reader._commits.commit(positions.asked_past()))
    await asyncio.sleep(0)
    assert not releasing.done()
    releasing.cancel()


async def test_where_the_log_was_cut_what_is_committed_goes_back_too(reader: GroupReader, cluster: Cluster) -> None:
    """Else whoever has the partition next would skip what was written there since."""
    cluster.create("orders")
    await reader._session.metadata.topic("orders", 30_000)
    fetcher, orders = reader._fetcher, partition(0)
    fetcher._config = replace(fetcher._config, on_divergence="continue")
    cursor = fetcher.add(orders, 100)
    reader.positions.add(orders, 100)
    fetcher._diverged(cursor, PenstockError(Reason.DIVERGED, "it was cut", {"end_offset": "40"}))
    assert cursor.position == 40
    assert reader.positions.asked_past() == {orders: CommitPoint(40)}
