"""The final reading is whole, or says what is missing."""

import re
from pathlib import Path

import pytest

from penstock.chaos.history import Recorder, entries
from penstock.chaos.workload import FinalReadError, WorkloadOptions
from penstock.chaos.workload import final as finals
from penstock.chaos.workload.final import FinalReading
from penstock.chaos.workload.process import Common
from penstock.client import Admin, NewRecord, Producer, TopicPartition
from penstock.client.devcluster import DevCluster
from penstock.client.ports import free_ports


async def written(cluster: DevCluster, common: Common, topic: str, count: int) -> TopicPartition:
    """Write the values 0 to count - 1."""
    partition = TopicPartition(topic, 1)
    async with Admin(cluster.bootstrap) as admin, Producer(cluster.bootstrap) as producer:
        await admin.create_topic(topic, 2, 3)
        common.wrote(partition)
        done = await producer.append(topic, 1, [NewRecord(b"%d" % value) for value in range(count)])
    common.acknowledged(partition, done[-1].offset)
    return partition


async def test_every_partition_is_read_in_both_isolations_to_the_end(cluster: DevCluster, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        common = Common(recorder, WorkloadOptions(), 1)
        await written(cluster, common, "whole", 30)
        await FinalReading(common, cluster.bootstrap).run(60)
    history = list(entries(path))
    for isolation in ("read_uncommitted", "read_committed"):
        polls = [entry for entry in history if entry["f"] == "poll" and entry["isolation"] == isolation]
        assert all(entry["final"] for entry in polls)
        rows = [row for entry in polls for read in entry["reads"] for row in read["records"]]
        assert [(offset, value) for offset, value, _ in rows] == [(number, number) for number in range(30)]
    ends = {(entry["partition"], entry["offset"]) for entry in history if entry["f"] == "end_of_log"}
    assert ends == {(0, 0), (1, 30)}  # the empty one too


async def test_an_end_below_what_is_acknowledged_is_taken_at_last(
    cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finals, "SHORT_PATIENCE_S", 0.0)
    path = tmp_path / "history.jsonl"
    with Recorder(path) as recorder:
        common = Common(recorder, WorkloadOptions(), 1)
        partition = await written(cluster, common, "short", 5)
        common.acknowledged(partition, 99)  # as if the cluster had lost it
        await FinalReading(common, cluster.bootstrap).run(60)
    history = list(entries(path))
    asked = [entry for entry in history if entry["f"] == "end_offset" and entry["partition"] == 1]
    assert len(asked) > 1
    assert [e["offset"] for e in history if e["f"] == "end_of_log" and e["partition"] == 1] == [5]


async def test_where_nobody_answers_it_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Recorder(tmp_path / "history.jsonl") as recorder:
        common = Common(recorder, WorkloadOptions(), 1)
        common.wrote(TopicPartition("orders", 0))
        with pytest.raises(FinalReadError, match=r"not complete after 1 s: the ends of orders are not known"):
            await FinalReading(common, f"127.0.0.1:{port}").run(1.0)
    assert not [entry for entry in entries(tmp_path / "history.jsonl") if entry["f"] == "end_of_log"]


async def test_what_is_not_there_is_named(cluster: DevCluster, tmp_path: Path) -> None:
    with Recorder(tmp_path / "history.jsonl") as recorder:
        common = Common(recorder, WorkloadOptions(), 1)
        partition = await written(cluster, common, "named", 5)
        reading = FinalReading(common, cluster.bootstrap)
        for reader in reading._readers:
            reader.reading.begin({partition: 3})
        why = reading._why({partition: 5}, 60)
    assert re.search(r"after 60 s: read_uncommitted: named-1 3 of 5 .*; read_committed: named-1 3 of 5", why)
