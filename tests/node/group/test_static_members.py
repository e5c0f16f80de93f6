"""Static members in a group's core: what outlives a restart, and whose an instance_id is."""

import pytest

from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.node.group.core_driver import SESSION_MS, CoreDriver, commit_reasons
from tests.node.group.metadata import parts


def test_a_static_member_that_comes_back_gets_what_it_had_and_nobody_moves() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", instance_id="i")
    driver.settle()
    driver.joined("b")
    had, of_b = driver.owned("a"), driver.member("b").owned
    stream = driver.core.sessions["a"].stream
    driver.outputs += driver.core.on_leave("a", "", driver.now_ms, returning=True)
    assert driver.ended(stream) is None
    assert driver.settle() == []
    assert driver.owned("a") == had
    driver.pass_time(5_000, "b")
    newcomer = driver.join("a2", instance_id="i")
    (change,) = driver.settle()
    assert driver.is_joined(newcomer)
    assert driver.owned("a2") == had
    assert set(driver.member("a2").owned.values()) == {3} == {change.generation}
    assert driver.member("b").owned == of_b
    assert change.cause == "member a2 took over from member a"


def test_a_static_member_that_does_not_come_back_is_removed() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", instance_id="i")
    driver.settle()
    driver.outputs += driver.core.on_leave("a", "", driver.now_ms, returning=True)
    driver.pass_time(SESSION_MS)
    assert driver.group.cause == "member a did not come back within 10 s"


def test_an_instance_that_is_connected_is_in_use() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", instance_id="i")
    with pytest.raises(PenstockError) as caught:
        driver.join("b", instance_id="i")
    assert caught.value.reason is Reason.INSTANCE_IN_USE
    driver.settle()
    with pytest.raises(PenstockError, match="member a is connected") as caught:
        driver.join("b", instance_id="i")
    assert caught.value.reason is Reason.INSTANCE_IN_USE


def test_who_vanished_is_fenced_and_its_heir_waits_for_the_end_of_its_session() -> None:
    driver = CoreDriver(t=4)
    driver.join("a", instance_id="i")
    driver.settle()
    driver.core.on_stream_gone("a", driver.core.sessions["a"].stream)
    newcomer = driver.join("b", instance_id="i")
    for again in (lambda: driver.beat("a"), lambda: driver.join("a", instance_id="i", generation=1)):
        with pytest.raises(PenstockError) as caught:
            again()
        assert caught.value.reason is Reason.INSTANCE_FENCED
    assert commit_reasons(driver, "a", 1, *parts("t", 0)) == [Reason.INSTANCE_FENCED]
    driver.pass_time(SESSION_MS - 1_000)
    assert not driver.is_joined(newcomer)
    driver.pass_time(1_000)
    assert driver.is_joined(newcomer)
    assert driver.owned("b") == parts("t", 0, 1, 2, 3)
    assert driver.group.generation == 2
