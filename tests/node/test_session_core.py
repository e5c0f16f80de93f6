"""When a node registers, heartbeats and may serve, in virtual time."""

from penstock.node.session.core import RETRY_MS, Accepted, InView, SendHeartbeat, SendRegister, SessionCore

SESSION_MS, HEARTBEAT_MS = 1_500, 300


def new() -> SessionCore:
    return SessionCore(SESSION_MS, HEARTBEAT_MS)


def registered(now_ms: int = 0, node_epoch: int = 7) -> SessionCore:
    """Registered at `now_ms`, and its view has the registration."""
    core = new()
    assert core.tick(now_ms) == [SendRegister()]
    assert core.on_registered(node_epoch, now_ms) == [Accepted(node_epoch)]
    core.on_view(InView(node_epoch, fenced=False), now_ms)
    return core


def test_it_registers_first_and_then_heartbeats() -> None:
    core = registered(1_000)
    assert core.tick(1_000 + HEARTBEAT_MS - 1) == []
    assert core.tick(1_000 + HEARTBEAT_MS) == [SendHeartbeat(7, draining=False)]


def test_one_request_at_a_time() -> None:
    core = new()
    assert core.tick(0) == [SendRegister()]
    assert core.tick(10_000) == []
    assert core.next_wake_ms(10_000) is None


def test_a_failed_attempt_is_repeated_soon_but_not_at_once() -> None:
    core = new()
    core.tick(0)
    core.on_failure(10)
    assert core.next_wake_ms(10) == 10 + RETRY_MS
    assert core.tick(10 + RETRY_MS - 1) == []
    assert core.tick(10 + RETRY_MS) == [SendRegister()]


def test_rule_26_nothing_is_served_before_the_view_has_the_registration() -> None:
    core = new()
    core.tick(0)
    core.on_registered(7, 0)
    assert not core.is_serving(0)
    core.on_view(InView(3, fenced=False), 0)  # the view of before the restart
    assert not core.is_serving(0)
    core.on_view(InView(7, fenced=False), 0)
    assert core.is_serving(0)


def test_it_fences_itself_after_a_session_without_the_controller() -> None:
    core = registered()
    assert core.is_serving(SESSION_MS - 1)
    assert not core.is_serving(SESSION_MS)


def test_after_the_session_it_waits_for_an_event_not_for_a_time_that_has_passed() -> None:
    core = registered()
    core.tick(HEARTBEAT_MS)  # an answer that does not come
    assert core.next_wake_ms(SESSION_MS - 1) == SESSION_MS
    assert core.next_wake_ms(SESSION_MS) is None


def test_contact_counts_from_the_sending_of_what_was_answered() -> None:
    core = registered()
    core.tick(HEARTBEAT_MS)
    core.on_heartbeat(1_400, 0, known=True)  # a slow answer proves no more than that the controller lived at sending
    assert core.is_serving(HEARTBEAT_MS + SESSION_MS - 1)
    assert not core.is_serving(HEARTBEAT_MS + SESSION_MS)


def test_a_failed_heartbeat_prolongs_nothing_and_the_next_answer_revives() -> None:
    core = registered()
    now_ms = HEARTBEAT_MS
    while now_ms < SESSION_MS + 500:
        core.tick(now_ms)
        core.on_failure(now_ms + 10)
        now_ms += 10 + RETRY_MS
    assert not core.is_serving(now_ms)
    assert core.tick(now_ms) == [SendHeartbeat(7, draining=False)]
    core.on_heartbeat(now_ms + 1, 0, known=True)
    assert core.is_serving(now_ms + 1)


def test_it_wakes_when_its_session_ends() -> None:
    core = registered()
    core.tick(HEARTBEAT_MS)  # never answered
    assert core.next_wake_ms(HEARTBEAT_MS) == SESSION_MS


def test_it_registers_again_when_the_controller_does_not_know_it() -> None:
    core = registered()
    core.tick(HEARTBEAT_MS)
    core.on_heartbeat(HEARTBEAT_MS + 1, 0, known=False)
    assert not core.is_serving(HEARTBEAT_MS + 1)
    assert core.tick(HEARTBEAT_MS + 1) == [SendRegister()]
    core.on_registered(9, HEARTBEAT_MS + 2)
    assert not core.is_serving(HEARTBEAT_MS + 2)
    core.on_view(InView(9, fenced=False), HEARTBEAT_MS + 3)
    assert core.is_serving(HEARTBEAT_MS + 3)


def test_it_registers_again_as_soon_as_its_view_shows_it_fenced() -> None:
    core = registered()
    core.on_view(InView(7, fenced=True), 100)
    assert not core.is_serving(100)
    assert core.tick(100) == [SendRegister()]


def test_an_older_registration_fenced_in_the_view_means_nothing() -> None:
    core = registered()
    core.on_view(InView(5, fenced=True), 100)
    assert core.tick(100) == []


def test_a_drain_is_told_at_once_even_behind_a_request_under_way() -> None:
    core = registered()
    core.drain(10)
    assert core.tick(10) == [SendHeartbeat(7, draining=True)]
    core.on_heartbeat(20, 3, known=True)
    assert core.leaderships == 3
    core = registered()
    core.tick(HEARTBEAT_MS)
    core.drain(HEARTBEAT_MS + 1)
    core.on_heartbeat(HEARTBEAT_MS + 2, 0, known=True)
    assert core.tick(HEARTBEAT_MS + 2) == [SendHeartbeat(7, draining=True)]


def test_the_answer_to_a_heartbeat_from_before_the_drain_does_not_say_that_all_have_moved() -> None:
    core = registered()
    core.tick(HEARTBEAT_MS)
    core.drain(HEARTBEAT_MS + 1)
    core.on_heartbeat(HEARTBEAT_MS + 2, 0, known=True)
    assert core.leaderships is None


def test_who_drains_and_is_fenced_has_nothing_left_to_move_and_stays_away() -> None:
    core = registered()
    core.drain(10)
    core.tick(10)
    core.on_heartbeat(20, 0, known=False)
    assert core.leaderships == 0
    core.on_view(InView(7, fenced=True), 30)
    assert SendRegister() not in core.tick(10_000)


def test_who_left_says_and_serves_nothing_more() -> None:
    core = registered()
    core.leave()
    assert not core.is_serving(1)
    assert core.tick(10_000) == []
    assert core.next_wake_ms(10_000) is None
