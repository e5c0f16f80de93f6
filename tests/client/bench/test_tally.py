"""Tallies: each record counted once, sums, and the way to another process."""

import json

from penstock.client.bench.histogram import Histogram
from penstock.client.bench.tally import Tally
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason

FULL = make_error(Reason.STORE_FULL, "full", {})
LOST = make_error(Reason.OUTCOME_UNKNOWN, "lost", {})


def one(first_ns: int, last_ns: int, *latencies: int) -> Tally:
    done = len(latencies)
    tally = Tally(sent=done + 5, done=done, bytes=10 * done, first_ns=first_ns, last_ns=last_ns)
    for us in latencies:
        tally.latency.record(us)
    tally.fail(FULL, 3)
    tally.fail(LOST, 1)
    return tally


def test_failures_are_counted_by_reason_and_unknown_ones_apart() -> None:
    tally = one(1, 2)
    tally.fail(FULL, 0)
    assert (tally.failures, tally.failed, tally.unknown, tally.missing) == ({"STORE_FULL": 3}, 3, 1, 1)


def test_a_sum_has_everything_from_the_first_beginning_to_the_last_end() -> None:
    total = Tally()
    for part in (Tally(), one(3_000_000_000, 5_000_000_000, 100), one(2_000_000_000, 4_000_000_000, 200, 300)):
        total.add(part)
    assert (total.sent, total.done, total.bytes, total.failed, total.unknown) == (13, 3, 30, 6, 2)
    assert (total.first_ns, total.seconds) == (2_000_000_000, 3.0)
    assert total.latency.to_json() == Histogram([(100, 1), (200, 1), (300, 1)]).to_json()


def test_a_tally_goes_to_another_process_and_back() -> None:
    tally = one(1, 2, 17, 400, 70_000)
    again = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert again.to_json() == tally.to_json()
    again.add(tally)
    assert (again.failed, again.latency.count) == (6, 6)


def test_nothing_took_no_time() -> None:
    assert (Tally().seconds, Tally(first_ns=5).seconds) == (0.0, 0.0)
