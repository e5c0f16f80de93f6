"""Ratios, aims, tables and documents from given results."""

import json
from pathlib import Path

import pytest

from benchmarks import archive, report
from benchmarks.__main__ import main
from benchmarks.aims import AIMS, Judgement, judge, number
from benchmarks.archive import ArchiveError, Run
from benchmarks.summary import Spread, Summary
from benchmarks.table import Table, aims, cell, tables
from benchmarks.workloads import workloads
from tests.benchmarks.fakes import results, run, workload

BATCH = workload("batch-64k", records=1000, record_bytes=1024)
OPEN = workload("open-5k", "open_loop", records=0, rate=5000, record_bytes=1024)


def state(judged: list[Judgement], part: str) -> str:
    return next(entry.text for entry in judged if entry.part == part)


def test_ratios_are_taken_within_repeats_and_the_median_is_theirs() -> None:
    rates = {"penstock": (800, 300, 90), "limit": (1000, 1000, 100)}
    runs = [run(s, "batch-64k", n, rate=r) for s, given in rates.items() for n, r in enumerate(given, 1)]
    summary = Summary(results([BATCH], [*runs, run("penstock", "batch-64k", 4, rate=1e9)]))
    over, under = ("penstock", "batch-64k", "records_s"), ("limit", "batch-64k", "records_s")
    ratio = summary.ratio(over, under)
    assert ratio is not None  # the quotient of the medians would be 0.55; repeat 4 has no pair
    assert (ratio.median, ratio.least, ratio.most, ratio.count) == pytest.approx((0.8, 0.3, 0.9, 3))
    assert summary.ratio(over, ("kafka", "batch-64k", "records_s")) is None


def test_figures_of_a_run() -> None:
    summary = Summary(results([OPEN], [run("penstock", "open-5k", 1, rate=500, us=4000, cpu_s=2)]))
    found = {
        name: summary.value("penstock", "open-5k", name)
        for name in ("records_s", "mb_s", "p50_ms", "p99.9_ms", "max_ms", "server_cpu_s", "cpu_us", "anon_mb")
    }
    medians = {name: value.median for name, value in found.items() if value}
    latencies = {"p50_ms": 4.0, "p99.9_ms": 4.0, "max_ms": 4.0}
    assert medians == {"records_s": 500, "mb_s": 0.512, **latencies, "server_cpu_s": 2, "cpu_us": 2000, "anon_mb": 20}


def test_failed_runs_count_nowhere_and_are_told() -> None:
    failed = Run("penstock", "batch-64k", 2, None, "a | b\nc")
    summary = Summary(results([BATCH], [run("penstock", "batch-64k", 1), failed]))
    value = summary.value("penstock", "batch-64k", "records_s")
    assert value is not None
    assert value.count == 1
    missing = tables(summary)[-1]
    assert missing.rows == [["penstock", "batch-64k, repeat 2", "a / b c"]]


@pytest.mark.parametrize(
    ("rate", "expected"), [(800, "reached: 0.80"), (600, "not reached: 0.60 instead of at least 0.80")]
)
def test_an_aim_is_reached_or_not(rate: float, expected: str) -> None:
    runs = [run("penstock", "batch-64k", 1, rate=rate), run("limit", "batch-64k", 1, rate=1000)]
    judged = judge(Summary(results([BATCH], runs)))
    assert state(judged, "batch-64k: bytes/s of the ceiling") == expected
    told = "not measured: no result of batch-64k on kafka-synced"
    assert state(judged, "batch-64k: bytes/s of Kafka synced at its best size") == told


def test_kafka_is_taken_at_its_best_size_of_batches() -> None:
    sizes = [workload(f"batch-{size}", records=1000, record_bytes=1024) for size in ("64k", "256k", "1024k")]
    rates = {"batch-64k": (20, 20), "batch-256k": (30, 45), "batch-1024k": (40, 40)}
    runs = [run("kafka-synced", name, n, rate=r) for name, given in rates.items() for n, r in enumerate(given, 1)]
    runs += [run("penstock", "batch-64k", n, rate=90) for n in (1, 2)]
    judged = judge(Summary(results(sizes, runs)))
    assert state(judged, "batch-64k: bytes/s of Kafka synced at its best size") == "reached: 2.12"  # 90/40 and 90/45


def test_below_means_below() -> None:
    series = workload("series", "series")
    runs = [run(system, "series", 1, us=2000) for system in ("penstock", "kafka-synced", "limit")]
    judged = judge(Summary(results([series], runs)))
    assert state(judged, "series: p99 of Kafka synced") == "not reached: 1.00 instead of below 1.00"
    assert state(judged, "series: p99 of the ceiling") == "reached: 1.00"


def test_a_skipped_system_is_the_reason() -> None:
    whole = results([BATCH], [run("penstock", "batch-64k", 1)])
    whole.skipped["kafka-synced"] = "no Java"
    judged = judge(Summary(whole))
    assert (
        state(judged, "batch-64k: bytes/s of Kafka synced at its best size") == "not measured: kafka-synced was skipped"
    )


def test_the_cpu_of_many_partitions_is_compared_with_that_of_few() -> None:
    both = [workload(f"partitions-{count}", "open_loop", rate=2000) for count in (10, 1000)]
    runs = [run("penstock", "partitions-10", 1, cpu_s=2), run("penstock", "partitions-1000", 1, cpu_s=4)]
    judged = judge(Summary(results(both, runs)))
    assert state(judged, "CPU of all nodes, of that with 10 partitions").startswith("not reached: 2.00 instead")


def test_aims_are_about_workloads_that_there_are() -> None:
    known = {workload.name for workload in workloads(short=True)}
    parts = [part for row in AIMS.values() for part in row]
    assert {figure[1] for part in parts for figure in (part.figure, *part.under)} <= known


@pytest.mark.parametrize(("change", "expected"), [(0.04, "reached"), (-0.06, "not reached"), (0.2, "not reached")])
def test_memory_is_flat_or_not(change: float, expected: str) -> None:
    process = {"rss_anon": {"change": change}}
    soak = {"summary": {"seconds": 3600, "processes": {"node-1": process, "client": process}}}
    judged = judge(Summary(results([], [])), soak)
    assert [entry.state for entry in judged if entry.work.startswith("memory")] == [expected]


def test_a_short_soak_says_nothing() -> None:
    soak = {"summary": {"seconds": 600, "processes": {}}}
    judged = judge(Summary(results([], [])), soak)
    assert judged[-1].text == "not measured: it took 10 minutes, not an hour"


def test_cells_and_tables() -> None:
    assert [number(value) for value in (1234567.8, 123.44, 1.234, 0.01234)] == ["1,234,568", "123.4", "1.23", "0.012"]
    assert cell(None) == "-"
    assert cell(Spread(2, 1, 3, 3)) == "2.00 (1.00 to 3.00)"
    table = Table("Title", "A note.", ["a", "long"], [["wide", "1"]])
    assert table.text() == "Title\nA note.\n\na     long\nwide  1"
    assert table.markdown() == "### Title\n\nA note.\n\n| a | long |\n| --- | ---: |\n| wide | 1 |"
    assert aims(judge(Summary(results([], [])))).rows


def test_a_document_takes_the_report_between_its_marks(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    runs = [run(system, name, 1) for system in ("penstock", "limit") for name in ("batch-64k", "open-5k")]
    summary = Summary(results([BATCH, OPEN], runs))
    files = report.write_into(document, summary)
    written = document.read_text()
    assert written.startswith(f"before\n{report.BEGIN}\n")
    assert written.endswith(f"{report.END}\nafter\n")
    assert "old" not in written
    assert "| batch-64k | 1,000 | 1,000 |" in written
    assert [file.name for file in files[1:]] == ["throughput.svg", "latency.svg", "ceiling.svg"]
    assert all(f"](performance/{file.name})" in written and file.stat().st_size for file in files[1:])
    drawn = [file.read_bytes() for file in files]
    report.write_into(document, summary)
    assert [file.read_bytes() for file in files] == drawn  # the same results, the same report


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("nothing")
    with pytest.raises(report.ReportError, match="once each"):
        report.write_into(document, Summary(results([], [])))
    assert document.read_text() == "nothing"


def test_files_become_one_and_their_repeats_are_no_pairs(tmp_path: Path) -> None:
    first = results([BATCH], [run("penstock", "batch-64k", n) for n in (1, 2)])
    second = results([BATCH, OPEN], [run("limit", "batch-64k", 1), run("penstock", "open-5k", 1)])
    first.skipped = {"limit": "it was broken", "kafka": "no Java"}
    for name, content in (("a.json", first), ("b.json", second)):
        content.save(tmp_path / name)
    whole = archive.merge([archive.load(tmp_path / name) for name in ("a.json", "b.json")])
    assert [(r.system, r.workload, r.repeat) for r in whole.runs] == [
        ("penstock", "batch-64k", 1),
        ("penstock", "batch-64k", 2),
        ("limit", "batch-64k", 3),
        ("penstock", "open-5k", 3),
    ]
    assert whole.skipped == {"kafka": "no Java"}
    assert [workload.name for workload in whole.workloads] == ["batch-64k", "open-5k"]
    ratio = Summary(whole).ratio(("penstock", "batch-64k", "mb_s"), ("limit", "batch-64k", "mb_s"))
    assert ratio is None
    assert first.runs[0].repeat == 1


def test_what_cannot_be_one_is_refused() -> None:
    with pytest.raises(ArchiveError, match="batch-64k"):
        archive.merge([results([BATCH], []), results([workload("batch-64k")], [])])
    other = results([], [])
    other.machine = {**other.machine, "cores": 64}
    with pytest.raises(ArchiveError, match="machines"):
        archive.merge([results([], []), other])


def test_the_program_reports_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    results([BATCH], [run("penstock", "batch-64k", 1)]).save(file)
    assert main(["report", str(file)]) == 0
    assert "batch-64k  1,000" in capsys.readouterr().out
    assert main(["report", str(file), "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["report.txt", "throughput.png", "throughput.svg"]
    file.write_text(json.dumps({"schema": 99}))
    assert main(["report", str(file)]) == 2
    assert "schema 99" in capsys.readouterr().err


def test_the_program_refuses_what_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--systems", "penstock,fastest", "--out", str(tmp_path)]) == 2
    assert "there is no system fastest" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "small-rf3-all: throughput" in capsys.readouterr().out
