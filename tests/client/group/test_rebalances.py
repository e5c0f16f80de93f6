"""What follows from changes of the member's partitions: what is committed, told and released, in which order."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from penstock.client.connection import parse_bootstrap
from penstock.client.fetcher import Fetcher
from penstock.client.group.commit_queue import Offsets, OnSettled
from penstock.client.group.listener import RebalanceListener
from penstock.client.group.member import MemberCore
from penstock.client.group.options import GroupConfig
from penstock.client.group.rebalances import Parts, Rebalances
from penstock.client.group.starting import Starting
from penstock.client.options import ConsumerConfig
from penstock.client.records import TopicPartition
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from tests.client.conftest import until
from tests.client.group.talk import assignment, joined, partition
from tests.client.reference_server import Cluster

P0, P1 = partition(0), partition(1)


class Noted:
    """Commits that succeed, once the gate is open."""

    def __init__(self) -> None:
        self.made: list[dict[TopicPartition, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def add(self, offsets: Offsets, on_settled: OnSettled) -> None:
        self._note(offsets)
        on_settled({})

    async def commit(self, offsets: Offsets) -> dict[TopicPartition, PenstockError]:
        await self.gate.wait()
        self._note(offsets)
        return {}

    def drop(self, partitions: object, why: PenstockError) -> None: ...

    def _note(self, offsets: Offsets) -> None:
        if offsets:
            self.made.append({partition: point.offset for partition, point in offsets.items()})


class Slow:
    """A drainer that is done when it is told to be."""

    def __init__(self, done: Mapping[TopicPartition, int]) -> None:
        self.done = done
        self.begun = asyncio.Event()
        self.finish = asyncio.Event()

    async def drain(self, partitions: tuple[TopicPartition, ...]) -> Mapping[TopicPartition, int]:
        self.begun.set()
        await self.finish.wait()
        return self.done

    def lost(self, partitions: tuple[TopicPartition, ...]) -> None: ...


class Bench:
    """A member to which the test is the coordinator. Its topic has three partitions."""

    def __init__(self, cluster: Cluster) -> None:
        self._topic_id = cluster.create("orders", 3).topic_id
        self.session = ClientSession(parse_bootstrap(cluster.bootstrap()), None, Seams())
        config, client = GroupConfig(group="g", topics="orders"), ConsumerConfig()
        self.core = MemberCore(config, lambda: "m", 0)
        self.fetcher = Fetcher(client, self.session, deletions_are_normal=True)
        self.commits = Noted()
        starting = Starting(config, client, self.session)
        self.parts = Parts(self.core, self.fetcher, self.commits, starting)  # type: ignore[arg-type]  # what it needs
        self.rebalances = Rebalances(self.parts, self.session, self, auto_commit=True)
        self.core.open(0)
        self.core.received(joined(), 0)

    def changed(self) -> None:
        for change in self.core.take_changes():
            self.rebalances.apply(change)

    def assign(self, generation: int, read: dict[int, int], revoked: tuple[int, ...] = ()) -> None:
        response = assignment(generation, read, revoked)
        for assigned in response.assignment.partitions:
            assigned.topic_id = self._topic_id
        for given_up in response.assignment.revoked:
            given_up.topic_id = self._topic_id
        self.core.received(response, 0)
        self.changed()

    async def begin(self, *partitions: int) -> None:
        self.assign(1, dict.fromkeys(partitions, 1))
        await until(lambda: len(self.fetcher.cursors) == len(partitions))

    def hand_out(self, offset: int, *, asked: bool = True) -> None:
        self.parts.positions.hand_out(P0, offset, 0)
        if asked:
            self.parts.positions.ask()

    @property
    def held(self) -> set[TopicPartition]:
        return {hold.partition for hold in self.core.holds}

    async def close(self) -> None:
        await self.rebalances.close()
        await self.fetcher.close()
        await self.session.close()


@pytest.fixture
async def bench(cluster: Cluster) -> AsyncIterator[Bench]:
    made = Bench(cluster)
    made.session.start()
    yield made
    await made.close()


async def test_of_what_is_drained_nothing_is_committed_but_what_the_drainer_has_done(bench: Bench) -> None:
    """Also when process() is over, and the consumer commits by itself again, before the partition is released."""
    await bench.begin(0, 1)
    drainer = Slow({P0: 5})
    bench.rebalances.drainer, bench.rebalances.auto_commit = drainer, False
    bench.hand_out(100)
    bench.commits.gate.clear()
    bench.assign(2, {1: 1}, revoked=(0,))
    await drainer.begun.wait()
    bench.rebalances.drainer, bench.rebalances.auto_commit = None, True
    positions = bench.parts.positions
    assert positions.asked_past() == positions.handed_out() == {}
    drainer.finish.set()
    bench.commits.gate.set()
    await until(lambda: bench.held == {P1})
    assert bench.commits.made == [{P0: 5}]


async def test_where_there_is_a_drainer_too_the_listener_is_called_by_who_asks_for_records(bench: Bench) -> None:
    """So never twice at the same time, and in order; the release waits for it."""
    bench.rebalances.listener = RebalanceListener()
    await bench.begin(0)
    assigned = bench.rebalances.next_change()
    assert assigned is not None
    await bench.rebalances.finish(assigned)
    drainer = Slow({P0: 5})
    bench.rebalances.drainer = drainer
    bench.assign(2, {}, revoked=(0,))
    assert not bench.rebalances.is_pending
    drainer.finish.set()
    await until(lambda: bench.rebalances.is_pending)
    assert bench.commits.made == [{P0: 5}]
    told = bench.rebalances.next_change()
    assert told is not None
    bench.rebalances.put_back(told)  # interrupted
    assert bench.held == {P0}
    told = bench.rebalances.next_change()
    assert told is not None
    assert (told.kind, [hold.partition for hold in told.holds]) == ("revoked", [P0])
    await bench.rebalances.finish(told)
    assert bench.held == set()


@pytest.mark.parametrize("drained", [True, False])
async def test_who_did_not_hear_of_an_assignment_does_not_hear_of_its_end(bench: Bench, drained: bool) -> None:
    bench.rebalances.listener = RebalanceListener()
    await bench.begin(0)
    drainer = Slow({})
    bench.rebalances.drainer = drainer if drained else None
    bench.commits.gate.clear()
    bench.assign(2, {}, revoked=(0,))
    assert bench.rebalances.next_change() is None  # it is being given up
    drainer.finish.set()
    bench.commits.gate.set()
    await until(lambda: bench.held == set())
    assert bench.rebalances.next_change() is None


async def test_an_error_of_what_is_revoked_is_told_only_where_it_stays_after_all(bench: Bench) -> None:
    await bench.begin(0, 1)
    cursors, errors = bench.fetcher.cursors, bench.fetcher.errors
    bench.fetcher.stop(cursors[P0], PenstockError(Reason.INTERNAL, "nothing is committed, and start is 'error'"))
    bench.hand_out(7, asked=False)  # in hand: the release waits for the application
    bench.assign(2, {1: 1}, revoked=(0,))
    assert not errors
    bench.assign(3, {0: 1, 1: 1})
    assert (cursors[P0].stopped, cursors[P0].position) == (True, 7)
    assert len(errors) == 1


async def test_a_partition_without_a_leader_keeps_no_other_from_beginning(bench: Bench, cluster: Cluster) -> None:
    cluster.topics["orders"].partitions[1].ClearField("leader")
    cluster.touch()
    bench.assign(1, {0: 1, 1: 1, 2: 1})
    await until(lambda: len(bench.fetcher.cursors) == 2)
    assert set(bench.fetcher.cursors) == {P0, partition(2)}
    cluster.lead("orders", 1, min(cluster.brokers))
    await until(lambda: P1 in bench.fetcher.cursors)
