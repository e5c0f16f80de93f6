"""What holds a membership together, without a coordinator: the test says what that would."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from penstock.client.connection import parse_bootstrap
from penstock.client.errors import make_error
from penstock.client.fetcher import Fetcher
from penstock.client.group.options import GroupConfig
from penstock.client.group.reader import GroupReader
from penstock.client.group.watchdog import Beat
from penstock.client.options import ConsumerConfig
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.reasons import Reason
from tests.client.group.talk import joined
from tests.client.reference_server import Cluster


class Told:
    """A watchdog that notes what it is told."""

    def __init__(self, *_: object) -> None:
        self.acknowledged_ms = 0
        self.beats: list[Beat] = []

    def alive(self, beat: Beat) -> None:
        self.beats.append(beat)

    def close(self) -> None: ...


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
