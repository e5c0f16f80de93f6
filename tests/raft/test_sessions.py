"""When the controller counts a node as dead."""

import pytest

from penstock.raft.sessions import Sessions


@pytest.fixture
def sessions() -> Sessions:
    """Defaults: 1500 ms, heartbeat every 300 ms; node 1 has a fresh session from 0 on."""
    sessions = Sessions(session_timeout_ms=1500, heartbeat_interval_ms=300)
    sessions.grant(1, 0)
    return sessions


def test_a_fresh_session_lasts_its_time(sessions: Sessions) -> None:
    assert not sessions.is_overdue(1, 1499)
    assert sessions.is_overdue(1, 1500)


def test_a_heartbeat_begins_it_anew(sessions: Sessions) -> None:
    sessions.heard(1, 1000)
    assert not sessions.is_overdue(1, 2499)
    assert sessions.is_overdue(1, 2500)


def test_a_refused_connection_kills_who_was_never_heard(sessions: Sessions) -> None:
    assert sessions.is_late(1, 0)
    sessions.refused(1, 1)
    assert sessions.is_overdue(1, 1)


def test_a_refused_connection_kills_who_was_heard_only_when_the_next_heartbeat_is_late(sessions: Sessions) -> None:
    sessions.heard(1, 1000)
    sessions.refused(1, 1001)
    assert not sessions.is_overdue(1, 1450)
    assert sessions.is_overdue(1, 1451)
    sessions.heard(1, 1460)  # its address is what is wrong, not the node
    assert not sessions.is_overdue(1, 2000)


def test_a_late_heartbeat_is_worth_a_look_until_there_was_an_answer(sessions: Sessions) -> None:
    sessions.heard(1, 1000)
    assert not sessions.is_late(1, 1450)
    assert sessions.is_late(1, 1451)
    sessions.refused(1, 1452)
    assert not sessions.is_late(1, 1453)


def test_a_second_node_of_the_same_id_waits_for_the_first_ones_session(sessions: Sessions) -> None:
    assert sessions.is_silent(1, 0)
    sessions.heard(1, 0)
    assert not sessions.is_silent(1, 1499)
    assert sessions.is_silent(1, 1500)
    sessions.refused(1, 100)
    assert sessions.is_silent(1, 100)


def test_unknown_nodes_have_no_session(sessions: Sessions) -> None:
    sessions.forget(1)
    assert 1 not in sessions
    sessions.refused(1, 5)
    assert not sessions.is_overdue(1, 10_000)
    assert not sessions.is_late(1, 10_000)
    assert sessions.is_silent(1, 0)


def test_a_pause_of_the_controller_is_not_the_nodes_silence(sessions: Sessions) -> None:
    sessions.heard(1, 1000)
    sessions.grant(2, 1000)
    sessions.refused(1, 1100)
    sessions.postpone(5000)
    assert not sessions.is_overdue(1, 6450)
    assert sessions.is_overdue(1, 6451)
    assert not sessions.is_overdue(2, 7499)
    assert sessions.is_overdue(2, 7500)
