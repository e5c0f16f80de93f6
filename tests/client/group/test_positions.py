"""What was handed out, asked past and committed: auto-commit never goes beyond what the application has asked past."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.client.group.positions import Positions
from penstock.client.records import CommitPoint
from tests.client.group.talk import partition

P0, P1 = partition(0), partition(1)


def test_what_is_handed_out_is_committed_by_itself_only_once_it_is_asked_past() -> None:
    positions = Positions()
    positions.add(P0, 10)
    assert positions.asked_past() == {}
    positions.hand_out(P0, 15, 3)
    assert positions.asked_past() == {}
    assert positions.handed_out() == {P0: CommitPoint(15, 3)}
    assert positions.is_in_hand(P0)
    positions.ask()
    assert positions.asked_past() == {P0: CommitPoint(15, 3)}
    assert not positions.is_in_hand(P0)
    positions.committed(P0, 15)
    assert positions.asked_past() == positions.handed_out() == {}


def test_a_beginning_that_is_not_settled_is_to_be_committed() -> None:
    positions = Positions()
    positions.add(P0, 10, is_settled=False)
    assert positions.asked_past() == positions.unsettled([P0]) == {P0: CommitPoint(10)}
    positions.committed(P0, 10)
    assert positions.asked_past() == positions.unsettled([P0]) == {}


def test_of_a_beginning_that_is_not_settled_no_more_than_that_is_committed_without_a_word() -> None:
    """Who commits for himself may have asked past what he is not done with."""
    positions = Positions()
    positions.add(P0, 10, is_settled=False)
    positions.hand_out(P0, 15, 1)
    positions.ask()
    assert positions.unsettled() == {P0: CommitPoint(10)}
    positions.overrule([P0])  # commit() of the application's own, which is under way
    assert positions.unsettled() == {}


def test_an_older_acknowledgement_settles_nothing_newer() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 5, 1)
    positions.ask()
    positions.hand_out(P0, 9, 1)
    positions.ask()
    positions.committed(P0, 5)
    assert positions.asked_past() == {P0: CommitPoint(9, 1)}


def test_what_the_application_committed_is_not_taken_back_by_itself() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 30, 1)
    positions.committed(P0, 30)  # commit() of what is in hand; nothing was asked past
    assert positions.asked_past() == {}
    positions.hand_out(P0, 35, 1)
    positions.committed(P0, 50)  # ahead of what it was given
    positions.ask()
    assert positions.asked_past() == {}
    positions.seek(P0, 10)
    positions.committed(P0, 50)  # an answer from before the seek
    assert positions.asked_past() == {P0: CommitPoint(10)}
    positions.committed(P0, 10)
    assert positions.asked_past() == {}


def test_a_commit_of_the_applications_own_stands_while_it_is_under_way() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 3, 1)
    positions.ask()
    positions.hand_out(P0, 5, 1)
    positions.overrule([P0])
    assert positions.asked_past() == {}
    positions.committed(P0, 5)
    assert positions.asked_past() == {}
    positions.ask()
    positions.hand_out(P0, 6, 1)
    positions.ask()
    assert positions.asked_past() == {P0: CommitPoint(6, 1)}


def test_a_lost_partition_leaves_nothing_behind() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 5, 1)
    positions.remove(P0)
    positions.ask()
    positions.committed(P0, 5)
    assert positions.handed_out() == positions.asked_past() == {}
    positions.add(P0, 2)
    assert not positions.is_in_hand(P0)
    assert positions.asked_past() == {}


def test_what_did_not_reach_the_application_is_as_if_it_was_not_handed_out() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.add(P1, 0)
    positions.hand_out(P0, 5, 1)
    positions.ask()
    positions.hand_out(P0, 9, 1)
    assert positions.take_back() == {P0: 5}
    positions.ask()
    assert positions.asked_past() == positions.handed_out() == {P0: CommitPoint(5, 1)}


def test_of_what_is_withheld_only_what_is_committed_counts() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 100, 1)
    positions.withhold(P0)
    positions.ask()
    assert positions.asked_past() == positions.handed_out() == {}
    positions.committed(P0, 5)
    assert positions.asked_past() == positions.handed_out() == {}
    assert positions.position(P0) == 5


def test_of_what_is_withheld_and_not_committed_the_position_is_where_it_began() -> None:
    """Whoever writes it down would skip what no handler has done."""
    positions = Positions()
    positions.add(P0, 40, is_settled=False)
    positions.hand_out(P0, 100, 1)
    positions.withhold(P0)
    assert positions.position(P0) == 40


def test_a_seek_moves_both() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.hand_out(P0, 5, 1)
    positions.seek(P0, 2)
    assert not positions.is_in_hand(P0)
    assert positions.asked_past() == positions.handed_out() == {P0: CommitPoint(2)}


def test_what_is_on_its_way_to_another_thread_is_in_hand() -> None:
    positions = Positions()
    positions.add(P0, 0)
    positions.add(P1, 0)
    positions.send_ahead([P0])
    assert positions.is_in_hand(P0)
    assert not positions.is_in_hand(P1)
    positions.send_ahead([])
    assert not positions.is_in_hand(P0)


@given(st.lists(st.tuples(st.sampled_from(["give", "ask", "commit"]), st.integers(1, 5)), max_size=20))
def test_committed_by_itself_is_never_beyond_what_was_given_before_the_last_asking(
    steps: list[tuple[str, int]],
) -> None:
    positions = Positions()
    positions.add(P0, 0)
    given_out = asked = 0
    for what, count in steps:
        if what == "give":
            given_out += count
            positions.hand_out(P0, given_out, 1)
        elif what == "ask":
            positions.ask()
            asked = given_out
        else:
            for p, point in positions.asked_past().items():
                assert point.offset == asked
                positions.committed(p, point.offset)
        assert positions.is_in_hand(P0) == (asked != given_out)
        assert all(point.offset <= asked for point in positions.asked_past().values())
