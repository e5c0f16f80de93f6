"""The measures of hand-made histories, computed by hand."""

from pathlib import Path

import pytest

from penstock.chaos.history import entries
from penstock.chaos.measure import Aim, FaultMeasure, Measures, measure
from tests.chaos.histories import Script


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "history.jsonl")


def measured(script: Script) -> Measures:
    return measure(entries(script.done()))


def only_fault(script: Script) -> FaultMeasure:
    (fault,) = measured(script).faults
    return fault


def aim(found: Measures, name: str) -> Aim:
    return next(each for each in found.aims if name in each.name)


def test_an_empty_history_has_no_share_and_no_aim_that_is_met_or_missed(script: Script) -> None:
    found = measured(script)
    assert found.records.share is None
    assert [each.met for each in found.aims] == [None, None, None]


def test_share_counts_unknown_failed_and_never_completed_writes_but_no_refusals(script: Script) -> None:
    for index in range(6):
        script.write(index)
    script.write(6, kind="info", error="OUTCOME_UNKNOWN")
    script.write(7, kind="fail", error="NOT_ENOUGH_REPLICAS")
    script.write(8, took=None)
    script.write(9, kind="fail", f="append", error="EXPECTED_OFFSET_MISMATCH")
    found = measured(script).records
    assert (found.acked, found.failed, found.unknown, found.refused) == (6, 1, 2, 1)
    assert found.share == 6 / 9


def test_share_of_metadata_and_of_hosts_stand_apart(script: Script) -> None:
    script.write(0, host="c1")
    script.write(1, host="c2")
    script.write(2, host="c2", kind="info")
    script.write(3, host="c1", f="create_topic", kind="info")
    found = measured(script)
    assert found.metadata.share == 0
    assert {host: share.share for host, share in found.hosts.items()} == {"c1": 1.0, "c2": 0.5}
    assert set(found.by_f) == {"send", "create_topic"}


@pytest.mark.parametrize(
    ("f", "error", "refused"),
    [
        ("create_topic", "TOPIC_EXISTS", True),
        ("add_partitions", "INVALID_ARGUMENT", True),
        ("send", "INVALID_ARGUMENT", False),
        ("send", "EXPECTED_OFFSET_MISMATCH", False),
        ("send", "ClientClosedError", True),
        ("send", "UNKNOWN_TOPIC", False),
        ("send", "NOT_LEADER", False),
    ],
)
def test_refusals_are_those_that_a_healthy_cluster_gives(script: Script, f: str, error: str, refused: bool) -> None:
    script.write(0, kind="fail", f=f, error=error)
    (share,) = measured(script).by_f.values()
    assert share.refused == refused
    assert share.failed == (not refused)


def test_unknown_topic_is_a_refusal_only_of_a_topic_whose_deletion_had_begun(script: Script) -> None:
    script.write(0, topic="a", kind="fail", error="UNKNOWN_TOPIC")
    script.write(1, topic="a", f="delete_topic", took=None)
    script.write(2, topic="a", kind="fail", error="UNKNOWN_TOPIC")
    script.write(3, topic="b", kind="fail", error="UNKNOWN_TOPIC")
    script.write(4, topic="a", f="create_topic")
    script.write(5, topic="a", kind="fail", error="UNKNOWN_TOPIC")
    found = measured(script).by_f["send"]
    assert (found.failed, found.refused) == (3, 1)


def test_series_count_by_second_of_completion_and_give_latency_percentiles(script: Script) -> None:
    for index in range(100):
        script.write(0.0, took=(index + 1) / 1000)
    script.write(0.95, took=0.1)
    script.write(1.5, kind="info")
    script.write(2.5, took=None)
    script.write(2.6, kind="fail", f="append", error="NOT_LEADER")
    script.poll(2.7, records=3)
    script.poll(2.8, records=4)
    script.poll(2.9, records=500, final=True)
    script.recorder.failed_read("c1/read1.0", "poll", error="LogDamagedError", message="a gap")
    found = measured(script).series
    assert found.bin_s == 1.0
    assert found.acked["all"] == [100, 1, 0]
    assert found.acked["send"] == [100, 1, 0]
    assert found.unknown == {"all": [0, 1, 1], "send": [0, 1, 1]}
    assert found.failed == {"all": [0, 0, 1], "append": [0, 0, 1]}
    assert (found.p50_ms, found.p99_ms, found.max_ms) == ([50, 100, None], [99, 100, None], [100, 100, None])
    assert found.records_read == [0, 0, 7]


def test_series_of_a_long_run_have_wider_bins_and_lose_nothing(script: Script) -> None:
    script.load(0, 3000, every=0.5)
    found = measured(script).series
    assert found.bin_s == 3.0
    assert found.acked["all"] == [6] * 1000


def test_operations_of_the_first_seconds_after_an_injection_are_not_judged(script: Script) -> None:
    script.load(0, 30)
    script.injected(30)
    script.load(30, 35, kind="info")  # 50, within the five seconds
    script.load(35, 40, kind="ok")  # 50
    script.load(40, 41, kind="info")  # 10
    script.healed(41)
    script.load(41, 60)
    fault = only_fault(script)
    judged = fault.availability.judged
    assert (judged.acked, judged.unknown) == (50, 10)
    assert fault.availability.met is False


def test_the_grace_begins_when_the_injection_is_complete(script: Script) -> None:
    script.fault(30, "inject")
    script.load(30, 33, kind="info")
    script.fault(33, "injected", nodes=[1], majority=True, cut_hosts=[])
    script.load(33, 38, kind="info")
    script.load(38, 48)
    script.healed(48)
    judged = only_fault(script).availability.judged
    assert (judged.acked, judged.unknown) == (100, 0)


def test_without_a_majority_nothing_is_judged_until_five_seconds_after_the_heal(script: Script) -> None:
    script.load(0, 30)
    script.injected(30, majority=False, nodes=[1, 2, 3])
    script.load(30, 50, kind="info")
    script.healed(50)
    script.load(50, 55, kind="info")
    script.load(55, 60)
    found = measured(script)
    assert found.faults[0].availability.judged.asked == 0
    assert found.faults[0].availability.note == "no majority"
    assert (found.judged.acked, found.judged.unknown) == (350, 0)


def test_hosts_that_were_cut_off_are_not_judged(script: Script) -> None:
    script.injected(10, cut_hosts=["c2"], nodes=[])
    for at in range(20, 40):
        script.write(at + 0.1, host="c1")
        script.write(at + 0.3, host="c2", kind="info")
    script.healed(40)
    script.load(40, 45, host="c2", kind="info")
    script.load(45, 46, host="c2", kind="info")
    found = measured(script)
    assert (found.faults[0].availability.judged.acked, found.faults[0].availability.judged.unknown) == (20, 0)
    assert found.faults[0].availability.met is True
    assert found.judged.unknown == 10


def test_a_fault_that_loses_the_majority_to_a_later_one_is_judged_until_then(script: Script) -> None:
    script.injected(0, number=1, nodes=[1])
    script.load(5, 10)  # 50, judged
    script.injected(10, number=2, nodes=[2], majority=False)
    script.fault(10, "injected", number=1, nodes=[1], majority=False, cut_hosts=[])
    script.load(10, 20, kind="info")
    script.healed(20, number=2)
    script.load(25, 30, kind="info")  # the first one still counts as without
    script.healed(30, number=1)
    script.load(35, 40)
    found = measured(script)
    assert [fault.availability.judged.asked for fault in found.faults] == [50, 0]
    assert (found.judged.acked, found.judged.unknown) == (100, 0)
    assert [fault.fault.injected for fault in found.faults] == [0, 10]


def test_a_fault_that_failed_or_was_skipped_is_listed_with_its_reason(script: Script) -> None:
    script.fault(1, "skipped", number=1, fault="power-loss", detail="needs root")
    script.fault(2, "inject", number=2)
    script.fault(3, "failed", number=2, detail="node 1 does not run")
    script.injected(4, number=3)
    skipped, failed, still_there = measured(script).faults
    assert (skipped.fault.status, skipped.fault.detail, skipped.availability.note) == (
        "skipped",
        "needs root",
        "not injected",
    )
    assert (failed.fault.status, failed.fault.detail, failed.fault.healed) == ("failed", "node 1 does not run", 3)
    assert (still_there.fault.status, still_there.to_json()["healed"]) == ("open", None)


def test_a_fault_tells_what_it_did_and_whether_it_hit(script: Script) -> None:
    script.injected(1, nodes=[2, 3], detail="2 and 3 killed")
    script.healed(5.5, hit=False, evidence="0 of 2 were running")
    fault = only_fault(script).fault
    assert (fault.nodes, fault.detail, fault.hit, fault.evidence) == (
        (2, 3),
        "2 and 3 killed",
        False,
        "0 of 2 were running",
    )
    assert (fault.inject, fault.healed, fault.params) == (1, 5.5, {"who": "leader"})


def with_dip(script: Script, back: float, until: float = 90, during: str = "info") -> None:
    """Ten writes a second; a fault from 40 to 60; acknowledged again from `back` on."""
    script.load(0, 40)
    script.injected(40)
    script.load(40, 60, kind=during)
    script.healed(60)
    script.load(60, back, kind="info")
    script.load(back, until)


def test_recovery_is_the_first_second_from_which_throughput_is_back(script: Script) -> None:
    with_dip(script, back=67)
    found = measured(script)
    recovery = found.faults[0].recovery
    assert (recovery.before, recovery.seconds, recovery.after, recovery.met) == (10, 7.0, 10, True)
    assert aim(found, "back").measured == 7.0
    assert aim(found, "back").met is True


def test_recovery_that_takes_too_long_misses_the_aim(script: Script) -> None:
    with_dip(script, back=72)
    found = measured(script)
    assert found.faults[0].recovery.seconds == 12.0
    assert aim(found, "back").met is False


def test_recovery_never_seen_misses_the_aim(script: Script) -> None:
    with_dip(script, back=90)
    found = measured(script)
    assert (found.faults[0].recovery.seconds, found.faults[0].recovery.met) == (None, False)
    assert (aim(found, "back").measured, aim(found, "back").met) == (None, False)
    assert "not within 30 s" in aim(found, "back").detail


def test_a_short_burst_is_no_recovery(script: Script) -> None:
    script.load(0, 40)
    script.injected(40)
    script.healed(60)
    script.load(60, 61, every=0.01)  # what had piled up
    script.load(61, 68, kind="info")
    script.load(68, 100)
    assert only_fault(script).recovery.seconds == 8.0


def test_throughput_that_falls_again_has_not_recovered(script: Script) -> None:
    script.load(0, 40)
    script.injected(40)
    script.healed(60)
    script.load(60, 66)
    script.load(66, 95, every=0.2)
    recovery = only_fault(script).recovery
    assert (recovery.seconds, recovery.met, recovery.after) == (None, False, 5)


def test_recovery_is_not_measured_where_the_load_ended_too_early(script: Script) -> None:
    with_dip(script, back=63, until=66)
    recovery = only_fault(script).recovery
    assert (recovery.seconds, recovery.met) == (None, None)
    assert recovery.note.startswith("not seen within the 5.9 s")


def test_a_write_that_hangs_when_the_load_ends_does_not_prolong_it(script: Script) -> None:
    with_dip(script, back=63, until=75)
    script.write(75, took=30, kind="info")
    recovery = only_fault(script).recovery
    assert (recovery.seconds, recovery.after) == (3.0, 10)


def test_the_load_ends_with_its_phase(script: Script) -> None:
    with_dip(script, back=62, until=62)
    script.time = 85
    script.recorder.note("runner", "phase", name="stopping")
    assert only_fault(script).recovery.note == "not within 25 s"


def test_making_the_topics_is_no_load(script: Script) -> None:
    script.write(0, f="create_topic")
    script.load(30, 40)
    script.injected(40)
    script.healed(50)
    script.load(50, 80)
    found = measured(script)
    assert found.load[0] == 30
    assert found.faults[0].recovery.before == 10


def test_recovery_is_not_measured_without_undisturbed_seconds_before(script: Script) -> None:
    script.load(0, 4)
    script.injected(4)
    script.healed(20)
    script.load(20, 60)
    recovery = only_fault(script).recovery
    assert (recovery.met, recovery.note) == (None, "fewer than 5 undisturbed seconds before it")


def test_seconds_of_an_earlier_fault_and_its_recovery_are_no_baseline(script: Script) -> None:
    script.load(0, 20)
    script.injected(20, number=1)
    script.load(20, 30, kind="info")
    script.healed(30, number=1)
    script.load(30, 33, kind="info")
    script.load(33, 40, every=0.05)  # 20 a second: the seven undisturbed seconds before the second fault
    script.injected(40, number=2)
    script.load(40, 50, kind="info")
    script.healed(50, number=2)
    script.load(50, 90, every=0.05)
    first, second = measured(script).faults
    assert (first.recovery.before, first.recovery.seconds) == (10, 3.0)
    assert (second.recovery.before, second.recovery.seconds) == (20, 0.0)


def test_overlapping_faults_are_one_disturbance(script: Script) -> None:
    script.load(0, 40)
    script.injected(40, number=1)
    script.load(40, 45, kind="info")
    script.injected(45, number=2)
    script.load(45, 50, kind="info")
    script.healed(50, number=1)
    script.load(50, 60, kind="info")
    script.healed(60, number=2)
    script.load(60, 62, kind="info")
    script.load(62, 90)
    first, second = measured(script).faults
    assert first.recovery == second.recovery
    assert (first.recovery.before, first.recovery.seconds) == (10, 2.0)


def test_a_fault_within_another_does_not_end_the_disturbance(script: Script) -> None:
    script.load(0, 40)
    script.injected(40, number=1)
    script.injected(45, number=2)
    script.healed(50, number=2)
    script.healed(60, number=1)
    script.load(60, 63, kind="info")
    script.load(63, 90)
    first, second = measured(script).faults
    assert (first.recovery.seconds, second.recovery.seconds) == (3.0, 3.0)


def test_a_recovery_never_seen_is_the_slowest_and_ten_seconds_after_it_things_count_as_settled(script: Script) -> None:
    script.load(0, 20)
    script.injected(20, number=1)
    script.healed(30, number=1)
    script.load(30, 40, kind="info")
    script.load(40, 46, every=0.125)  # eight a second, of ten
    script.injected(46, number=2)
    script.healed(56, number=2)
    script.load(56, 58, kind="info")
    script.load(58, 90)
    found = measured(script)
    first, second = found.faults
    assert (first.recovery.seconds, first.recovery.met) == (None, False)
    assert (second.recovery.before, second.recovery.seconds) == (8, 2.0)
    assert (aim(found, "back").measured, aim(found, "back").met) == (None, False)


def test_while_an_injection_that_fails_is_under_way_nothing_is_judged(script: Script) -> None:
    script.fault(10, "inject")
    script.load(10, 20, kind="info")
    script.fault(20, "failed", detail="no such node")
    script.load(20, 25, kind="info")
    script.load(25, 30)
    found = measured(script)
    assert (found.judged.acked, found.judged.unknown) == (50, 0)
    assert found.faults[0].availability.note == "injection failed"


def test_aims_name_the_worst_fault(script: Script) -> None:
    script.injected(0, number=1, fault="kill")
    script.load(10, 20)
    script.healed(20, number=1)
    script.injected(30, number=2)
    script.load(40, 48)
    script.load(48, 50, kind="info")
    script.healed(50, number=2)
    found = measured(script)
    assert (aim(found, "worst").measured, aim(found, "worst").met) == (0.8, False)
    assert aim(found, "worst").detail == "fault 2, kill"
    assert (aim(found, "majority").measured, aim(found, "majority").met) == (0.9, True)
