"""`penstock bench` as users run it, on three real nodes; what it refuses; and how a signal ends it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Admin, PenstockError
from penstock.client.bench.run import Bench
from penstock.client.cli import bench as bench_command
from penstock.client.cli import run
from penstock.client.devcluster import DevCluster
from penstock.client.devplan import make_plan
from penstock.client.ports import free_ports

WAIT_S = 240.0
PATIENCE = ("--timeout", "120")
"""The machine may be busy: no record is given up because of that."""
SHORT = ("--warmup", "0", "--partitions", "2", "--record-bytes", "100")


class Penstock:
    """Runs `penstock` against one cluster, and knows its processes."""

    def __init__(self, home: Path) -> None:
        self.cluster = DevCluster.create(home, make_plan(free_ports(6)))
        self.bootstrap = self.cluster.bootstrap
        self._command = [sys.executable, "-P", "-m", "penstock.client.cli", "-b", self.bootstrap, *PATIENCE, "bench"]
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        self._started.append(subprocess.Popen([*self._command, *arguments], stdout=pipe, stderr=pipe))
        return self._started[-1]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=WAIT_S)
        return process.returncode, out.decode(), err.decode()

    def json(self, *arguments: str) -> Any:
        """Document of a run without any failure."""
        code, out, err = self(*arguments, "--format", "json")
        assert (code, err) == (0, ""), (out, err)
        return json.loads(out)

    def end(self) -> None:
        """Leave no process behind a test that failed."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()
        for node_id in self.cluster.node_ids:
            self.cluster.signal(node_id, signal.SIGKILL)
        for node_id in self.cluster.node_ids:
            self.cluster.kill(node_id)


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    program = Penstock(tmp_path_factory.mktemp("bench"))
    program.cluster.start()
    program.cluster.wait_serving()
    yield program
    program.end()


@pytest.fixture
async def admin(penstock: Penstock) -> AsyncIterator[Admin]:
    async with Admin(penstock.bootstrap, timeout_ms=120_000) as made:
        yield made


async def topics(admin: Admin) -> list[str]:
    return [topic.name for topic in await admin.list_topics()]


async def records_of(admin: Admin) -> int:
    """Records of the topic that a run has made; 0 where there is none yet."""
    try:
        return sum([found.offset for name in await topics(admin) for found in await admin.list_offsets(name, "latest")])
    except PenstockError:
        return 0


async def until_it_writes(admin: Admin, process: "subprocess.Popen[bytes]") -> None:
    while not await records_of(admin):
        assert process.poll() is None, process.communicate()


async def test_produce(penstock: Penstock, admin: Admin) -> None:
    shown = penstock.json("produce", *SHORT, "--records", "500", "--rate", "1000", "--keys", "5", "--linger-ms", "1")
    assert (shown["records"], shown["sent"], shown["bytes"]) == (500, 500, 50_000)
    (latency,) = shown["latencies"]
    assert (latency["from"], latency["to"], latency["samples"]) == ("due", "acknowledged", 500)
    assert 0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["p99_9_ms"] <= latency["max_ms"]
    assert [node["node_id"] for node in shown["nodes"]] == [1, 2, 3]
    assert (shown["options"]["partitions"], shown["options"]["replication_factor"]) == (2, 3)
    assert await topics(admin) == []


async def test_several_producers_and_a_topic_that_exists(penstock: Penstock, admin: Admin) -> None:
    await admin.create_topic("kept", 2)
    try:
        shown = penstock.json("produce", "--topic", "kept", "--warmup", "0.1", "--records", "301", "--producers", "2")
        assert (shown["records"], shown["topic"], shown["options"]["producers"]) == (301, "kept", 2)
        written = await records_of(admin)
        assert written > 301  # the warm-up's too
        shown = penstock.json("consume", "--topic", "kept", "--warmup", "0")
        assert (shown["records"], shown["bytes"]) == (written, written * 1024)
        assert await topics(admin) == ["kept"]
    finally:
        await admin.delete_topic("kept")


async def test_e2e_for_people_with_a_histogram(penstock: Penstock, admin: Admin, tmp_path: Path) -> None:
    file = tmp_path / "latencies.tsv"
    code, out, err = penstock("e2e", *SHORT, "--records", "400", "--rate", "2000", "--histogram", str(file))
    assert (code, err) == (0, ""), (out, err)
    lines = out.splitlines()
    assert lines[0].startswith("e2e, bench-")
    assert lines[0].endswith(": 2 partitions, 3 replicas; acks all; 1 producer, 100 B records, 2,000 records/s due")
    words = [line.split() for line in lines]
    assert ["records", "400"] in words
    assert [line[:4] for line in words if line[:1] == ["due"]] == [
        ["due", "to", "acknowledged", "400"],
        ["due", "to", "consumed", "400"],
    ]
    assert [line[:2] for line in words if line[:1] in (["node"], ["client"])][:3] == [
        ["node", "1"],
        ["node", "2"],
        ["node", "3"],
    ]
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert rows[0] == ["up_to_us", "samples", "percentile"]
    assert sum(int(row[1]) for row in rows[1:]) == 400
    assert await topics(admin) == []


async def test_consume_fills_its_topic_and_reads_all_of_it_in_either_form(penstock: Penstock, admin: Admin) -> None:
    for form in ("records", "batches"):
        shown = penstock.json("consume", *SHORT, "--records", "2000", "--form", form)
        assert (shown["records"], shown["latencies"], shown["options"]["form"]) == (2000, [], form)
    assert await topics(admin) == []


async def test_ctrl_c_ends_it_with_a_report_and_130(penstock: Penstock, admin: Admin) -> None:
    process = penstock.start("produce", *SHORT, "--rate", "100", "--duration", "3600", "--format", "json")
    await until_it_writes(admin, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    shown = json.loads(out)
    assert shown["interrupted"]
    assert 0 < shown["records"] == shown["sent"]
    assert b"interrupted" in err
    assert await topics(admin) == []


async def test_failed_records_are_counted_by_reason_and_the_topic_goes_in_any_case(
    penstock: Penstock, admin: Admin
) -> None:
    code, out, _ = penstock(
        *("produce", "--warmup", "0", "--record-bytes", "20000000", "--records", "2", "--format", "json")
    )
    shown = json.loads(out)
    assert (code, shown["records"], shown["failures"]) == (1, 0, {"RECORD_TOO_LARGE": 2})
    code, out, err = penstock("consume", *SHORT[:4], "--record-bytes", "20000000", "--records", "2")
    assert (code, out) == (1, "")
    assert "RECORD_TOO_LARGE: the topic could not be filled" in err
    assert await topics(admin) == []


async def test_a_topic_that_goes_meanwhile_ends_in_failures(penstock: Penstock, admin: Admin) -> None:
    process = penstock.start("produce", *SHORT, "--rate", "100", "--records", "300", "--format", "json")
    await until_it_writes(admin, process)
    (name,) = await topics(admin)
    await admin.delete_topic(name)
    out, err = process.communicate(timeout=WAIT_S)
    shown = json.loads(out)
    assert (process.returncode, err) == (1, b"")
    assert shown["failed"] + shown["outcome_unknown"] > 0
    assert shown["records"] + shown["failed"] + shown["outcome_unknown"] == shown["sent"] == 300


def test_a_topic_that_does_not_exist(penstock: Penstock) -> None:
    assert penstock("consume", "--topic", "nowhere") == (
        1,
        "",
        "penstock: UNKNOWN_TOPIC: no topic is named 'nowhere'\n",
    )


async def test_a_topic_that_cannot_be_made_is_not_deleted(penstock: Penstock) -> None:
    code, out, err = penstock("produce", "--replication-factor", "7")
    assert (code, out) == (1, "")
    assert err.startswith("penstock: INVALID_REPLICATION_FACTOR: ")
    assert err.count("\n") == 1


async def test_it_goes_on_when_a_node_is_killed(penstock: Penstock, admin: Admin) -> None:
    """The last test of the shared cluster: it ends a node."""
    process = penstock.start("e2e", *SHORT, "--rate", "100", "--records", "300", "--format", "json")
    await until_it_writes(admin, process)
    (name,) = await topics(admin)
    leader = (await admin.describe_topic(name)).partitions[0].leader
    assert leader is not None
    penstock.cluster.kill(leader)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, b""), out
    shown = json.loads(out)
    assert (shown["records"], shown["not_consumed"], shown["failures"]) == (300, 0, {})
    assert [node["note"] for node in shown["nodes"] if node["node_id"] == leader] == ["unreachable"]


def test_nobody_there_is_told_within_the_timeout(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("produce", "consume", "e2e"):
        assert run(["-b", "127.0.0.1:1", "--timeout", "0.5", "bench", verb]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("penstock: NOT_SERVING: ")
        assert err.count("\n") == 1  # nothing about a topic that was never made


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("produce --rate 0", "--rate"),
        ("produce --rate inf", "--rate"),
        ("produce --duration nan", "--duration"),
        ("produce --warmup inf", "--warmup"),
        ("produce --duration 1 --records 5", "not both"),
        ("produce --producers 3 --records 2", "3 producers cannot share 2 records"),
        ("produce --record-bytes 0", "--record-bytes"),
        ("produce --buffer-bytes 1024", "memory of 1024 bytes"),
        ("produce --acks most", "most"),
        ("produce --compression rar", "rar"),
        ("produce --topic t --partitions 3", "not with --topic"),
        ("produce --histogram /nowhere/latencies", "/nowhere/latencies"),
        ("e2e --record-bytes 15", "at least 16 bytes"),
        ("consume --form lines", "lines"),
        ("consume --topic t --keys 3 --compression lz4", "--keys, --compression are of records that are filled in"),
        ("consume --rate 5", "--rate"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *line.split(), "--format=json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["reason"] == "USAGE"
    assert told in error["message"]


class FakeBench:
    """In place of a run; it ends when it is stopped, or is cancelled."""

    def __init__(self, *, is_under_way: bool, ends_when_stopped: bool = True) -> None:
        self.stopped = asyncio.Event()
        self.is_under_way = is_under_way
        self._ends = ends_when_stopped

    async def run(self) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await self.stopped.wait()
        if not self._ends:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        return "report"


@pytest.mark.parametrize(
    ("bench", "is_cancelled"),
    [
        (lambda: FakeBench(is_under_way=True), False),
        (lambda: FakeBench(is_under_way=False), True),
        (lambda: FakeBench(is_under_way=True, ends_when_stopped=False), True),
    ],
    ids=["a first signal stops", "before it is under way it cancels", "a second one cancels"],
)
def test_signals(bench: Callable[[], Bench], is_cancelled: bool) -> None:
    work = bench_command._until_stopped(bench())
    if is_cancelled:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(work)
    else:
        assert str(asyncio.run(work)) == "report"
