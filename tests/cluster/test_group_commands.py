"""`penstock group` and `penstock consume --group` on real nodes, as an operator types them.

The commands run in this process, but for those that are to be interrupted.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.client import TopicPartition, blocking
from penstock.client.cli import run
from penstock.client.devcluster import DevCluster

PARTITIONS = 3
EACH = 10
"""Records in each partition at first."""
WAIT_S = 120.0


class Program:
    """Runs `penstock` against the cluster."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, code: int = 0) -> str:
        found = run(arguments)
        out, err = self._capsys.readouterr()
        assert found == code, (arguments, found, out, err)
        return out if code == 0 else out + err

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--format", "json", code=code))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "penstock.client.cli", *arguments]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        self._started.append(process)
        return process

    def end(self) -> None:
        """Leave no process behind a test that failed."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            with process:  # closes its pipes
                pass


@pytest.fixture(scope="module")
def filled(calm_cluster: DevCluster) -> DevCluster:
    with blocking.Admin(calm_cluster.bootstrap) as admin:
        admin.create_topic("orders", PARTITIONS)
    publish(calm_cluster, EACH)
    return calm_cluster


@pytest.fixture
def penstock(
    filled: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Program]:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP", filled.bootstrap)
    program = Program(capsys)
    yield program
    program.end()


def publish(cluster: DevCluster, each: int) -> None:
    with blocking.Producer(cluster.bootstrap) as producer:
        for number in range(each * PARTITIONS):
            producer.send("orders", b"%d" % number, partition=number % PARTITIONS)


def test_a_group_is_read_to_the_end_moved_back_and_deleted(penstock: Program, filled: DevCluster) -> None:
    member = ("consume", "orders", "--group", "billing", "--from-beginning", "--exit-at-end")
    assert sorted(map(int, penstock(*member).split())) == list(range(EACH * PARTITIONS))
    (lag,) = penstock.json("group", "lag", "billing")["groups"]
    assert (lag["lag"], lag["lag_time_ms"], lag["partitions_unknown"], lag["state"]) == (0, 0, 0, "empty")
    assert penstock(*member) == "", "what was committed is read again"
    dry = penstock.json("group", "seek", "billing", "--to", "-2", "--dry-run")
    assert [(one["former_offset"], one["offset"]) for one in dry["partitions"]] == [(EACH, EACH - 2)] * PARTITIONS
    assert penstock.json("group", "lag", "billing")["groups"][0]["lag"] == 0
    assert penstock.json("group", "seek", "billing", "--to", "-2", "--yes")["partitions"] == dry["partitions"]
    (lag,) = penstock.json("group", "lag", "--all")["groups"]
    assert (lag["lag"], lag["lag_time_ms"] > 0) == (2 * PARTITIONS, True)
    assert len(penstock(*member, "--commit", "none").split()) == 2 * PARTITIONS
    assert len(penstock(*member, "--max-records", "1").split()) == 1
    assert penstock.json("group", "lag", "billing")["groups"][0]["lag"] == 2 * PARTITIONS - 1
    events = penstock.json("group", "history", "billing", "--limit", "1000")["events"]
    commits = [event for event in events if event["event"] == "commit"]
    assert {event["client_id"] for event in commits} == {"penstock-consume", ""}
    assert [event["offset"] for event in commits if not event["client_id"]] == [EACH - 2] * PARTITIONS
    rebalances = [event for event in events if event["event"] == "rebalance"]
    assert any("joined" in event["cause"] for event in rebalances)
    assert [event["generation"] for event in rebalances] == sorted({event["generation"] for event in rebalances})
    assert penstock("group", "delete", "billing", "--yes") == "group billing deleted\n"
    assert "UNKNOWN_GROUP" in penstock("group", "describe", "billing", code=1)


def test_who_is_stopped_has_committed_what_was_printed_and_left(penstock: Program, filled: DevCluster) -> None:
    numbers = {f"stopped-by-{number.name}": number for number in (signal.SIGINT, signal.SIGTERM)}
    processes = {group: penstock.start("consume", "orders", "--group", group, "--from-beginning") for group in numbers}
    for group, process in processes.items():
        assert process.stdout is not None
        for _ in range(EACH * PARTITIONS):
            assert process.stdout.readline().strip().isdecimal()
        described = penstock.json("group", "describe", group)["groups"][0]
        assert (described["state"], described["members"][0]["client_id"]) == ("stable", "penstock-consume")
        owner = {one["member_id"] for one in described["partitions"]}
        assert owner == {described["members"][0]["member_id"]}
        assert f"orders[0-{PARTITIONS - 1}]" in penstock("group", "members", group)
        for refused in (("seek", group, "--to", "earliest"), ("delete", group)):
            assert f"GROUP_NOT_EMPTY: group '{group}' has 1 member: " in penstock("group", *refused, "--yes", code=1)
        process.send_signal(numbers[group])
    for group, process in processes.items():
        assert process.communicate(timeout=WAIT_S) == ("", "")
        assert process.returncode == 0
        (after,) = penstock.json("group", "describe", group)["groups"]
        assert (after["state"], after["total"]["lag"], after["total"]["partitions_unknown"]) == ("empty", 0, 0)


def test_what_nobody_could_read_is_not_committed(penstock: Program, filled: DevCluster) -> None:
    process = penstock.start("consume", "orders", "--group", "unread", "--from-beginning")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(WAIT_S) == 0
    (group,) = penstock.json("group", "describe", "unread")["groups"]
    assert (group["state"], [one["committed"] for one in group["partitions"]]) == ("empty", [])


def test_a_group_below_the_log_start_is_told_how_to_go_on(penstock: Program, filled: DevCluster) -> None:
    with blocking.Admin(filled.bootstrap) as admin, blocking.Producer(filled.bootstrap) as producer:
        admin.create_topic("short", 1)
        for number in range(EACH):
            producer.send("short", b"%d" % number, partition=0)
        producer.flush()
        admin.alter_offsets("late one", {TopicPartition("short", 0): 1})
        admin.trim_topic("short", 4)
    member = ("consume", "short", "--group", "late one", "--from-beginning", "--exit-at-end")
    told = penstock(*member, code=1)
    assert "OFFSET_BELOW_START" in told
    assert "penstock group seek 'late one' --topic TOPIC:PARTITION --to earliest" in told
    penstock("group", "seek", "late one", "--topic", "short:0", "--to", "earliest", "--yes")
    assert penstock(*member).split() == ["4", "5", "6", "7", "8", "9"]


def test_coordinators_are_shown_and_bad_input_is_told_precisely(penstock: Program, filled: DevCluster) -> None:
    with blocking.Admin(filled.bootstrap) as admin:
        admin.alter_offsets("made", {TopicPartition("orders", 0): 3})
        topics = admin.describe_cluster().topics
    partitions = sum(len(topic.partitions) for topic in topics if topic.name == "__offsets")
    assert partitions > 0
    coordinators = penstock.json("cluster", "describe")["coordinators"]
    assert sum(one["offsets_partitions"] for one in coordinators) == partitions
    assert sum(one["groups"] for one in coordinators) == penstock.json("cluster", "status")["groups"] > 0
    calls: list[tuple[tuple[str, ...], str]] = [
        (("group", "describe", ""), "INVALID_GROUP_ID"),
        (("group", "lag", "x" * 250), "INVALID_GROUP_ID"),
        (("group", "history", "nope"), "UNKNOWN_GROUP"),
        (("group", "seek", "nope", "--to", "latest", "--yes"), "UNKNOWN_GROUP"),
        (("group", "seek", "made", "--topic", "nope", "--to", "latest", "--yes"), "UNKNOWN_TOPIC"),
        (("group", "seek", "made", "--topic", "orders:9", "--to", "latest", "--yes"), "UNKNOWN_PARTITION"),
        (("consume", "nowhere", "--group", "made"), "UNKNOWN_TOPIC"),
        (("consume", "orders", "--group", ""), "INVALID_GROUP_ID"),
    ]
    for arguments, reason in calls:
        assert penstock.json(*arguments, code=1)["error"]["reason"] == reason, arguments
    above = penstock.json("group", "seek", "made", "--to", "1000000", "--yes", code=1)
    assert [one["error"]["reason"] for one in above["partitions"]] == ["OFFSET_ABOVE_END"]
