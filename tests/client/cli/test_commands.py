"""The program as users run it: a process of its own against the reference server."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.reference_server import Cluster, reference_cluster

WAIT_S = 120.0


@dataclass
class Done:
    code: int
    out: bytes
    err: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Penstock:
    """Runs `penstock` against one cluster, in an environment without a dev cluster."""

    def __init__(self, cluster: Cluster, home: Path) -> None:
        self.cluster = cluster
        self.env = {**os.environ, "PENSTOCK_HOME": str(home), "PENSTOCK_BOOTSTRAP": cluster.bootstrap()}
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self, *arguments: str, stdout: int = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-P", "-m", "penstock.client.cli", *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=stdout, stderr=pipe, env=self.env)
        self._started.append(process)
        return process

    async def end(self) -> None:
        """Leave no process behind a test that failed."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Done:
        process = await self.start(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin), WAIT_S)
        assert process.returncode is not None
        return Done(process.returncode, out, err)


@pytest.fixture
async def penstock(tmp_path: Path) -> AsyncIterator[Penstock]:
    async with reference_cluster() as cluster:
        program = Penstock(cluster, tmp_path)
        yield program
        await program.end()


async def test_kafkas_way_and_the_short_way_create_the_same(penstock: Penstock) -> None:
    kafka = await penstock(
        *("topic", "create", "--topic", "a", "--bootstrap-server", penstock.cluster.bootstrap()),
        *("--partitions", "3", "--replication-factor", "3", "--config", "min_insync_replicas=2"),
    )
    assert (kafka.code, kafka.out) == (0, b"topic a created: 3 partitions, 3 replicas\n"), kafka.err
    assert (await penstock("topic", "create", "b")).code == 0
    listed = await penstock("topic", "list", "--format", "json")
    assert [topic["name"] for topic in listed.json["topics"]] == ["a", "b"]
    tsv = await penstock("--format", "tsv", "topic", "list")
    assert tsv.out.decode().splitlines()[0].split("\t")[:2] == ["topic", "partitions"]


async def test_errors_are_one_json_object_with_reason_and_exit_code(penstock: Penstock) -> None:
    for arguments, reason in (
        (("topic", "describe", "nowhere"), "UNKNOWN_TOPIC"),
        (("topic", "create", "t", "--config", "min_insync_replica=2"), "INVALID_CONFIG"),
        (("consume", "nowhere"), "UNKNOWN_TOPIC"),
        (("dev", "status"), "DEV_CLUSTER"),
    ):
        done = await penstock(*arguments, "--format", "json")
        assert (done.code, done.json.get("error", {}).get("reason")) == (1, reason), (arguments, done.json)
        assert done.json["error"]["message"]
        assert done.err == b"", arguments


async def test_an_error_for_people_goes_to_standard_error(penstock: Penstock) -> None:
    done = await penstock("topic", "describe", "nowhere")
    assert (done.code, done.out) == (1, b"")
    assert done.err.startswith(b"penstock: UNKNOWN_TOPIC: ")
    usage = await penstock("topic", "make")
    assert (usage.code, usage.out) == (2, b"")
    assert b"No such command" in usage.err


async def test_nobody_there_is_told_within_the_timeout(penstock: Penstock) -> None:
    done = await penstock("-b", "127.0.0.1:1", "--timeout", "1", "topic", "list", "--format", "json")
    assert (done.code, done.json["error"]["reason"]) == (1, "NOT_SERVING")


async def test_several_items_fail_one_by_one(penstock: Penstock) -> None:
    penstock.cluster.create("a")
    done = await penstock("topic", "describe", "a", "nowhere", "--format", "json")
    assert done.code == 1
    assert [topic["name"] for topic in done.json["topics"]] == ["a"]
    assert done.json["errors"]["nowhere"]["reason"] == "UNKNOWN_TOPIC"
    gone = await penstock("topic", "delete", "nowhere", "a", "--yes")
    assert (gone.code, gone.out) == (1, b"topic a deleted\n")
    assert b"nowhere" in gone.err
    assert (await penstock("topic", "delete", "a", "--yes", "--if-exists")).code == 0


async def test_dry_run_changes_nothing(penstock: Penstock) -> None:
    done = await penstock("topic", "create", "a", "--dry-run")
    assert (done.code, done.out.partition(b":")[0]) == (0, b"topic a could be created")
    assert (await penstock("topic", "list", "--format", "json")).json == {"topics": []}


async def test_alter_and_add_partitions(penstock: Penstock) -> None:
    penstock.cluster.create("a")
    done = await penstock("topic", "alter", "a", "--config", "retention.ms=60000", "--format", "json")
    assert done.json["topic"]["config"]["retention_ms"] == 60_000
    kafkas = ["cleanup.policy=delete,compact", "min.cleanable.dirty.ratio=0.25", "max.compaction.lag.ms=7"]
    settings = [part for setting in kafkas for part in ("--config", setting)]
    done = await penstock("topic", "alter", "a", *settings, "--config", "retention.ms=-1", "--format", "json")
    config = done.json["topic"]["config"]
    assert (config["cleanup_policy"], config["min_dirty_ratio"], config["retention_ms"]) == (
        "compact,delete",
        0.25,
        None,
    )
    shown = (await penstock("topic", "describe", "a")).out.decode()
    assert all(f"{name}={value}" in shown for name, value in config.items() if isinstance(value, str | int | float)
               and not isinstance(value, bool))  # fmt: skip
    assert "timestamp_before_max_ms=unlimited" in shown
    done = await penstock("topic", "add-partitions", "a", "--partitions", "4")
    assert (done.code, done.out) == (0, b"topic a extended: 4 partitions, 3 replicas\n")
    assert (await penstock("topic", "alter", "a")).code == 2


async def test_cluster_and_brokers(penstock: Penstock) -> None:
    assert (await penstock("cluster", "health")).code in {0, 10}
    status = await penstock("cluster", "status", "--format", "json")
    assert (status.code, status.json["brokers"]) == (0, 3)
    described = await penstock("cluster", "describe", "--format", "json")
    assert [broker["node_id"] for broker in described.json["brokers"]] == [1, 2, 3]
    listed = await penstock("broker", "list")
    assert listed.out.decode().splitlines()[0].split()[:2] == ["NODE", "ADDRESS"]


async def test_brokers_tell_how_full_their_stores_are_and_a_dash_where_they_do_not_answer(penstock: Penstock) -> None:
    penstock.cluster.of_an_older_version.add(2)
    await penstock.cluster.brokers[3].stop()
    listed = (await penstock("broker", "list")).out.decode().splitlines()
    assert listed[0].split()[-4:] == ["STORE", "USED_BYTES", "CAPACITY_BYTES", "FREE_BYTES"]
    assert [line.split()[-4:] for line in listed[1:]] == [["nearly-full", "85", "100", "7"], ["-"] * 4, ["-"] * 4]
    table = (await penstock("broker", "list", "--format", "tsv")).out.decode().splitlines()
    assert [line.split("\t")[-4:] for line in table[1:]] == [["nearly-full", "85", "100", "7"], [""] * 4, [""] * 4]
    brokers = (await penstock("broker", "list", "--format", "json")).json["brokers"]
    assert [broker["store_used_bytes"] for broker in brokers] == [85, None, None]
    assert [broker["retention_paused"] for broker in brokers] == [True, None, None]
    assert (brokers[0]["store_state"], brokers[0]["disk_free_bytes"], brokers[1]["store_state"]) == (
        "nearly-full",
        7,
        None,
    )


async def test_produce_and_consume_keep_keys_values_and_order(penstock: Penstock) -> None:
    penstock.cluster.create("orders", 3)
    lines = b"".join(b"k%d,value, %d\xff,\n" % (number % 5, number) for number in range(1000))
    keyed = ("--property", "parse.key=true", "--property", "key.separator=,")
    done = await penstock("produce", "orders", *keyed, stdin=lines)
    assert (done.code, done.out) == (0, b"")
    assert done.err.startswith(b"1,000 of 1,000 records acknowledged in ")
    read = await penstock(
        "consume", "orders", "--from-beginning", "--exit-at-end", "--property", "print.key=true", *keyed[2:]
    )
    assert read.code == 0, read.err
    assert sorted(read.out.splitlines()) == sorted(lines.splitlines())
    for key in (b"k0,", b"k4,"):
        mine = [line for line in lines.splitlines() if line.startswith(key)]
        assert [line for line in read.out.splitlines() if line.startswith(key)] == mine


async def test_a_bad_line_is_named_and_what_came_before_it_is_sent(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    done = await penstock("produce", "orders", "--property", "parse.key=true", stdin=b"a\t1\nb\t2\nc\nd\t4\n")
    assert done.code == 1
    assert b"line 3 has no key separator" in done.err
    assert b"2 of 2 records acknowledged" in done.err
    assert [record.value for record in penstock.cluster.records("orders")] == [b"1", b"2"]


async def test_failures_are_counted_and_named_by_line(penstock: Penstock) -> None:
    done = await penstock("produce", "nowhere", "--timeout", "60", "--format", "json", stdin=b"a\nb\n")
    assert done.code == 1
    assert (done.json["records"], done.json["acknowledged"], done.json["failed"]) == (2, 0, 2)
    assert done.json["failures"] == {"UNKNOWN_TOPIC": 2}
    assert done.json["error"]["metadata"]["line"] == "1"


async def test_an_unknown_outcome_is_called_so(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    penstock.cluster.hold_answers = True
    for seconds in (1, 10, 60):  # on a slow machine it is not sent within the first
        done = await penstock("produce", "orders", "--timeout", str(seconds), stdin=b"a\n")
        if penstock.cluster.produce_batches:
            break
    assert done.code == 1
    assert b"0 of 1 records acknowledged, 1 of unknown outcome" in done.err
    assert b"OUTCOME_UNKNOWN" in done.err


async def test_input_without_last_newline_empty_lines_and_no_input(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    assert (await penstock("produce", "orders", "--compression", "zstd", stdin=b"a\r\n\nb")).code == 0
    assert [record.value for record in penstock.cluster.records("orders")] == [b"a", b"", b"b"]
    empty = await penstock("produce", "orders")
    assert (empty.code, empty.err) == (0, b"0 of 0 records acknowledged\n")


async def test_ctrl_c_during_produce_waits_for_what_was_sent(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    process = await penstock.start("produce", "orders")
    assert process.stdin is not None
    appended = asyncio.Event()
    penstock.cluster.log("orders").waiters[appended] = None
    process.stdin.write(b"typed\n")
    await asyncio.wait_for(appended.wait(), WAIT_S)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"interrupted after line 1" in err
    assert b"1 of 1 records acknowledged" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_consume_follows_until_it_is_stopped(penstock: Penstock, number: signal.Signals) -> None:
    penstock.cluster.create("orders")
    assert (await penstock("produce", "orders", stdin=b"one\n")).code == 0
    process = await penstock.start("consume", "orders", "--from-beginning")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"one\n"
    assert (await penstock("produce", "orders", stdin=b"two\n")).code == 0
    assert await asyncio.wait_for(process.stdout.readline(), WAIT_S) == b"two\n"
    process.send_signal(number)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_consume_ends_quietly_when_nobody_reads_it(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    assert (await penstock("produce", "orders", stdin=b"some line\n" * 100_000)).code == 0
    reader, writer = os.pipe()
    process = await penstock.start("consume", "orders", "--from-beginning", stdout=writer)
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 20) == b"some line\n" * 2
    os.close(reader)
    _, err = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (process.returncode, err) == (0, b"")


async def test_where_consume_begins_and_ends(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    assert (await penstock("produce", "orders", stdin=b"0\n1\n2\n3\n4\n")).code == 0
    for arguments, expected in (
        ("--partition 0 --offset 3 --exit-at-end", b"3\n4\n"),
        ("--offset earliest --max-records 2", b"0\n1\n"),
        ("--offset latest --exit-at-end", b""),
        ("--exit-at-end", b""),
        ("--offset @0 --max-messages 1", b"0\n"),
        ("--from-beginning --max-records 3 --exit-at-end", b"0\n1\n2\n"),
    ):
        done = await penstock("consume", "--topic", "orders", *arguments.split())
        assert (done.code, done.out) == (0, expected), arguments


async def test_consume_writes_json_and_tsv(penstock: Penstock) -> None:
    penstock.cluster.create("orders")
    keyed = ("--property", "parse.key=true", "--property", "null.marker=-")
    assert (await penstock("produce", "orders", *keyed, stdin=b"k\tv\n-\t-\n")).code == 0
    arguments = ("consume", "orders", "--from-beginning", "--exit-at-end", "--format")
    first, second = map(json.loads, (await penstock(*arguments, "json")).out.splitlines())
    assert (first["key"], first["value"], first["offset"]) == ("k", "v", 0)
    assert (second["key"], second["value"], second["offset"]) == (None, None, 1)
    header, *rows = (await penstock(*arguments, "tsv")).out.decode().splitlines()
    assert header.split("\t")[:3] == ["topic", "partition", "offset"]
    assert [row.split("\t")[4:6] for row in rows] == [["k", "v"], ["\\N", "\\N"]]


async def test_watch_repeats_until_stopped(penstock: Penstock) -> None:
    process = await penstock.start("topic", "list", "--watch", "--format", "json")
    assert process.stdout is not None
    for _ in range(2):
        assert json.loads(await asyncio.wait_for(process.stdout.readline(), WAIT_S)) == {"topics": []}
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
async def test_completion(penstock: Penstock, shell: str) -> None:
    done = await penstock("completion", shell)
    assert done.code == 0
    assert b"_PENSTOCK_COMPLETE" in done.out


async def test_completion_completes(penstock: Penstock) -> None:
    penstock.env |= {"_PENSTOCK_COMPLETE": "complete_bash", "COMP_WORDS": "penstock topic cr", "COMP_CWORD": "2"}
    assert (await penstock()).out.split() == [b"create"]
