"""What stands in a history for each outcome, and under which name a process goes on."""

from pathlib import Path

import pytest

from penstock.chaos.history import Entry, Recorder, entries
from penstock.chaos.workload import Access, Senders, TopicPlan, Workload, WorkloadError, WorkloadOptions
from penstock.chaos.workload.options import ORDERS
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.readers import Reader
from penstock.client import ClientClosedError, TopicPartition
from penstock.client.errors import make_error
from penstock.client.ports import free_ports
from penstock.protocol.reasons import Outcome, Reason
from tests.chaos.workload.running import until

NOBODY = Access("127.0.0.1:1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def history(recorder: Recorder, path: Path) -> list[Entry]:
    recorder.close()
    return list(entries(path))


@pytest.mark.parametrize("reason", list(Reason))
def test_an_error_fails_a_write_unless_its_outcome_is_unknown(reason: Reason, path: Path) -> None:
    recorder = Recorder(path)
    process = Process(Common(recorder, WorkloadOptions(), 1), "c1", "send", 2, NOBODY)
    process.refused(process.invoke("send", value=1), make_error(reason, "why"))
    process.invoke("send", value=2)
    invoked, completed, after = history(recorder, path)
    assert completed["type"] == ("info" if reason.outcome is Outcome.UNKNOWN else "fail")
    assert (completed["op"], completed["error"], completed["message"]) == (invoked["op"], reason.name, "why")
    assert completed["process"] == "c1/send2.0"
    assert after["process"] == ("c1/send2.1" if reason.outcome is Outcome.UNKNOWN else "c1/send2.0")


def test_what_the_client_did_not_send_for_its_own_end_is_told_apart(path: Path) -> None:
    recorder = Recorder(path)
    process = Process(Common(recorder, WorkloadOptions(), 1), "c1", "send", 1, NOBODY)
    process.refused(process.invoke("send", value=1), ClientClosedError(Reason.NOT_SERVING, "closed"))
    _, completed = history(recorder, path)
    assert (completed["type"], completed["error"]) == ("fail", "ClientClosedError")


def test_outcomes_unknown_of_one_incarnation_begin_one_new_one(path: Path) -> None:
    recorder = Recorder(path)
    process = Process(Common(recorder, WorkloadOptions(), 1), "c1", "send", 1, NOBODY)
    three = [process.invoke("send", value=value) for value in range(3)]
    process.unknown(three[0], "OUTCOME_UNKNOWN", "")
    later = process.invoke("send", value=3)
    process.unknown(three[1], "OUTCOME_UNKNOWN", "")
    process.ok(three[2], offset=1)
    process.ok(later, offset=2)
    assert process.name == "c1/send1.1"
    names = {entry["op"]: entry["process"] for entry in history(recorder, path)}
    assert list(names.values()) == ["c1/send1.0"] * 3 + ["c1/send1.1"]


def test_counts(path: Path) -> None:
    with Recorder(path) as recorder:
        process = Process(Common(recorder, WorkloadOptions(), 1), "c1", "append", 1, NOBODY)
        for reason in (Reason.EXPECTED_OFFSET_MISMATCH, Reason.NOT_LEADER, Reason.OUTCOME_UNKNOWN, Reason.INTERNAL):
            process.refused(process.invoke("append"), make_error(reason, ""))
        process.ok(process.invoke("append"))
    progress = process.progress
    assert (progress.acked, progress.refused, progress.failed, progress.unknown) == (1, 1, 1, 2)
    assert str(progress) == "1 acknowledged, 0 read, 1 refused, 1 failed, 2 unknown"


def test_a_seed_repeats_choices_and_processes_differ(path: Path) -> None:
    with Recorder(path) as recorder:

        def choices(seed: int, number: int) -> tuple[object, ...]:
            reader = Reader(Common(recorder, WorkloadOptions(), seed), "c1", number, NOBODY)
            return tuple(reader._choose()), reader.rng.random()

        assert choices(5, 1) == choices(5, 1)
        assert len({choices(5, 1), choices(5, 2), choices(6, 1)}) == 3


async def test_where_nobody_answers_records_fail_in_time_and_no_more_are_kept_than_allowed(path: Path) -> None:
    (port,) = free_ports(1)
    senders = Senders(count=1, rate=100, most_under_way=30, delivery_timeout_ms=500)
    options = WorkloadOptions(topics=(TopicPlan(ORDERS, 2),), senders=(senders,)).only("senders")
    with Recorder(path) as recorder:
        workload = Workload(recorder, {"c1": Access(f"127.0.0.1:{port}")}, options, 1)
        workload.start()
        progress = workload.progress
        await until(lambda: progress.failed >= 60 and progress.skipped > 0, workload)
        await workload.stop(10)
    open_at_once = highest = 0
    for entry in entries(path):
        open_at_once += 1 if entry["type"] == "invoke" else -1
        highest = max(highest, open_at_once)
    assert open_at_once == 0
    assert highest <= 30
    assert progress.acked == progress.unknown == 0


async def test_topics_that_cannot_be_made_are_an_error(path: Path) -> None:
    (port,) = free_ports(1)
    with Recorder(path) as recorder:
        workload = Workload(recorder, {"c1": Access(f"127.0.0.1:{port}")}, WorkloadOptions(), 1)
        with pytest.raises(WorkloadError, match="could not be made within 1 s"):
            await workload.prepare(1.0)
        await workload.stop(1.0)


async def test_a_process_that_breaks_is_an_error_of_the_workload(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Reader) -> None:
        raise RuntimeError("no way")

    monkeypatch.setattr(Reader, "run", broken)
    with Recorder(path) as recorder:
        workload = Workload(recorder, {"c1": NOBODY}, WorkloadOptions().only("readers"), 1)
        workload.start()
        await until(lambda: workload.failure is not None)
        with pytest.raises(WorkloadError, match=r"c1/read1\.0 ended: RuntimeError: no way"):
            await workload.stop(5)


def test_a_workload_needs_a_host(path: Path) -> None:
    with Recorder(path) as recorder, pytest.raises(WorkloadError, match="at least one host"):
        Workload(recorder, {}, WorkloadOptions(), 1)


def test_parts_can_be_chosen() -> None:
    only = WorkloadOptions().only("appenders", "changers")
    assert (len(only.senders), only.readers.count, only.ends.count) == (0, 0, 0)
    assert (only.appenders, only.changers) == (WorkloadOptions().appenders, WorkloadOptions().changers)
    assert (WorkloadOptions().rate, only.rate) == (6 * 220.0, 0.0)


def test_acknowledged_ends_never_go_down(path: Path) -> None:
    with Recorder(path) as recorder:
        common = Common(recorder, WorkloadOptions(), 1)
        partition = TopicPartition("orders", 0)
        common.wrote(partition)
        assert common.written == {partition: 0}
        for offset in (7, 3):
            common.acknowledged(partition, offset)
            common.wrote(partition)
        assert common.written == {partition: 8}
