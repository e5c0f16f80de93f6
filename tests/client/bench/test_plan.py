"""Plans: what fits together, shares that make the whole, due times, and which record is which."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.bench.payload import STAMP_BYTES, due_ns_of, make_keys, make_values, stamp
from penstock.client.bench.plan import MIN_STAMPED_BYTES, NS, Phase, Plan, PlanError, Schedule, Spread
from penstock.client.partitioner import partition_of_key

PLAN = Plan("t", partitions=3, record_bytes=100, phase=Phase(seconds=10))


def shares(plan: Plan) -> list[Plan]:
    return [plan.share(number) for number in range(plan.producers)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"phase": Phase()}, "a duration or a number"),
        ({"phase": Phase(1, 1)}, "not both"),
        ({"phase": Phase(records=2), "producers": 3}, "3 producers cannot share 2 records"),
        ({"run_id": "00" * 8, "record_bytes": MIN_STAMPED_BYTES - 1}, "at least 16 bytes"),
        ({"options": {"buffer_bytes": 1024}}, "does not hold a record"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], told: str) -> None:
    PLAN.check()
    with pytest.raises(PlanError, match=told):
        replace(PLAN, **change).check()  # type: ignore[arg-type]  # the fields of the case


@given(st.integers(1, 9), st.integers(9, 10_000))
def test_shares_of_a_number_of_records_are_the_whole(producers: int, records: int) -> None:
    plan = replace(PLAN, producers=producers, phase=Phase(records=records))
    assert sum(share.phase.records or 0 for share in shares(plan)) == records


@given(st.integers(1, 9), st.floats(0.01, 5000), st.floats(0.1, 60))
def test_shares_of_a_duration_at_a_rate_are_the_whole(producers: int, rate: float, seconds: float) -> None:
    plan = replace(PLAN, producers=producers, rate=rate, phase=Phase(seconds))
    due = [share.due_records(plan.phase) for share in shares(plan)]
    assert sum(due) == pytest.approx(max(1, rate * seconds), abs=1)
    assert max(due) - min(due) <= 1


def test_producers_take_turns() -> None:
    plan = replace(PLAN, producers=4, rate=1000.0)
    due = sorted(share.schedule(5 * NS).due_ns(index) for share in shares(plan) for index in range(3))
    assert due == [5 * NS + number * NS // 1000 for number in range(12)]


def test_a_plan_goes_to_another_process_and_back() -> None:
    plan = replace(PLAN, rate=0.5, options={"acks": "leader", "linger_ms": 1.5}, run_id="ab" * 8)
    assert Plan.from_json(plan.to_json()) == plan


@given(st.integers(0, 10**15), st.floats(0.01, 1e6), st.integers(0, 10_000))
def test_a_record_is_due_from_its_due_time_on(start_ns: int, rate: float, index: int) -> None:
    schedule = Schedule(start_ns, rate)
    due_ns = schedule.due_ns(index)
    assert schedule.due(start_ns - 1) == 0
    assert schedule.due(due_ns + 1) >= index + 1  # to the nanosecond below
    assert index == 0 or schedule.due(due_ns - 1) <= index


def test_records_of_a_partition_are_known_by_their_order() -> None:
    keys = make_keys(7)
    for spread, partition_of in (
        (Spread(3, first=2), lambda index: (2 + index) % 3),
        (Spread(3, keys), lambda index: partition_of_key(keys[index % 7], 3)),
    ):
        for partition in range(3):
            expected = [index for index in range(100) if partition_of(index) == partition]
            assert expected, "each partition should have some"
            assert list(spread.indexes(partition, 0, 4)) == expected[:4]
            assert list(spread.indexes(partition, 4, 9)) == expected[4:13]


def test_a_stamp_tells_run_and_due_time() -> None:
    assert STAMP_BYTES == MIN_STAMPED_BYTES
    ours, others = b"12345678", b"87654321"
    value = stamp(ours, 77) + b"rest"
    assert (due_ns_of(value, ours), due_ns_of(value, others), due_ns_of(ours, ours)) == (77, None, None)
    assert due_ns_of(stamp(ours, 77), ours) == 77


@pytest.mark.parametrize("compressible", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100, 3_000_000])
def test_values_have_the_size_asked_for_and_are_the_same_each_time(size: int, compressible: bool) -> None:
    values = make_values(size, compressible=compressible, seed=3)
    assert {len(value) for value in values} == {size}
    assert values == make_values(size, compressible=compressible, seed=3)
    if size == 100:
        assert len(set(values)) > 1000
