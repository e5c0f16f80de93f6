"""What a run gave, as a document and as tables."""

import io
import json
from dataclasses import replace

import pytest

from penstock.client import BrokerUsage
from penstock.client.bench.machine import ProcessUsage
from penstock.client.bench.plan import Phase, Plan
from penstock.client.bench.report import Latency, NodeUse, Report, document, node_uses
from penstock.client.bench.run import Progress
from penstock.client.bench.tally import Tally
from penstock.client.cli.bench_output import ProgressLines, parts, write_histogram
from penstock.client.cli.output import Table
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason

PLAN = Plan("t", 3, 100, Phase(records=1000), rate=500.0, options={"acks": "all", "linger_ms": 1})
NS = 1_000_000_000


def tally(unknown: int = 0) -> Tally:
    made = Tally(sent=1000, done=1000, bytes=100_000, first_ns=NS, last_ns=3 * NS, unknown=unknown)
    for us in range(1, 1001):
        made.latency.record(us * 100)
    return made


def report_of(made: Tally) -> Report:
    latencies = [Latency("due", "acknowledged", made.latency)]
    client = ProcessUsage(2.0, 64 << 20)
    return Report("produce", PLAN, 3, is_fresh=True, tally=made, latencies=latencies, client=client, watched_s=4.0)


def rows(report: Report) -> dict[str, list[str]]:
    """First cell of a row to the others, of all tables."""
    tables = [part for part in parts(report) if isinstance(part, Table)]
    return {str(row[0]): [str(cell) for cell in row[1:]] for table in tables for row in table.rows}


def usage(node_id: int, cpu_time_ms: int | None, uptime_ms: int | None, reason: Reason | None = None) -> BrokerUsage:
    error = None if reason is None else make_error(reason, "no", {})
    return BrokerUsage(node_id, cpu_time_ms, None if cpu_time_ms is None else 7, uptime_ms, error)


def test_the_document_has_the_figures_and_is_json() -> None:
    shown = json.loads(json.dumps(document(report_of(tally()))))
    assert (shown["records"], shown["records_per_s"], shown["bytes_per_s"]) == (1000, 500.0, 50_000.0)
    assert shown["client"] == {"cpu_s": 2.0, "cpus": 0.5, "resident_bytes": 64 << 20}
    assert shown["options"]["rate"] == 500.0
    (latency,) = shown["latencies"]
    assert latency["p50_ms"] == pytest.approx(50, rel=0.01)
    assert latency["p99_9_ms"] == pytest.approx(99.9, rel=0.01)
    assert latency["max_ms"] == 100.0
    assert sum(count for _, count in latency["histogram_us"]) == latency["samples"] == 1000


def test_the_tables_have_them_too() -> None:
    shown = rows(report_of(tally()))
    assert (shown["records"], shown["records/s"], shown["MB/s"]) == (["1,000"], ["500"], ["0.05"])
    assert shown["due to acknowledged"][-1] == "100.00"
    assert shown["client"][:2] == ["2.00", "0.50"]


def test_complete_is_only_what_has_no_failure_of_any_kind() -> None:
    assert report_of(tally()).is_complete
    lost, failed = tally(unknown=1), tally()
    failed.failures["STORE_FULL"] = 2
    for made in (
        report_of(lost),
        report_of(failed),
        replace(report_of(tally()), warmup_failures={"STORE_FULL": 1}),
        replace(report_of(tally()), not_consumed=1),
    ):
        assert not made.is_complete
        assert {"OUTCOME_UNKNOWN", "STORE_FULL", "STORE_FULL in the warm-up", "not consumed"} & rows(made).keys()


def test_a_run_without_any_record_can_be_shown() -> None:
    empty = report_of(Tally())
    assert rows(empty)["due to acknowledged"] == ["0", "None", "None", "None", "None"]
    assert document(empty)["records_per_s"] == 0.0
    file = io.StringIO()
    write_histogram(empty, file)
    assert file.getvalue() == "up_to_us\tsamples\tpercentile\n"


def test_the_histogram_ends_at_all_samples() -> None:
    file = io.StringIO()
    write_histogram(report_of(tally()), file)
    lines = [line.split("\t") for line in file.getvalue().splitlines()[1:]]
    assert sum(int(count) for _, count, _ in lines) == 1000
    assert lines[-1][0::2] == ["100000", "100.00000"]


def test_what_a_node_used_is_told_only_where_it_is_known() -> None:
    before = [usage(1, 500, 1000), usage(3, 500, 1000), usage(5, 100, 100)]
    after = [
        usage(1, 1500, 3000),
        usage(2, 400, 3000),
        usage(3, 200, 900),
        usage(4, None, None, Reason.UNSUPPORTED),
        usage(5, None, None, Reason.NOT_SERVING),
    ]
    assert node_uses(before, after, 2.0) == [
        NodeUse(1, 1.0, 0.5, 7),
        NodeUse(2, None, None, 7, "was unreachable at the beginning"),
        NodeUse(3, None, None, 7, "was started anew"),
        NodeUse(4, None, None, None, "unknown: an older version"),
        NodeUse(5, None, None, None, "unreachable"),
    ]


def test_progress_is_of_the_last_second_and_for_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        Progress("warm-up", 1.0, Tally(done=500, bytes=10**6)),
        Progress("measuring", 1.0, Tally(done=700, bytes=10**6)),
        Progress("measuring", 2.0, Tally(done=1700, bytes=5 * 10**6, unknown=3)),
    ]
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda shown=is_terminal: shown)
        lines = ProgressLines()
        for step in steps:
            lines(step)
        told = capsys.readouterr().err.splitlines()
        assert len(told) == (3 if is_terminal else 0)
    assert [line.split()[3] for line in told] == ["500", "700", "1,000"]
    assert "4.0 MB/s" in told[2]
    assert told[2].endswith("3 failed")
