"""`penstock topic trim`, `topic describe` with sizes, `broker logs`."""

import json

import pytest

from penstock.client.cli.times import parse_time
from penstock.protocol.batch import NewRecord, build
from tests.client.cli.test_commands import Penstock, penstock
from tests.client.reference_server import Cluster, PartitionLog

__all__ = ["penstock"]  # a fixture


def fill(cluster: Cluster, topic: str, partition: int, batches: int) -> None:
    for number in range(batches):
        records = [NewRecord(None, b"v", 1000 + 10 * number + index) for index in range(4)]
        cluster.log(topic, partition).append(build(records))


def filled(cluster: Cluster) -> Cluster:
    """Partition 0 has offsets 0 to 7, partition 1 has 0 to 3."""
    cluster.create("orders", 2)
    fill(cluster, "orders", 0, 2)
    fill(cluster, "orders", 1, 1)
    return cluster


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1769904000000", 1769904000000),
        ("-5", -5),
        ("2026-02-01T00:00:00Z", 1769904000000),
        ("2026-02-01", 1769904000000),
        ("2026-02-01T01:00:00.0019+01:00", 1769904000001),
    ],
)
def test_times(text: str, ms: int) -> None:
    assert parse_time(text, "--before-time") == ms


async def test_a_dry_run_shows_what_would_go_and_leaves_it(penstock: Penstock) -> None:
    filled(penstock.cluster)
    dry = await penstock("topic", "trim", "orders", "--before-time", "1970-01-01T00:00:01.002Z", "--dry-run")
    lines = dry.out.decode().splitlines()
    assert (dry.code, lines[0]) == (0, "topic orders could be trimmed: 4 offsets go"), dry.err
    assert [line.split()[:4] for line in lines[2:]] == [["orders", "0", "0", "2"], ["orders", "1", "0", "2"]]
    assert penstock.cluster.log("orders", 0).log_start_offset == 0
    above = await penstock("topic", "trim", "orders", "--before-offset", "5", "--dry-run", "--format", "json")
    assert above.code == 1
    assert [part.get("error", {}).get("reason") for part in above.json["partitions"]] == [None, "OFFSET_ABOVE_END"]


async def test_trimming_asks_and_tells_each_partition(penstock: Penstock) -> None:
    cluster = filled(penstock.cluster)
    unasked = await penstock("topic", "trim", "orders", "--everything")
    assert unasked.code == 2
    assert b"Add --yes" in unasked.err
    done = await penstock("topic", "trim", "orders", "--before-offset", "5", "--yes", "--format", "json")
    assert done.code == 1
    good, bad = done.json["partitions"]
    assert good == {"partition": 0, "former_start_offset": 0, "log_start_offset": 5}
    assert (bad["log_start_offset"], bad["error"]["reason"]) == (None, "OFFSET_ABOVE_END")
    assert (done.json["offsets"], done.json["dry_run"]) == (5, False)
    again = await penstock("topic", "trim", "--topic", "orders", "--partition", "0", "--before-offset", "2", "--yes")
    assert (again.code, again.out.splitlines()[0]) == (0, b"topic orders trimmed: 0 offsets go"), again.err
    tsv = await penstock("topic", "trim", "orders", "--everything", "--yes", "--format", "tsv")
    assert tsv.out.decode().splitlines() == [
        "topic\tpartition\tformer_start\tstart\terror",
        "orders\t0\t5\t8\t",
        "orders\t1\t0\t4\t",
    ]
    assert [cluster.log("orders", index).log_start_offset for index in range(2)] == [8, 4]


async def test_how_far_is_said_once(penstock: Penstock) -> None:
    filled(penstock.cluster)
    for options in ((), ("--everything", "--before-offset", "1"), ("--before-time", "yesterday")):
        done = await penstock("topic", "trim", "orders", *options, "--yes")
        assert done.code == 2, (options, done.err)


async def test_describe_shows_sizes_and_a_dash_for_a_leader_that_does_not_answer(penstock: Penstock) -> None:
    cluster = filled(penstock.cluster)
    shown = await penstock("topic", "describe", "orders", "--format", "json")
    (topic,) = shown.json["topics"]
    sizes = [sum(batch.batch.ByteSize() for batch in cluster.log("orders", index).batches) for index in range(2)]
    assert [(part["record_count"], part["size_bytes"]) for part in topic["partitions"]] == [
        (8, sizes[0]),
        (4, sizes[1]),
    ]
    assert (topic["record_count"], topic["size_bytes"]) == (12, sum(sizes))
    assert "logs" not in topic["partitions"][0]
    cluster.of_an_older_version.add(2)
    dashes = await penstock("topic", "describe", "orders")
    assert dashes.code == 0
    rows = [line.split() for line in dashes.out.decode().splitlines() if line.startswith("orders ")]
    assert rows[0][-4:] == ["records", "-", "bytes", "-"]
    assert [row[-2:] for row in rows[1:]] == [["8", str(sizes[0])], ["-", "-"]]
    partly = await penstock("topic", "describe", "orders", "--format", "json")
    assert [part["size_bytes"] for part in partly.json["topics"][0]["partitions"]] == [sizes[0], None]
    assert partly.json["topics"][0]["size_bytes"] is None


async def test_describe_shows_each_replica(penstock: Penstock) -> None:
    cluster = filled(penstock.cluster)
    cluster.log("orders").trim(5)
    cluster.of_an_older_version.add(3)
    shown = await penstock("topic", "describe", "orders", "--replicas", "--offsets", "--format", "json")
    first = shown.json["topics"][0]["partitions"][0]
    assert [log and (log["node_id"], log["log_start_offset"], log["leader"]) for log in first["logs"]] == [
        (1, 5, True),
        (2, 5, False),
        None,
    ]
    assert (first["log_start_offset"], first["end_offset"]) == (5, 8)
    tsv = await penstock("topic", "describe", "orders", "--replicas", "--format", "tsv")
    rows = [line.split("\t") for line in tsv.out.decode().splitlines()]
    assert rows[3] == [
        "topic",
        "partition",
        "node",
        "role",
        "start",
        "end",
        "records",
        "bytes",
        "cleaned",
        "dirty_bytes",
    ]
    assert [row[:4] for row in rows[4:7]] == [
        ["orders", "0", "1", "leader"],
        ["orders", "0", "2", "in sync"],
        ["orders", "0", "3", "in sync"],
    ]
    assert [row[4] for row in rows[4:7]] == ["5", "5", ""]


async def test_brokers_list_their_logs_with_strays(penstock: Penstock) -> None:
    cluster = filled(penstock.cluster)
    gone = b"\x0a" * 16
    cluster.brokers[2].strays[gone, 7] = PartitionLog(gone, 7, 1)
    listed = await penstock("broker", "logs", "2", "--format", "json")
    assert [(log["topic"], log["partition"], log["stray"]) for log in listed.json["logs"]] == [
        ("orders", 0, False),
        ("orders", 1, False),
        (None, 7, True),
    ]
    strays = await penstock("broker", "logs", "--strays", "--format", "tsv")
    header, row = strays.out.decode().splitlines()
    assert header.split("\t")[:4] == ["node", "topic", "partition", "role"]
    assert row.split("\t")[:4] == ["2", gone.hex(), "7", "stray"]
    cluster.of_an_older_version.add(3)
    partly = await penstock("broker", "logs", "--format", "json")
    assert partly.code == 1
    assert list(partly.json["errors"]) == ["3"]
    assert {log["node_id"] for log in partly.json["logs"]} == {1, 2}
    nobody = await penstock("broker", "logs", "9", "--format", "json")
    assert (nobody.code, json.loads(nobody.out)["error"]["reason"]) == (1, "INVALID_ARGUMENT")
