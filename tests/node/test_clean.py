"""Rule 9: below durability `commit` only an orderly stop keeps a node's places."""

from pathlib import Path

import pytest

from penstock.node.clean import CleanMark

FIRST, SECOND, THIRD = (bytes([number]) * 16 for number in (1, 2, 3))


def test_rule_9_at_commit_every_end_is_clean(tmp_path: Path) -> None:
    assert CleanMark(tmp_path, "commit", (FIRST,)).all_clean


@pytest.mark.parametrize("durability", ["interval", "os"])
def test_rule_9_below_commit_an_orderly_stop_is_clean_once(tmp_path: Path, durability: str) -> None:
    first = CleanMark(tmp_path, durability, ())
    assert first.all_clean  # nothing was ever appended
    first.record(FIRST)
    assert CleanMark(tmp_path, durability, (FIRST,)).all_clean
    assert not CleanMark(tmp_path, durability, (FIRST, SECOND)).all_clean  # the second start left no mark


@pytest.mark.parametrize("durability", ["interval", "os"])
def test_rule_9_an_unclean_end_counts_until_it_was_told(tmp_path: Path, durability: str) -> None:
    untold = CleanMark(tmp_path, durability, (FIRST,))
    assert not untold.all_clean
    untold.record(SECOND)  # ends in order, yet never registered: the first start's end is still to be told
    told = CleanMark(tmp_path, durability, (FIRST, SECOND))
    before = told.all_clean
    told.registered()
    assert (before, told.all_clean) == (False, True)
    told.record(THIRD)
    assert CleanMark(tmp_path, durability, (THIRD,)).all_clean


def test_rule_9_the_mark_of_another_start_means_nothing(tmp_path: Path) -> None:
    CleanMark(tmp_path, "os", ()).record(FIRST)
    assert not CleanMark(tmp_path, "os", (FIRST, SECOND)).all_clean
