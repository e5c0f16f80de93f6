"""The histogram: what it keeps exactly, what it may blur, and that parts make the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.bench.histogram import Histogram

DURATIONS = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)


def of(*durations: int) -> Histogram:
    made = Histogram()
    for us in durations:
        made.record(us)
    return made


def test_percentiles_count_records_not_time() -> None:
    histogram = of(*range(1, 101))
    assert [histogram.percentile(percent) for percent in (50.0, 99.0, 99.9)] == [0.050, 0.099, 0.100]
    assert Histogram().percentile(99.0) == 0.0


@pytest.mark.parametrize("count", [1000, 41_000, 82_000])
def test_a_percentile_is_not_moved_by_an_error_of_rounding(count: int) -> None:
    histogram = Histogram()
    histogram.record(1, count * 999 // 1000)
    histogram.record(2, count // 1000)
    assert histogram.percentile(99.9) == 0.001


@given(DURATIONS)
def test_error_is_below_one_percent_and_the_maximum_exact(durations: list[int]) -> None:
    histogram = of(*durations)
    assert histogram.percentile(100.0) == histogram.max_us / 1000 == max(durations) / 1000
    median = sorted(durations)[(len(durations) - 1) // 2]
    assert median <= round(histogram.percentile(50.0) * 1000) <= median * 1.01


@given(DURATIONS, DURATIONS)
def test_merged_parts_are_the_whole_also_by_way_of_json(some: list[int], others: list[int]) -> None:
    merged, whole = of(*some), of(*some, *others)
    merged.merge(Histogram(of(*others).to_json()))
    assert merged.to_json() == whole.to_json()
    assert (merged.count, merged.max_us) == (whole.count, whole.max_us)


@given(DURATIONS)
def test_powers_hold_what_is_below_them_and_not_below_half(durations: list[int]) -> None:
    rows = of(*durations).powers()
    bounds = [bound for bound, _ in rows]
    assert bounds == [bounds[0] << step for step in range(len(bounds))]
    for bound, count in rows:
        assert count == sum((bound // 2 if bound > 1 else 0) <= us < bound for us in durations)


def test_powers_of_nothing() -> None:
    assert Histogram().powers() == []
    assert of(-5).powers() == [(1, 1)]
