"""Records go: by trimming and by retention; on every replica, whoever leads, and for good."""

import asyncio
import time
from collections.abc import Callable

import grpc
import pytest

from penstock.client import (
    Admin,
    Consumer,
    LogDescription,
    NewRecord,
    OffsetOutOfRangeError,
    Producer,
    Timestamp,
    TopicPartition,
)
from penstock.client.devcluster import DevCluster
from penstock.protocol.reasons import Reason
from penstock.v1 import producer_service_pb2 as pb
from penstock.v1 import producer_service_pb2_grpc
from tests.cluster.conftest import CALM
from tests.cluster.reading import create_topic, healthy, leaders_of, read_all, until


@pytest.fixture(scope="module")
def cluster(start_cluster: Callable[..., DevCluster]) -> DevCluster:
    """Leaderships move when a node ends, and return soon."""
    return start_cluster(preferred_leader_delay_ms=500, **CALM)


async def fill(producer: Producer, topic: str, batches: int, records: int = 10, value: bytes = b"v") -> None:
    """Append batches of so many records."""
    for _ in range(batches):
        await producer.append(topic, 0, [NewRecord(value) for _ in range(records)])


async def logs_of(admin: Admin, topic: str) -> list[LogDescription]:
    """Partition 0 on the nodes that answer."""
    return [log for one in await admin.list_logs(topics=[topic]) for log in one.logs if log.partition == 0]


async def starts_of(admin: Admin, topic: str) -> list[int]:
    return [log.log_start_offset for log in await logs_of(admin, topic)]


async def offsets(bootstrap: str, topic: str) -> list[int]:
    found = await read_all(bootstrap, topic)
    return [offset for offset, _ in found.get(TopicPartition(topic, 0), [])]


async def refusal_at(bootstrap: str, topic: str, offset: int) -> OffsetOutOfRangeError | None:
    """Of reading from there; None: a record came."""
    async with Consumer(bootstrap, auto_offset_reset="error") as consumer:
        await consumer.assign({TopicPartition(topic, 0): offset})
        try:
            while not await consumer.poll(1, timeout=5.0):
                pass
        except OffsetOutOfRangeError as error:
            return error
    return None


async def test_a_trim_inside_a_batch_is_exact_on_every_replica_and_under_the_next_leader(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await create_topic(admin, "trimmed", 1)
        await fill(producer, "trimmed", 3)
        await healthy(cluster)
        (done,) = await admin.trim_topic("trimmed", 14)
        assert (done.log_start_offset, done.error) == (14, None)
        assert await starts_of(admin, "trimmed") == [14, 14, 14]  # durable on each before it was answered
        assert await offsets(cluster.bootstrap, "trimmed") == list(range(14, 30))
        refused = await refusal_at(cluster.bootstrap, "trimmed", 13)
        assert refused is not None
        assert refused.reason is Reason.OFFSET_BELOW_START
        assert await refusal_at(cluster.bootstrap, "trimmed", 14) is None
        (above,) = await admin.trim_topic("trimmed", 31)
        assert above.error is not None
        assert above.error.reason is Reason.OFFSET_ABOVE_END
        (again,) = await admin.trim_topic("trimmed", 5)
        assert again.log_start_offset == 14

        (leader,) = await leaders_of(admin, "trimmed")
        cluster.kill(leader)
        (found,) = await admin.list_offsets("trimmed", "earliest")
        assert found.offset == 14
        assert await offsets(cluster.bootstrap, "trimmed") == list(range(14, 30))
        assert await refusal_at(cluster.bootstrap, "trimmed", 13) is not None
        (further,) = await admin.trim_topic("trimmed", 17)
        assert (further.log_start_offset, further.error) == (17, None)
        cluster.start([leader])
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)

        async def agree() -> bool:
            return await starts_of(admin, "trimmed") == [17, 17, 17]

        await until(agree)
        (all_,) = await admin.trim_topic("trimmed", "everything")
        assert all_.log_start_offset == 30
        assert await offsets(cluster.bootstrap, "trimmed") == []
        (next_,) = await producer.append("trimmed", 0, [NewRecord(b"next")])
        assert next_.offset == 30
        assert await offsets(cluster.bootstrap, "trimmed") == [30]


async def test_trimming_while_its_leader_is_killed(cluster: DevCluster) -> None:
    """The call outlives the leader: what it answers is true of the next one."""
    async with Admin(cluster.bootstrap, timeout_ms=60_000) as admin, Producer(cluster.bootstrap) as producer:
        await create_topic(admin, "interrupted", 1)
        await fill(producer, "interrupted", 20)
        for start in range(1, 200, 66):
            await healthy(cluster)
            (leader,) = await leaders_of(admin, "interrupted")
            call = asyncio.create_task(admin.trim_topic("interrupted", start))
            await asyncio.to_thread(cluster.kill, leader)
            (done,) = await call
            assert (done.log_start_offset, done.error) == (start, None)
            assert await offsets(cluster.bootstrap, "interrupted") == list(range(start, 200))
            cluster.start([leader])
            await asyncio.to_thread(cluster.wait_serving)


async def test_a_trim_by_time_is_exact_to_the_record(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await create_topic(admin, "timed", 1)
        for stamps in ((1000, 1005, 1003, 1010), (1020, 1021)):
            await producer.append("timed", 0, [NewRecord(b"v", timestamp_ms=stamp) for stamp in stamps])

        async def at(stamp: int) -> tuple[int, int | None]:
            (found,) = await admin.list_offsets("timed", Timestamp(stamp))
            return found.offset, found.timestamp_ms

        assert [await at(stamp) for stamp in (1000, 1004, 1006, 1011, 1022)] == [
            (0, 1000),
            (1, 1005),
            (3, 1010),
            (4, 1020),
            (6, None),
        ]
        (done,) = await admin.trim_topic("timed", Timestamp(1006))
        assert done.log_start_offset == 3
        assert await offsets(cluster.bootstrap, "timed") == [3, 4, 5]
        assert await at(0) == (3, 1010)
        (done,) = await admin.trim_topic("timed", Timestamp(5000))
        assert done.log_start_offset == 6
        assert await at(0) == (6, None)


async def test_append_time_is_what_consumers_and_lookups_see(cluster: DevCluster) -> None:
    began_ms = time.time_ns() // 1_000_000
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await admin.create_topic("stamped", 1, config={"timestamp_type": "append"})
        times: list[int] = []
        async with Consumer(cluster.bootstrap) as consumer:
            await consumer.assign({TopicPartition("stamped", 0): 0})
            while len(set(times)) < 2:  # batches of different times
                await producer.append("stamped", 0, [NewRecord(b"v", timestamp_ms=77)] * 3)
                goal = len(times) + 3
                while len(times) < goal:
                    times += [record.timestamp_ms for record in await consumer.poll(timeout=5.0)]
        first, last = times[0], times[-1]
        assert began_ms - 60_000 <= first < last <= time.time_ns() // 1_000_000 + 60_000
        assert times == sorted(times)
        end = (await admin.list_offsets("stamped"))[0].offset
        for stamp, expected in (
            (78, (0, first)),
            (first, (0, first)),
            (first + 1, (times.index(last), last)),
            (last, (times.index(last), last)),
            (last + 1, (end, None)),
        ):
            (found,) = await admin.list_offsets("stamped", Timestamp(stamp))
            assert (found.offset, found.timestamp_ms) == expected, stamp


async def test_retention_changes_on_a_live_topic_and_followers_follow(cluster: DevCluster) -> None:
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await create_topic(admin, "kept", 1)
        await fill(producer, "kept", 20, 1, b"v" * 50_000)
        assert await starts_of(admin, "kept") == [0, 0, 0]
        await admin.alter_topic("kept", {"retention_bytes": 120_000})

        async def by_size() -> bool:
            # The oldest go while those behind them hold as much: three of 50 kB stay.
            return [(log.log_start_offset, log.record_count) for log in await logs_of(admin, "kept")] == [(17, 3)] * 3

        await until(by_size)
        assert await offsets(cluster.bootstrap, "kept") == [17, 18, 19]
        await fill(producer, "kept", 5, 1, b"v" * 50_000)

        async def goes_on() -> bool:
            return await starts_of(admin, "kept") == [22, 22, 22]

        await until(goes_on)
        await admin.alter_topic("kept", {"retention_ms": 3_600_000}, reset=["retention_bytes"])
        old = time.time_ns() // 1_000_000 - 7_200_000
        await producer.append("kept", 0, [NewRecord(b"new")])
        await admin.trim_topic("kept", 25)
        await producer.append("kept", 0, [NewRecord(b"old", timestamp_ms=old)])
        (kept,) = await admin.list_offsets("kept", "earliest")
        assert kept.offset == 25  # an old batch behind a new one has to wait
        await admin.alter_topic("kept", {"retention_ms": 1})

        async def by_time() -> bool:
            return [(log.log_start_offset, log.record_count) for log in await logs_of(admin, "kept")] == [(27, 0)] * 3

        await until(by_time)
        await admin.alter_topic("kept", reset=["retention_ms"])
        (next_,) = await producer.append("kept", 0, [NewRecord(b"next")])
        assert next_.offset == 27
        assert await offsets(cluster.bootstrap, "kept") == [27]


async def publish(bootstrap: str, topic: str, request_id: str) -> int:
    """Once: the call may be repeated as it is."""
    request = pb.PublishRequest(topic=topic, partition=0, request_id=request_id)
    request.records.add(value=b"v")
    async with grpc.aio.insecure_channel(bootstrap.split(",", maxsplit=1)[0]) as channel:
        stub = producer_service_pb2_grpc.ProducerServiceStub(channel)
        response: pb.PublishResponse = await stub.Publish(request, timeout=60)
    return response.records[0].offset


@pytest.mark.parametrize("loses_disk", [True, False])
async def test_a_replica_that_comes_late_begins_at_the_trimmed_log_and_knows_its_producers(
    cluster: DevCluster, *, loses_disk: bool
) -> None:
    topic = f"late-{loses_disk}".lower()
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await healthy(cluster)
        await admin.create_topic(topic, assignments=[[3, 1, 2]])
        futures = [await producer.send(topic, b"%d" % number) for number in range(50)]
        await asyncio.gather(*futures)
        if loses_disk:
            await asyncio.to_thread(cluster.replace_disk, 3)
        else:
            await asyncio.to_thread(cluster.kill, 3)
        first = await publish(cluster.bootstrap, topic, "once")
        (delivery,) = await asyncio.gather(await producer.send(topic, b"50"))
        assert (first, delivery.offset) == (50, 51)
        (done,) = await admin.trim_topic(topic, "everything")
        assert (done.log_start_offset, done.error) == (52, None)
        cluster.start([3])
        await asyncio.to_thread(cluster.wait_serving)
        await healthy(cluster)

        async def leads_and_agrees() -> bool:
            return await leaders_of(admin, topic) == [3] and await starts_of(admin, topic) == [52, 52, 52]

        await until(leads_and_agrees)
        assert await publish(cluster.bootstrap, topic, "once") == first
        (delivery,) = await asyncio.gather(await producer.send(topic, b"51"))
        assert delivery.offset == 52
        assert await offsets(cluster.bootstrap, topic) == [52]
