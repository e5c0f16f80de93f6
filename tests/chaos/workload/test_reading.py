"""What stands in a history of polls: positions that tile, and errors that prove something."""

from pathlib import Path

import pytest

from penstock.chaos.history import Recorder, entries, payload
from penstock.chaos.workload import Access, WorkloadOptions
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.reading import Reading
from penstock.client import Consumer, LogDamagedError, PenstockError, Producer, TopicPartition
from penstock.client.admin import Admin
from penstock.client.devcluster import DevCluster
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason


def process_of(recorder: Recorder, address: str) -> Process:
    return Process(Common(recorder, WorkloadOptions(), 1), "c1", "read", 1, Access(address))


async def test_polls_tile_the_log_over_seeks_and_new_consumers(cluster: DevCluster, tmp_path: Path) -> None:
    partition = TopicPartition("tiles", 0)
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await admin.create_topic(partition.topic, 1, 3)
        for value in range(50):
            await producer.send(partition.topic, payload(value, 20), partition=0)
        await producer.flush()
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        process = process_of(recorder, cluster.bootstrap)
        reading = Reading(process, "read_committed")
        reading.begin({partition: 0})
        for goal in (20, 50):
            async with reading.consumer(process.access) as consumer:
                await reading.resume(consumer)
                while reading.positions[partition] < goal:
                    await reading.poll(consumer, 7, 1.0)
                if goal == 50:
                    await consumer.seek(partition, 40)
                    reading.begin({partition: 40})
                    while reading.positions[partition] < 50:
                        await reading.poll(consumer, 100, 1.0)
    at = None
    offsets = []
    for entry in entries(path):
        if entry["f"] == "assign":
            at = entry["position"]
            continue
        (read,) = entry["reads"]
        assert (entry["isolation"], read["topic"], read["partition"]) == ("read_committed", "tiles", 0)
        assert read["from"] == at
        assert entry["began"] <= entry["time"]
        at = read["to"]
        assert [offset for offset, _, _ in read["records"]] == list(range(read["from"], read["to"]))
        assert all(value == offset and epoch >= 0 for offset, value, epoch in read["records"])
        offsets += [offset for offset, _, _ in read["records"]]
    assert offsets == [*range(50), *range(40, 50)]


@pytest.mark.parametrize(
    ("reason", "is_noted"),
    [
        (Reason.DIVERGED, True),
        (Reason.OFFSET_BELOW_START, True),
        (Reason.OFFSET_ABOVE_END, False),
        (Reason.NOT_SERVING, False),
        (Reason.INTERNAL, False),
    ],
)
async def test_errors_that_say_that_the_log_lost_something_are_noted(
    reason: Reason, is_noted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = make_error(reason, "why")
    assert await _noted(error, tmp_path, monkeypatch) == ([(type(error).__name__, "poll", "fail")] if is_noted else [])


async def test_damage_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = LogDamagedError(Reason.CORRUPT_BATCH, "the CRC does not match")
    assert await _noted(error, tmp_path, monkeypatch) == [("LogDamagedError", "poll", "fail")]


async def _noted(error: PenstockError, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Let a poll fail, for a sound cluster causes no such errors; what is noted of it."""

    async def poll(*_: object) -> None:
        raise error

    monkeypatch.setattr(Consumer, "poll", poll)
    path = folder / "history.jsonl"
    with Recorder(path) as recorder:
        reading = Reading(process_of(recorder, "127.0.0.1:1"), "read_committed")
        with pytest.raises(type(error)):
            await reading.poll(reading.consumer(Access("127.0.0.1:1")), 10, 1.0)
    return [(entry["error"], entry["f"], entry["type"]) for entry in entries(path)]
