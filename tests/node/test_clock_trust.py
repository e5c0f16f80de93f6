"""When a node's wall clock may be trusted to drop records by time (rule 30)."""

import pytest

from penstock.node.clock_trust import SETTLE_MS, TOLERANCE_MS, ClockTrust

WALL = 1_700_000_000_000
STEP_MS = 200


class Clocks:
    """A node's two clocks and what the controller says of the others', in virtual time."""

    def __init__(self, *, told: bool = True) -> None:
        self.trust = ClockTrust()
        self.now_ms = 5_000
        self.ahead_ms = 0
        """Of this node's wall clock."""
        self.cluster_ahead_ms = 0
        self.told = told
        self.changes: list[bool] = []
        self.run(STEP_MS)

    def run(self, duration_ms: int, step_ms: int = STEP_MS) -> None:
        for _ in range(duration_ms // step_ms):
            self.now_ms += step_ms
            if self.told:
                self.trust.heard(WALL + self.now_ms + self.cluster_ahead_ms, self.now_ms)
            if self.trust.observe(WALL + self.now_ms + self.ahead_ms, self.now_ms):
                self.changes.append(self.trust.trusted)


def test_rule_30_clocks_that_agree_are_trusted_once_the_others_were_heard() -> None:
    assert not ClockTrust().trusted
    clocks = Clocks()
    assert clocks.trust.trusted
    clocks.run(10 * SETTLE_MS, 1_000)
    assert clocks.changes == [True]


@pytest.mark.parametrize("jump_ms", [TOLERANCE_MS + 1, -TOLERANCE_MS - 1, 365 * 86_400_000])
def test_rule_30_a_jump_is_noticed_at_once_and_its_end_too(jump_ms: int) -> None:
    clocks = Clocks()
    clocks.ahead_ms = jump_ms
    clocks.run(STEP_MS)
    assert not clocks.trust.trusted
    clocks.run(2 * SETTLE_MS, 1_000)
    assert not clocks.trust.trusted
    clocks.ahead_ms = 0
    clocks.run(STEP_MS)
    assert clocks.changes == [True, False, True]


def test_rule_30_small_corrections_are_no_disagreement() -> None:
    clocks = Clocks()
    for ahead_ms in (500, -20_000, TOLERANCE_MS, 0):
        clocks.ahead_ms = ahead_ms
        clocks.run(60_000, 1_000)
    assert clocks.changes == [True]


def test_rule_30_a_clock_that_was_wrong_from_the_start_is_told_by_the_others() -> None:
    clocks = Clocks()
    clocks.cluster_ahead_ms = 2 * TOLERANCE_MS
    clocks.run(SETTLE_MS * 3, 1_000)
    assert not clocks.trust.trusted


def test_rule_30_a_clock_that_was_set_right_is_trusted_after_it_went_well_for_a_while() -> None:
    clocks = Clocks()
    clocks.cluster_ahead_ms = 3_600_000
    clocks.run(10_000)
    clocks.ahead_ms = 3_600_000
    clocks.run(SETTLE_MS - 1_000, 1_000)
    assert not clocks.trust.trusted
    clocks.run(5_000, 1_000)
    assert clocks.changes == [True, False, True]


def test_rule_30_while_it_is_set_again_and_again_it_is_not_trusted() -> None:
    clocks = Clocks()
    clocks.ahead_ms = 3_600_000
    for _ in range(8):
        clocks.ahead_ms += TOLERANCE_MS + 1
        clocks.cluster_ahead_ms = clocks.ahead_ms
        clocks.run(SETTLE_MS // 2, 1_000)
        assert not clocks.trust.trusted


def test_rule_30_a_machine_that_slept_waits_for_the_others_word() -> None:
    """Monotonic time stood still: what was heard before says nothing of the present wall time."""
    clocks = Clocks()
    clocks.told = False
    clocks.ahead_ms = 3_600_000
    clocks.run(2 * SETTLE_MS, 1_000)
    assert clocks.changes == [True, False]
    clocks.told, clocks.cluster_ahead_ms = True, 3_600_000
    clocks.run(SETTLE_MS + 2_000, 1_000)
    assert clocks.changes == [True, False, True]


def test_a_controller_that_does_not_tell_leaves_the_monotonic_clock() -> None:
    clocks = Clocks(told=False)
    clocks.trust.heard(0, clocks.now_ms)
    clocks.run(TOLERANCE_MS - STEP_MS)
    assert clocks.changes == []
    clocks.run(STEP_MS)
    assert clocks.changes == [True]
    clocks.ahead_ms = 3_600_000
    clocks.run(STEP_MS)
    assert clocks.changes == [True, False]
    clocks.run(SETTLE_MS + STEP_MS)
    assert clocks.changes == [True, False, True]
