"""Clients that are members of the world's group: the real Consumer with all that it does by itself."""

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from penstock.client import (
    CommitFailedError,
    Consumer,
    InstanceFencedError,
    PenstockError,
    RebalanceListener,
    TopicPartition,
    UnknownGroupError,
)
from penstock.client.group.member import MemberCore
from penstock.client.options import ConsumerOptions
from penstock.client.retry import CallPolicy
from penstock.v1 import group_service_pb2 as pb
from tests.simulation.cluster.consuming import row_of
from tests.simulation.cluster.group import GROUP, Group, Tenure
from tests.simulation.cluster.history import Reading, Spot
from tests.simulation.cluster.process import ALLOWED, ClientProcess, LoopClock, Site, Topics

FORMER = 8
"""Tenures of which late commits may still come."""
AWAY_S = 2.0
"""A member that leaves comes back within this."""
TWIN = "twin"
"""The instance_id of two members: a process, and the one that was started in its place though it lives."""
LOOKS = 0.15
"""How often a member asks what is committed, of its polls."""


class MemberClient(ClientProcess):
    """Polls as a member of the group, until `finish`; leaves, stalls and comes back when it is asked to.

    Each incarnation, and each time it comes back, is another consumer with other settings.
    """

    ALLOWED = (*ALLOWED, CommitFailedError)

    def __init__(self, site: Site, topics: Topics, group: Group, instance_id: str | None, looks: random.Random) -> None:
        """`instance_id`: it always joins by that. `looks`: says when it asks what is committed."""
        super().__init__(site)
        self.topics = topics
        self.stall_s = 0.0
        """So long it does not ask for records, once."""
        self._group = group
        self._instance_id = instance_id
        self._looks = looks
        self._allowed = (*self.ALLOWED, InstanceFencedError) if instance_id == TWIN else self.ALLOWED
        self._consumer: Consumer | None = None
        self._readings: dict[TopicPartition, tuple[Tenure, Reading]] = {}
        self._away_s: float | None = None
        self._subscribed: list[str] = []
        """Topics that it subscribes to; none: it does by a pattern."""
        self._former: deque[Tenure] = deque(maxlen=FORMER)
        """What it has no more. Kept over crashes: what was sent may come late."""

    # ---- from outside

    def go(self, value: float) -> None:
        """Leave in good order, and come back a while later."""
        self._away_s = AWAY_S * value

    def believes(self, member_id: str, spot: Spot) -> bool:
        """See group.Believer."""
        consumer = self._consumer
        if consumer is None or self.loop.is_closed():
            return False
        return bool(self.loop.run(self._believes, consumer, member_id, spot))

    def _believes(self, consumer: Any, member_id: str, spot: Spot) -> bool:
        """As its core would decide now."""
        reader = consumer._group
        core: MemberCore | None = None if reader is None else reader._core
        now_ms = LoopClock(self.loop).monotonic_ms()
        if core is None or core.member_id != member_id or now_ms >= core.valid_until_ms:
            return False
        overdue = {hold.key for hold in core.holds.overdue(now_ms)}
        return any(hold.key == spot and hold.key not in overdue for hold in core.holds)

    # ---- inside

    async def work(self) -> None:
        while not self.stopping.is_set():
            self._away_s = None
            away_s = await self._be_a_member()
            if away_s:
                await self.pause(away_s)

    def _options(self) -> ConsumerOptions:
        rng = self.rng
        self._is_manual = rng.random() < 0.4
        self._polled = rng.choice((1, 10, 10, 500))
        options: ConsumerOptions = {
            "group": GROUP,
            "session_timeout_ms": rng.choice((1_000, 1_500)),
            "rebalance_timeout_ms": rng.choice((800, 3_000)),
            "max_poll_interval_ms": rng.choice((1_500, 60_000)),
            "auto_commit": not self._is_manual,
            "auto_commit_interval_ms": rng.choice((50, 300)),
            "start": "earliest",
            "auto_offset_reset": "earliest",
            "instance_id": self._instance_id,
            "listener": _Listener(self),
            "prefetch_bytes": rng.choice((500, 1 << 20)),
        }
        self._subscribed = [] if rng.random() < 0.3 else list(self.topics.counts)
        if self._subscribed:
            options["topics"] = self._subscribed
        else:
            options["pattern"] = "orders|events"
        return options

    async def _be_a_member(self) -> float | None:
        """Join, read, and leave in good order; gives how long to stay away."""
        self.lost(tuple(self._readings))  # what it had when it left or crashed
        consumer = Consumer(self.site.bootstrap, **self._options())
        consumer._seams = self.seams()
        await consumer.open()
        self._consumer = consumer
        try:
            while self._away_s is None and not self.stopping.is_set():
                await self._poll_once(consumer)
            if self._is_manual:
                await self._commit(consumer)
        finally:
            await consumer.close()
            self._consumer = None
        return self._away_s

    async def _poll_once(self, consumer: Consumer) -> None:
        try:
            if self._subscribed and len(self._subscribed) < len(self.topics.counts):
                self._subscribed = list(self.topics.counts)
                await consumer.subscribe(self._subscribed)
            self._ask()
            for record in await consumer.poll(self._polled, timeout=0.3):
                tenure, reading = self._readings[TopicPartition(record.topic, record.partition)]
                self._group.given(tenure, record.offset)
                reading.rows.append(row_of(record))
                self.trace("read", record.partition, record.offset)
            if self._group.world.options.cleanup:
                self._pass_gaps(consumer)
            if self._is_manual and self.rng.random() < 0.3:
                await self._commit(consumer)
            if self._former and self.rng.random() < 0.2:
                await self._commit_late(consumer, self._former.popleft())
            if self._looks.random() < LOOKS:
                await self._look_at_commits(consumer)
        except PenstockError as error:
            self.tolerate(error, self._allowed, "reading as a member")
            self.trace("member", str(error))
            if isinstance(error, InstanceFencedError):  # its twin has taken over: this consumer is of no more use
                self.lost(tuple(self._readings))
                self._away_s = AWAY_S * self._looks.random()
            await self.pause(0.1)
        stall_s, self.stall_s = self.stall_s, 0.0
        if stall_s:
            await self.pause(stall_s)

    def _pass_gaps(self, consumer: Consumer) -> None:
        """Where records are dropped, the position goes past them too."""
        for partition in consumer.assignment():
            if partition in self._readings:
                tenure, _ = self._readings[partition]
                tenure.passed = max(tenure.passed, consumer.position(partition))

    def _ask(self) -> None:
        """What was given out is done with."""
        for tenure, _ in self._readings.values():
            tenure.asked = max(tenure.asked, tenure.handed, tenure.passed)

    async def _commit(self, consumer: Consumer) -> None:
        """Commit what was given out."""
        self._ask()
        given = [tenure for tenure, _ in self._readings.values() if tenure.handed > tenure.start]
        try:
            await consumer.commit()
        except PenstockError as error:
            self.tolerate(error, self._allowed, "committing")
            self.trace("commit", str(error))
        else:
            for tenure in given:
                self._group.acknowledged(tenure, tenure.handed)

    async def _look_at_commits(self, consumer: Consumer) -> None:
        """Ask for all that is committed: nothing is shown that a fault may yet take back."""
        request = pb.FetchOffsetsRequest(group_id=GROUP)
        try:
            answer = await consumer._session.caller.call(
                lambda connection: connection.groups.FetchOffsets, request, pb.FetchOffsetsResponse, CallPolicy(1_000)
            )
        except UnknownGroupError:
            return  # not yet
        for one in answer.offsets:
            self._group.shown(Spot(one.topic_id, one.partition), one.committed.offset)

    async def _commit_late(self, consumer: Consumer, tenure: Tenure) -> None:
        """A commit of what it has no more comes at last: it must be refused, unless nobody else was given it."""
        member = consumer.group_member
        is_last = self._group.tenures[tenure.member_id, tenure.spot] is tenure
        if member is None or tenure.member_id == member.member_id or not is_last:
            return  # it had, or may have, the same again, and has committed higher offsets since
        request = pb.CommitOffsetsRequest(group_id=GROUP, member_id=tenure.member_id, generation=tenure.generation)
        request.offsets.add(topic_id=tenure.spot.topic_id, partition=tenure.spot.partition, offset=tenure.handed)
        tenure.asked = max(tenure.asked, tenure.handed)
        answer = await consumer._session.caller.call(
            lambda connection: connection.groups.CommitOffsets, request, pb.CommitOffsetsResponse, CallPolicy(1_000)
        )
        self.trace("late", tenure.spot.partition, tenure.handed, bool(answer.results[0].error.code))

    # ---- what the listener is told

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        assert self._consumer is not None
        assert self._consumer._group is not None
        core = self._consumer._group._core
        for partition in partitions:
            hold = core.holds.find(partition)
            assert hold is not None
            start = 0 if hold.committed is None else hold.committed.offset
            tenure = self._group.assigned(core.member_id, Spot(*hold.key), partition.topic, start)
            tenure.generation = core.generation
            reading = Reading(self.name, tenure.spot, partition.topic, tenure.start)
            self.history.readings.append(reading)
            self._readings[partition] = tenure, reading

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        if self._is_manual and self._consumer is not None and self.rng.random() < 0.7:
            await self._commit(self._consumer)
        self.lost(partitions)

    def lost(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            tenure, _ = self._readings.pop(partition, (None, None))
            if tenure is not None and tenure.handed > tenure.start:
                self._former.append(tenure)


class _Listener(RebalanceListener):
    """Passes on what a member is told."""

    def __init__(self, member: MemberClient) -> None:
        self._member = member

    async def on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        self._member.trace("assigned", sorted(partitions))
        self._member.assigned(partitions)

    async def on_revoked(self, partitions: Iterable[TopicPartition]) -> None:
        self._member.trace("revoked", sorted(partitions))
        await self._member.revoked(partitions)

    async def on_lost(self, partitions: Iterable[TopicPartition]) -> None:
        self._member.trace("lost", sorted(partitions))
        self._member.lost(partitions)
