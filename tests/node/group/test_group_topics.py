"""Topics that come, grow and go under a group's core."""

from dataclasses import replace

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.node.group.core_driver import CoreDriver
from tests.node.group.metadata import create, grow, parts, wish


def test_added_partitions_and_new_topics_of_a_pattern_are_picked_up() -> None:
    driver = CoreDriver(t=2, other=1)
    member = replace(wish("a").member, topics=(), pattern="t.*")
    driver.outputs += driver.core.on_join(replace(wish("a"), member=member), 1, driver.now_ms)
    driver.settle()
    assert driver.owned("a") == parts("t", 0, 1)
    grow(driver.world, "t", 3)
    driver.show()
    (change,) = driver.settle()
    assert change.cause == "partitions were added to topic t"
    create(driver.world, "t2", 1)
    driver.show()
    (change,) = driver.settle()
    assert change.cause == "topic t2 is there now"
    assert driver.owned("a") == parts("t", 0, 1, 2) | parts("t2", 0)


def test_partitions_of_a_deleted_topic_go_without_acknowledgement() -> None:
    driver = CoreDriver(t=2, u=2)
    driver.join("a", "t", "u")
    driver.settle()
    driver.world.do(delete_topic=pb.DeleteTopic(topic_id=driver.world.topic("u").topic_id))
    driver.show()
    (change,) = driver.settle()
    assert driver.owned("a") == driver.member("a").target == parts("t", 0, 1)
    assert change.cause == "topic u was deleted"
    create(driver.world, "u", 2, topic_id="second-u")
    driver.show()
    driver.settle()
    assert len(driver.owned("a")) == 4


def test_a_topic_must_exist_when_it_is_first_named_and_not_for_ever() -> None:
    driver = CoreDriver(t=1, u=1)
    with pytest.raises(PenstockError, match="'missing'") as caught:
        driver.join("a", "t", "missing")
    assert caught.value.reason is Reason.UNKNOWN_TOPIC
    driver.join("a", "t", "u")
    driver.settle()
    driver.world.do(delete_topic=pb.DeleteTopic(topic_id=driver.world.topic("u").topic_id))
    driver.show()
    driver.settle()
    driver.join("a", "t", "u", generation=1)
    with pytest.raises(PenstockError):
        driver.core.on_subscribe(wish("a", "t", "missing"))


def test_another_subscription_is_a_rebalance() -> None:
    driver = CoreDriver(t=2, u=2)
    driver.joined("a")
    driver.core.on_subscribe(wish("a", "u"))
    (change,) = driver.settle()
    assert change.cause == "member a changed its subscription"
    assert driver.owned("a") == parts("t", 0, 1) | parts("u", 0, 1)
    assert driver.to_read("a") == parts("u", 0, 1)
    driver.release_all()
    assert driver.owned("a") == parts("u", 0, 1)
