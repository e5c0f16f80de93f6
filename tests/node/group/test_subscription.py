"""Which topics a subscription selects, and what cannot be one."""

import pytest

from penstock.node.group.subscription import Catalog, Catalogs, Subscribed, check_subscription, missing_topic
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_PATTERN, MAX_SUBSCRIBED_TOPICS
from penstock.protocol.reasons import Reason
from tests.node.group.metadata import grow, metadata, move_leadership
from tests.raft.metadata_world import id16


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.of(metadata(orders=2, orders_eu=1, clicks=3).image.topics.values())


def ids(*names: str) -> frozenset[bytes]:
    return frozenset(id16(f"topic-{name}") for name in names)


def test_internal_topics_are_not_there(catalog: Catalog) -> None:
    assert set(catalog.ids) == {"orders", "orders_eu", "clicks"}
    assert Subscribed(pattern=".*").selected(catalog) == ids("orders", "orders_eu", "clicks")


def test_the_catalog_stays_the_same_object_while_it_says_the_same() -> None:
    world, catalogs = metadata(orders=2), Catalogs()
    first = catalogs.of(world.image.topics)
    assert dict(first.counts) == {id16("topic-orders"): 2}
    move_leadership(world, 2)
    assert catalogs.of(world.image.topics) is first
    grow(world, "orders", 3)
    assert dict(catalogs.of(world.image.topics).counts) == {id16("topic-orders"): 3}


def test_a_pattern_matches_the_whole_name(catalog: Catalog) -> None:
    assert Subscribed(pattern="orders").selected(catalog) == ids("orders")
    assert Subscribed(pattern="orders.+|c").selected(catalog) == ids("orders_eu")


def test_names_and_pattern_add_up_and_a_deleted_topic_is_none(catalog: Catalog) -> None:
    assert Subscribed(("clicks", "gone"), "orders").selected(catalog) == ids("clicks", "orders")


def test_names_are_kept_in_order_and_once() -> None:
    assert check_subscription(["b", "a", "b"], "") == Subscribed(("a", "b"))


@pytest.mark.parametrize(
    ("topics", "pattern", "text"),
    [
        ([], "", "names no topic and has no pattern"),
        (["__offsets"], "", "reserved for internal topics"),
        (["a b"], "", "is not 1 to 249 of the characters"),
        ([f"t{number}" for number in range(MAX_SUBSCRIBED_TOPICS + 1)], "", "use a pattern"),
        ([], "a" * (MAX_PATTERN + 1), "1001 characters"),
        ([], "(", r"no RE2 expression: missing \)"),
        ([], r"(a)\1", "no RE2 expression: invalid escape sequence"),  # what RE2 leaves out to be linear
        ([], "(((a{100}){100}){100})", "no RE2 expression"),
    ],
)
def test_what_cannot_be_a_subscription(topics: list[str], pattern: str, text: str) -> None:
    with pytest.raises(PenstockError, match=text) as caught:
        check_subscription(topics, pattern)
    assert caught.value.reason is Reason.INVALID_SUBSCRIPTION


def test_only_what_is_newly_named_must_exist(catalog: Catalog) -> None:
    wanted = check_subscription(["clicks", "gone"], "")
    error = missing_topic(wanted, (), catalog)
    assert error is not None
    assert (error.reason, error.metadata) == (Reason.UNKNOWN_TOPIC, {"topic": "gone"})
    assert missing_topic(wanted, ("gone",), catalog) is None
