"""The blocking consumer in groups on real nodes: in the application's thread what it hands out and tells."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from penstock.client import (
    Consumer,
    Record,
    TopicPartition,
    blocking,
)
from penstock.client.devcluster import DevCluster
from penstock.client.errors import make_error
from penstock.protocol.reasons import Reason
from tests.client.test_docs import IN_GROUPS
from tests.cluster.group_consuming import Heard, Knows, new_group, new_name, produce, topic


@pytest.fixture(scope="module")
def boot(calm_cluster: DevCluster) -> str:
    return calm_cluster.bootstrap


class Blocked:
    """A blocking consumer in a thread of its own, stopped from here."""

    def __init__(self, boot: str, **options: Any) -> None:
        self.records: list[Record] = []
        self.heard = Heard()
        self._consumer = blocking.Consumer(boot, listener=self.heard, **options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._consumer:
            while not self._stop.is_set():
                self.records += self._consumer.poll(timeout=0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_the_blocking_face_shares_and_hands_over_record_by_record(boot: str) -> None:
    """What was taken ahead of a revoked partition is not handed out, and nothing is repeated."""
    name, group = asyncio.run(topic(boot, 2, records=20)), new_group()
    handled: list[Record] = []
    heard = Heard()
    with blocking.Consumer(boot, group=group, topics=name, listener=heard) as consumer:
        for record in consumer:
            handled.append(record)
            if len(handled) == 5:
                break
        assert consumer._group is not None
        assert consumer._inner._group is not None
        ahead = {TopicPartition(*record[:2]) for record in consumer._group._lookahead}
        assert ahead
        assert all(consumer._inner._group.positions.is_in_hand(place) for place in ahead)
        other = Blocked(boot, group=group, topics=name)
        while (member := consumer.group_member) is None or member.generation < 2:
            pass
        for record in consumer:
            handled.append(record)
            if heard.events[-1][0] == "revoked":
                break
        by_then = len(handled)
        while len(handled) + len(other.records) < 40:
            handled += consumer.poll(timeout=0.05)
        other.stop()
    every = sorted((record.partition, record.offset) for record in handled + other.records)
    assert every == [(partition, offset) for partition in range(2) for offset in range(20)]
    assert by_then == 6
    assert [what for what, _ in heard.events[:2]] == ["assigned", "revoked"]
    assert heard.threads == {threading.get_ident()}
    assert threading.get_ident() not in other.heard.threads
    assert len(other.heard.threads) == 1


def test_the_blocking_face_gives_out_nothing_of_what_was_lost(boot: str) -> None:
    name = asyncio.run(topic(boot, 1, records=20))
    with blocking.Consumer(boot, group=new_group(), topics=name) as consumer:
        records = iter(consumer)
        assert next(records).offset == 0
        assert next(records).offset == 1
        assert consumer._group is not None
        assert consumer._group._lookahead
        consumer._run(_lose(consumer._inner))
        assert next(records).offset == 0  # of the next membership: nothing was committed


async def _lose(consumer: Consumer) -> None:
    assert consumer._group is not None
    core = consumer._group._core
    core._lose_all(make_error(Reason.UNKNOWN_MEMBER, "it is a test"))
    core.wants_new_stream = True
    consumer._group.changed()


def test_the_blocking_face_commits_and_closes(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 1, records=5)), new_group()
    place = TopicPartition(name, 0)
    with blocking.Consumer(boot, group=group, topics=name) as consumer:
        for record in consumer:
            if record.offset == 2:
                break
        assert consumer.position(place) == 3
    with blocking.Consumer(boot, group=group, topics=name, auto_commit=False) as consumer:
        records: list[Record] = []
        while not records:
            records = consumer.poll(max_records=2)
        assert [record.offset for record in records] == [2, 3]
        consumer.pause(place)
        assert consumer.poll(timeout=0.05) == []
        consumer.resume(place)
        assert next(iter(consumer)).offset == 4
        consumer.commit()
        found = consumer.committed([place])[place]
        assert found is not None
        assert found.offset == 5


def test_the_examples_of_the_guide_run(boot: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = asyncio.run(topic(boot, 2, records=20))
    for example in IN_GROUPS:
        names: dict[str, Any] = {"BOOTSTRAP": boot}
        exec(compile(example.replace('"orders"', repr(name)), "client.md", "exec"), names)
        asyncio.run(names["main"]())
    out = capsys.readouterr().out
    assert "CommittedOffset(offset=" in out
    assert out.count("mine now") == 1
    assert "another member" not in out


def test_the_blocking_face_commits_what_is_in_hand_when_its_next_poll_gives_a_partition_up(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 2, records=10)), new_group()
    with blocking.Consumer(boot, group=group, topics=name) as first:
        while len(first.poll()) < 20:  # until one poll gives all
            for place in first.assignment():
                first.seek(place, 0)
            first.end_offsets(first.assignment())  # some time passes
        with blocking.Consumer(boot, group=group, topics=name) as second:
            while len(first.assignment()) == 2:  # it does not ask: it works
                second.poll(timeout=0.05)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            first.poll(timeout=0)
            while not second.assignment():
                second.poll(timeout=0.05)
            place = TopicPartition(name, revoked)
            found = second.committed([place])[place]
            assert found is not None
            assert found.offset == 10  # nothing is repeated


def test_what_a_poll_had_read_when_it_was_interrupted_comes_with_the_next_one(boot: str) -> None:
    name, group = asyncio.run(topic(boot, 1, records=5)), new_group()
    with blocking.Consumer(boot, group=group, topics=name) as consumer:
        assert consumer._group is not None
        run, positions = consumer._group._run, consumer._group._group.positions

        def interrupted(coroutine: Any) -> Any:
            result = run(coroutine)
            if positions.is_in_hand(TopicPartition(name, 0)):
                consumer._group._run = run  # type: ignore[union-attr]  # it is there
                raise KeyboardInterrupt
            return result

        consumer._group._run = interrupted
        with pytest.raises(KeyboardInterrupt):
            list(iter(consumer.poll, None))  # again and again
        asyncio.run(produce(boot, name, 1, records=1))
        records: list[Record] = []
        while not records:
            records = consumer.poll()
        assert records[0].offset == 0


def test_the_blocking_face_knows_the_position_of_what_is_given_up(boot: str) -> None:
    with blocking.Producer(boot) as producer, blocking.Admin(boot) as admin:
        name, group = new_name("topic"), new_group()
        admin.create_topic(name, partitions=2)
        for number in range(20):
            producer.send_nowait(name, b"", partition=number % 2)
        producer.flush()
    knows = Knows(lambda place: first.position(place))  # noqa: PLW0108  it is not there yet
    with blocking.Consumer(boot, group=group, topics=name, listener=knows, auto_commit=False) as first:
        given = Counter(record.partition for _, record in zip(range(13), first, strict=False))
        with blocking.Consumer(boot, group=group, topics=name) as second:
            while len(first.assignment()) == 2:
                second.poll(timeout=0.05)
            first.poll(timeout=0)
            (revoked,) = {0, 1} - {partition for _, partition in first.assignment()}
            assert knows.positions == {TopicPartition(name, revoked): given[revoked]}
