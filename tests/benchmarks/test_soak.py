"""The pure parts of the soak: due times, and what samples say."""

import pytest

from benchmarks.soak_load import Schedule
from benchmarks.soak_summary import Sample, lines, summarize


def sample(at_s: float, memory: float) -> Sample:
    usage = {"cpu_s": at_s / 10, "rss": memory * 2, "rss_anon": memory}
    processes = {"node-1": usage, "client": {**usage, "rss_anon": memory * at_s}}
    return {"at_s": at_s, "acknowledged": int(at_s * 100), "p99_ms": 5.0, "max_ms": 9.0, "processes": processes}


def test_each_number_is_due_once_and_what_is_long_overdue_is_left_out() -> None:
    schedule = Schedule(100)
    assert list(schedule.due(0.0)) == [0]
    assert list(schedule.due(0.0)) == []
    assert list(schedule.due(0.035)) == [1, 2, 3]
    assert schedule.skipped == 0
    late = schedule.due(10.0)
    assert (late.start, late.stop) == (901, 1001)
    assert schedule.skipped == 897


@pytest.mark.parametrize(("late", "flat"), [(1.04, True), (1.06, False), (0.94, False)])
def test_the_last_quarter_is_compared_with_the_second(late: float, flat: bool) -> None:
    samples = [sample(10.0 * n, 5e6 if n < 10 else 1e7 * (late if n > 30 else 1)) for n in range(1, 41)]
    summary = summarize(samples)
    node = summary["processes"]["node-1"]
    assert node["rss_anon"]["second_quarter_mb"] == pytest.approx(10)
    assert node["rss_anon"]["change"] == pytest.approx(late - 1)
    assert node["cpu_share"] == pytest.approx(0.1)
    assert summary["records_per_s"] == pytest.approx(100)
    assert summary["flat"] is flat  # the client's memory grows all the time: it is shown and not judged
    assert summary["processes"]["client"]["rss_anon"]["flat"] is False
    assert ("not flat" in lines(summary)[-1]) is not flat


def test_too_few_samples_say_nothing() -> None:
    assert summarize([]) == {}
    assert summarize([sample(10, 1), sample(20, 1)]) == {}
    assert "too short" in lines({})[0]
