"""The runner on a fake system and client: what it does in which order, what it records, what it leaves."""

import os
import signal
from pathlib import Path

import pytest

from benchmarks import archive, client_call
from benchmarks.archive import Results
from benchmarks.client_call import CallError, call
from benchmarks.plan import Turn, turns
from benchmarks.suite import Ground, Suite, uninterrupted
from benchmarks.system import System
from benchmarks.workloads import Workload
from tests.benchmarks.fakes import DRIVE, FakeSystem, results, workload


class Bench:
    """A suite of fakes in a folder."""

    def __init__(self, path: Path, workloads: list[Workload]) -> None:
        self.folder = path / "data"
        self.folder.mkdir()
        self.file = path / "results.json"
        self.asked: list[str] = []
        self.said: list[str] = []
        self.results = results(workloads, [])
        self.workloads = workloads
        self.interrupt_at = ""

    def make(self, name: str) -> System:
        return FakeSystem(name, self.asked)

    def say(self, text: str) -> None:
        self.said.append(text)
        if self.interrupt_at and self.interrupt_at in text:
            raise KeyboardInterrupt

    def run(self, *systems: str, repeats: int = 1) -> Results:
        plan = turns(systems, self.workloads, repeats)
        suite = Suite(Ground(self.folder, self.file, self.make, DRIVE, self.say), self.results, plan)
        suite.prepare(systems)
        suite.run()
        return archive.load(self.file)

    def left(self) -> list[Path]:
        return list(self.folder.iterdir())


def test_each_system_gets_a_fresh_cluster_in_each_repeat_and_all_is_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("one"), workload("two", records=500)])
    found = bench.run("penstock", "limit", repeats=2)
    starts = [what for what in bench.asked if what.endswith(("start", "stop"))]
    pairs = [("penstock", "limit"), ("limit", "penstock")]
    assert starts == [f"{name} {what}" for pair in pairs for name in pair for what in ("start", "stop")]
    assert [(r.system, r.workload, r.repeat) for r in found.runs] == [
        (name, what, repeat) for repeat, pair in enumerate(pairs, 1) for name in pair for what in ("one", "two")
    ]
    first = found.runs[0]
    assert first.load is not None
    assert (first.load.records, first.load.seconds, first.load.client_cpu_s) == (1000, 2.0, 0.5)
    assert first.load.latency == [(1000, 3), (4000, 1)]
    assert first.servers["only"].rss_anon > 0
    assert not found.failed
    assert not bench.left()


def test_a_cold_topic_is_filled_and_the_servers_started_anew_before_it_is_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("cold", "consume", cold=True)])
    found = bench.run("penstock")
    assert bench.asked == ["penstock " + what for what in ("prepare", "start", "create cold", "restart", "stop")]
    assert found.runs[0].load is not None


def test_what_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("broken"), workload("whole")])
    found = bench.run("lame", "penstock")
    broken = {(run.system, run.workload): run.error for run in found.failed}
    assert broken[("penstock", "broken")] == "the client ended with 1: it broke"
    assert "it did not serve" in broken[("lame", "broken")]
    assert "it did not serve" in broken[("lame", "whole")]
    assert found.done("penstock", "whole", 1)
    assert not bench.left()


def test_what_is_not_available_is_skipped_with_its_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("one")])
    found = bench.run("absent", "ill", "penstock", repeats=2)
    assert found.skipped == {"absent": "it cannot be had", "ill": "it does not start here"}
    assert bench.asked.count("ill start") == 1
    assert "absent start" not in bench.asked
    assert {run.system for run in found.runs} == {"penstock"}
    assert not bench.left()


def test_an_interrupt_stops_everything_and_what_was_measured_is_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("one"), workload("two")])
    bench.interrupt_at = "one: "
    with pytest.raises(KeyboardInterrupt):
        bench.run("penstock")
    assert bench.asked[-1] == "penstock stop"
    assert not bench.left()
    assert [run.workload for run in archive.load(bench.file).runs] == ["one"]


def test_a_run_that_goes_on_does_what_is_missing_or_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("one"), workload("broken")])
    bench.run("penstock", "limit")
    bench.asked.clear()
    bench.workloads = bench.results.workloads = [workload("one"), workload("broken"), workload("three")]
    bench.results = archive.load(bench.file)
    found = bench.run("penstock")
    assert [what for what in bench.asked if "create" in what] == ["penstock create broken", "penstock create three"]
    assert [run.workload for run in found.runs if run.system == "penstock"] == ["one", "broken", "three"]
    bench.asked.clear()
    bench.workloads = [workload("one")]
    bench.run("penstock")
    assert "penstock start" not in bench.asked


def test_what_there_is_no_time_for_is_left_out_and_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [workload("one"), workload("two")])
    plan = turns(["penstock"], bench.workloads, 1)
    Suite(Ground(bench.folder, bench.file, bench.make, DRIVE, bench.say), bench.results, plan, limit_s=0).run()
    found = archive.load(bench.file)
    assert not found.runs
    assert not bench.asked
    assert found.left_out == ["penstock: one, repeat 1", "penstock: two, repeat 1"]


def test_penstock_and_the_ceiling_are_neighbours_and_many_partitions_come_last() -> None:
    many, few = workload("many", partitions=1000), workload("few")
    planned = turns(["kafka", "limit", "penstock"], [many, few], 2)
    assert [turn.system for turn in planned] == ["penstock", "limit", "kafka", "limit", "penstock", "kafka"]
    assert planned[0] == Turn(1, "penstock", (few, many))


def test_a_client_that_does_not_end_is_ended() -> None:
    with pytest.raises(CallError, match="did not end within 1 s"):
        call(DRIVE, workload("stuck"), timeout_s=1)


def test_a_server_that_is_gone_fails_the_run(tmp_path: Path) -> None:
    system = FakeSystem("penstock", [])
    system.start(tmp_path)
    assert system.process is not None
    pid = system.process.pid
    system.stop()
    system.process = type("Gone", (), {"pid": pid})()  # all that pids() asks of it
    with pytest.raises(CallError, match=f"only: process {pid} is gone"):
        client_call.measured(system, workload("one"), DRIVE)


def test_a_signal_waits_until_what_must_be_whole_is_done() -> None:
    done: list[str] = []

    def note(_number: int, _frame: object) -> None:
        done.append("signal")

    before = signal.signal(signal.SIGTERM, note)
    try:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("work")
        assert done == ["work", "signal"]
    finally:
        signal.signal(signal.SIGTERM, before)
