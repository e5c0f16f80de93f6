"""Rule 29's two credits: what is caught up and what is behind cannot starve each other."""

import asyncio
from types import SimpleNamespace
from typing import Any

from penstock.node.replication.events import SessionKey
from penstock.node.replication.source import FollowerStream, Slot
from penstock.node.replication.tail import Tail, TailBudget
from penstock.protocol.batch import NewRecord, build, header_of
from penstock.storage import LogBatch, PartitionKey


def batch(offset: int) -> LogBatch:
    message = build([NewRecord(None, b"x" * 100, 1)])
    return LogBatch(offset, offset, 1, 0, header_of(message), message.SerializeToString())


class FakeHost:
    node_id = 1
    cluster_id = "c"

    def __init__(self) -> None:
        self.reads = 0

    def replica(self, key: PartitionKey) -> None:
        return None

    def follower_lost(self, node_id: int) -> None:
        pass

    def follower_back(self, node_id: int) -> None:
        pass

    async def read_cold(self, log: Any, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        self.reads += 1
        return [batch(offset) for offset in range(start, end)]


class FakeLeader:
    """Ten batches; how far each follower was sent."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset

    def next_push(self, follower: int, session: SessionKey) -> int:
        return self.next_offset

    def on_pushed(self, follower: int, session: SessionKey, end_offset: int) -> None:
        self.next_offset = end_offset


def slot_of(stream: FollowerStream, number: int, *, cold: bool) -> tuple[Slot, FakeLeader]:
    tail = Tail(TailBudget(1 << 20), 5)
    for offset in range(5, 10):
        tail.add(batch(offset))
    leader = FakeLeader(0 if cold else 5)
    bounds = SimpleNamespace(log_end_offset=10, high_watermark=0, log_start_offset=0)
    log = SimpleNamespace(state=SimpleNamespace(log_end_offset=5))
    replica: Any = SimpleNamespace(
        core=SimpleNamespace(leader=leader, log=bounds, passed_offset=0),
        tail=tail,
        log=log,
        key=PartitionKey(bytes(16), number),
    )
    slot = stream._slots[number] = Slot(stream, replica, SessionKey(1, 1, number))
    return slot, leader


async def settle(stream: FollowerStream) -> None:
    """Make messages until nothing more can be sent."""
    for _ in range(10):
        stream._message()
        await asyncio.sleep(0)
        await asyncio.gather(*stream._reads)


async def test_rule_29_without_cold_credit_the_caught_up_partition_goes_on() -> None:
    host = FakeHost()
    stream = FollowerStream(host, None)
    (behind, cold), (tailing, hot) = slot_of(stream, 1, cold=True), slot_of(stream, 2, cold=False)
    stream._credit = {False: 1_000_000, True: 0}
    behind.wake()
    tailing.wake()
    await settle(stream)
    assert (cold.next_offset, hot.next_offset, host.reads) == (0, 10, 0)
    stream._credit[True] = 1_000_000
    await settle(stream)
    assert cold.next_offset == 10


async def test_rule_29_without_hot_credit_the_partition_behind_goes_on_until_it_has_caught_up() -> None:
    host = FakeHost()
    stream = FollowerStream(host, None)
    (behind, cold), (tailing, hot) = slot_of(stream, 1, cold=True), slot_of(stream, 2, cold=False)
    stream._credit = {False: 0, True: 1_000_000}
    behind.wake()
    tailing.wake()
    await settle(stream)
    assert (cold.next_offset, hot.next_offset) == (5, 5)
    stream._credit[False] = 1
    await settle(stream)
    assert cold.next_offset + hot.next_offset == 11  # the last batch may overdraw
