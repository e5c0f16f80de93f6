"""What listeners of consumers in groups hear and may ask, on real nodes."""

import asyncio
import logging
from collections import Counter

import pytest

from penstock.client import (
    Consumer,
    TopicPartition,
)
from penstock.client.devcluster import DevCluster
from tests.client.conftest import until as happens
from tests.cluster.group_consuming import Heard, Knows, new_group, read, topic, until


@pytest.fixture(scope="module")
def boot(calm_cluster: DevCluster) -> str:
    return calm_cluster.bootstrap


async def test_of_what_was_given_up_before_it_was_told_the_listener_hears_nothing(boot: str) -> None:
    name, group = await topic(boot, 4), new_group()
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as first:
        await happens(lambda: len(first.assignment()) == 4)  # it does not poll: nothing is told
        async with Consumer(boot, group=group, topics=name):
            while len(first.assignment()) == 4:  # noqa: ASYNC110  another task's doing, of which nothing tells
                await asyncio.sleep(0)
            assert first._group is not None
            await first._group.rebalances.tell_all()  # at once: they are not released yet
            assert heard.events == [("assigned", {partition for _, partition in first.assignment()})]


async def test_the_position_of_what_is_given_up_is_known_until_it_is(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    knows = Knows(lambda place: first.position(place))  # noqa: PLW0108  it is not there yet
    async with Consumer(boot, group=group, topics=name, listener=knows, auto_commit=False) as first:
        given = Counter(record.partition for record in await read(first, 13))
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(first.assignment()) == 1, second)
            await first.poll(timeout=0)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            assert knows.positions == {TopicPartition(name, revoked): given[revoked]}


async def test_what_is_not_given_up_after_all_is_as_it_was(boot: str) -> None:
    name, group = await topic(boot, 2, records=10), new_group()
    places = {TopicPartition(name, partition) for partition in range(2)}
    heard = Heard()
    async with Consumer(boot, group=group, topics=name, listener=heard) as first:
        given = Counter(record.partition for record in await read(first, 13))
        first.pause(*places)
        async with Consumer(boot, group=group, topics=name) as second:
            await until(lambda: len(first.assignment()) == 1, second)
        await happens(lambda: len(first.assignment()) == 2)
        assert set(first.paused()) == places
        assert {place: first.position(place) for place in places} == {place: given[place.partition] for place in places}
        assert await first.poll(timeout=0.1) == []
        first.resume(*places)
        assert len(await read(first, 7)) == 7
        assert heard.events == [("assigned", {0, 1})]


async def test_who_waits_for_an_instance_that_is_in_use_says_so_once(
    boot: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, group = await topic(boot, 1), new_group()
    caplog.set_level(logging.DEBUG, "penstock.client")

    def refusals() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "instance_id 'one' is in use" in record.getMessage()]

    async with Consumer(boot, group=group, topics=name, instance_id="one") as first:
        await until(lambda: bool(first.assignment()), first)
        async with Consumer(boot, group=group, topics=name, instance_id="one"):
            await happens(lambda: len(refusals()) >= 3)
    assert [record.levelno for record in refusals()[:3]] == [logging.WARNING, logging.DEBUG, logging.DEBUG]
