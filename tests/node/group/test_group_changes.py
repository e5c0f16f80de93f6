"""A group's core and its changes: of unknown fate, refused, late; groups without members."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.joining import GroupLimits
from penstock.node.group.proposal import RETRY_MS, SHOWN_WITHIN_MS
from penstock.node.group.subscription import Catalog
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.node.group.core_driver import CoreDriver, commit_reasons, reason_of
from tests.node.group.metadata import LIMITS, parts, wish


def test_a_change_of_unknown_fate_is_decided_again_and_the_late_one_does_no_harm() -> None:
    driver = CoreDriver(t=2)
    driver.join("a")
    first = driver.decide()
    assert first is not None
    driver.core.on_answer(None, driver.now_ms)
    assert driver.decide() is None
    driver.now_ms += RETRY_MS
    second = driver.decide()
    assert second is not None
    assert not driver.answer(first).refusal
    driver.core.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_STALE), driver.now_ms)
    assert driver.settle() == []
    assert driver.group.generation == 1


def test_a_stale_answer_waits_for_newer_metadata_but_not_for_ever() -> None:
    driver = CoreDriver(t=2)
    driver.join("a")
    assert driver.decide() is not None
    driver.core.on_answer(pb.ChangeResult(refusal=pb.REFUSAL_STALE), driver.now_ms)
    assert driver.decide() is None
    assert driver.core.due_ms(driver.now_ms) == driver.now_ms + SHOWN_WITHIN_MS
    driver.now_ms += SHOWN_WITHIN_MS
    assert driver.decide() is not None


@pytest.mark.parametrize(
    ("refusal", "reason"), [(pb.REFUSAL_LIMIT, Reason.GROUP_FULL), (pb.REFUSAL_INVALID, Reason.INTERNAL)]
)
def test_who_cannot_join_is_told_why(refusal: "pb.Refusal.ValueType", reason: Reason) -> None:
    driver = CoreDriver(t=2)
    stream = driver.join("a")
    assert driver.decide() is not None
    driver.outputs += driver.core.on_answer(pb.ChangeResult(refusal=refusal, detail="no"), driver.now_ms)
    assert reason_of(driver.ended(stream)) is reason
    driver.now_ms += SHOWN_WITHIN_MS
    assert driver.settle() == []


def test_a_full_group_takes_nobody_more() -> None:
    driver = CoreDriver(GroupLimits(max_members=2), t=2)
    driver.joined("a")
    driver.join("b")
    driver.join("b")  # a repeat is no third one
    with pytest.raises(PenstockError) as caught:
        driver.join("c")
    assert caught.value.reason is Reason.GROUP_FULL


def test_a_full_group_takes_who_takes_over_an_instance() -> None:
    driver = CoreDriver(LIMITS._replace(max_members=1), t=1)
    driver.join("a", instance_id="i")
    driver.settle()
    driver.core.on_leave("a", "", driver.now_ms, returning=True)
    stream = driver.join("b", instance_id="i")
    driver.settle()
    assert driver.is_joined(stream)
    assert set(driver.group.members) == {"b"}


# ---- groups without members


def test_a_group_is_made_without_members_and_deleted() -> None:
    driver = CoreDriver(t=2)
    with pytest.raises(PenstockError) as caught:
        driver.core.delete(validate_only=True)
    assert caught.value.reason is Reason.UNKNOWN_GROUP
    driver.core.want()
    driver.settle()
    assert driver.core.exists
    assert driver.group.emptied_ms > 0
    driver.core.commit_began(parts("t", 0))
    driver.core.delete(validate_only=False)
    assert driver.settle() == []
    assert commit_reasons(driver, "", 0, *parts("t", 0)) == [Reason.UNKNOWN_GROUP]
    driver.core.commit_ended(parts("t", 0))
    driver.settle()
    assert not driver.world.image.groups
    assert driver.core.is_idle


def test_a_group_with_members_is_not_deleted_nor_one_that_somebody_joins_meanwhile() -> None:
    driver = CoreDriver(t=2)
    driver.core.want()
    driver.settle()
    driver.core.delete(validate_only=False)
    driver.join("a")
    driver.settle()
    assert set(driver.group.members) == {"a"}
    assert not driver.core.is_deleting
    with pytest.raises(PenstockError) as caught:
        driver.core.delete(validate_only=False)
    assert caught.value.reason is Reason.GROUP_NOT_EMPTY


def test_a_deleted_topic_that_a_condemned_member_alone_subscribes_to_makes_no_endless_generations() -> None:
    driver = CoreDriver(t=2, u=2)
    driver.join("a", "u", rebalance_timeout_ms=1_000)
    driver.settle()
    driver.core.on_subscribe(wish("a", "t"))
    driver.join("b", "t")
    driver.settle()
    driver.pass_time(1_000, "a", "b")  # it gives up nothing: condemned
    driver.core.on_catalog(Catalog.of(driver.world.image.topics.values()))
    generation = driver.group.generation
    driver.settle()
    driver.settle()
    assert driver.group.generation <= generation + 1
