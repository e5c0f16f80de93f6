"""The clients of a world: who runs, and the order in which they end."""

import asyncio
import random
from typing import TYPE_CHECKING

from penstock.client import NewRecord, PenstockError, Producer
from penstock.internal.v1 import controller_pb2
from penstock.protocol.errors import PenstockError as ProtocolError
from tests.simulation.cluster import cleaning, kept
from tests.simulation.cluster import history as rules
from tests.simulation.cluster.clients import (
    AdminClient,
    AppendingClient,
    ClientProcess,
    ConsumingClient,
    FinalReader,
    ProducingClient,
    Site,
    Topics,
)
from tests.simulation.cluster.group import group_of
from tests.simulation.cluster.grouping import TWIN, MemberClient
from tests.simulation.cluster.history import Appended, Content, History, Outcome
from tests.simulation.cluster.outage import Outage

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World

TOPICS = ("orders", "events")
STATIC_SHARE = 0.3


class ProbingClient(ClientProcess):
    """After healing: appends once to every partition, or to those given, trying until each has taken it."""

    def __init__(self, site: Site, topics: Topics) -> None:
        super().__init__(site)
        self.topics = topics
        self.given: list[tuple[str, int]] | None = None
        self.left: list[tuple[str, int]] = []

    async def work(self) -> None:
        producer = Producer(self.site.bootstrap, acks="all", idempotence=False)
        producer._seams = self.seams()
        await producer.open()
        every = [(name, index) for name, count in self.topics.counts.items() for index in range(count)]
        self.left = every if self.given is None else self.given
        await asyncio.gather(*(self._probe(producer, name, index) for name, index in list(self.left)))
        await producer.close()

    async def _probe(self, producer: Producer, name: str, index: int) -> None:
        while (name, index) in self.left:
            value = f"probe-{self.name}-{name}-{index}-{self.now}".encode()
            append = Appended(self.name, (value,), name, index, None, self.now)
            self.history.appended.append(append)
            try:
                done = await producer.append(name, index, [NewRecord(value, b"probe")], timeout=3.0)
            except PenstockError as error:
                append.outcome = self.tolerate(error, AppendingClient.ALLOWED, f"probing {name}-{index}")
                append.error = str(error)
                await self.pause(0.1)
            else:
                append.outcome, append.offsets = Outcome.ACKED, (done[0].offset,)
                self.left.remove((name, index))
            append.ended = self.now


class Workload:
    """Starts the clients, does to topics what the plan says, and ends in good order."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.history = History()
        self.topics = Topics()
        options = world.options
        self.admin = AdminClient(self._site("admin"), self.topics)
        self.clients: list[ClientProcess] = [
            ProducingClient(
                self._site(f"p{i}"), self.topics, records_per_s=options.records_per_s, keyed=options.cleanup
            )
            for i in range(1, options.producers + 1)
        ]
        self.clients += [
            ConsumingClient(self._site(f"c{i}"), self.topics, trimmed=options.cleanup)
            for i in range(1, options.consumers + 1)
        ]
        self.clients.append(AppendingClient(self._site("a1"), self.topics))
        self.members = [self._member(i) for i in range(1, options.members + 1)]
        self.probe = ProbingClient(self._site("probe"), self.topics)
        self.second_probe = ProbingClient(self._site("probe2"), self.topics)
        self.outage = Outage(world)
        self.reader = FinalReader(self._site("reader"), finds_times=options.cleanup)
        self._step = 0
        self._min_isr = (1, 2, 2, 3) if options.single_copies else (2, 2, 2, 3)

    def _site(self, host: str) -> Site:
        world = self._world
        rng = world.scheduler.rng(f"client {host}")
        return Site(world.scheduler, world.network, host, world.bootstrap, rng, self.history)

    def _member(self, number: int) -> MemberClient:
        group = group_of(self._world.checks)
        site = self._site(f"m{number}")
        instance_id = site.host if site.rng.random() < STATIC_SHARE else None
        if self._world.options.twins and number <= 2:
            instance_id = TWIN
        looks = self._world.scheduler.rng(f"looks {site.host}")
        member = MemberClient(site, self.topics, group, instance_id, looks)
        group.members.append(member)
        return member

    def hosts(self) -> list[str]:
        """Of all clients that take part in the faults."""
        return [client.site.host for client in (self.admin, *self.clients, *self.members)]

    # ---- the course

    def start(self) -> None:
        """Make the topics; the others follow when they are there."""
        self.admin.start()
        rng = self._world.scheduler.rng("topics")
        for name, partitions in zip(TOPICS, (self._world.options.partitions, 1), strict=True):
            config = {"min_insync_replicas": rng.choice(self._min_isr)}
            if self._world.options.cleanup:
                config |= cleaning.draw_config(rng)
            self.admin.create(name, partitions, 3, config)
        self._await_topics()

    def _await_topics(self) -> None:
        if not self.topics.counts:
            self._world.scheduler.after(0.05, self._await_topics)
            return
        for client in (*self.clients, *self.members):
            client.start()

    def finish(self) -> None:
        """The faults are over: end in good order, write to every partition, read everything."""
        for client in (self.admin, *self.clients):
            client.finish()
        self._go_on()

    def _go_on(self) -> None:
        if self._step == 0 and all(client.done for client in (self.admin, *self.clients)):
            self._step = 1
            self.probe.start()
        elif self._step == 1 and self.probe.done:
            if not self._world.options.outage:
                self._read()
            elif self.outage.may_begin:
                self._step = 2
                self.second_probe.given = self.outage.begin()
                self.second_probe.start()
        elif self._step == 2 and self.second_probe.done:
            self.outage.end()
            self._read()
        if self._step < 3:
            self._world.scheduler.after(0.05, self._go_on)

    def _read(self) -> None:
        """Read everything once no node shows former metadata any more, as one that was cut off may for a while.

        And once the group was given everything: then its members end in good order.
        """
        self._step = 3
        group = self._world.checks.group
        if self._world.checks.converged() is None and (group is None or group.is_drained()):
            for member in self.members:
                member.finish()
            if all(member.done for member in self.members):
                self.reader.start()
                return
        self._world.scheduler.after(0.05, self._read)

    @property
    def is_done(self) -> bool:
        return self.reader.done

    def unfinished(self) -> str:
        """What it still waits for."""
        every = (self.admin, *self.clients, *self.members, self.probe, self.second_probe, self.reader)
        clients = [client.name for client in every if client.incarnation and not client.done]
        left = self.probe.left + self.second_probe.left
        group = self._world.checks.group
        owed = "" if group is None else f", the group was not given {group.left()}"
        return f"clients {clients}, probes left {left}, last error {self.reader.last_error!r}{owed}"

    def check(self) -> None:
        """Compare what clients saw with what is there in the end."""
        content: Content | None = self.reader.content
        assert content is not None
        if self._world.checks.group is not None:
            self._world.checks.group.check(content)
        if self._world.options.cleanup:
            content = kept.complete(self._world.checks, content)
        rules.check_all(self.history, content)

    def close(self) -> None:
        for client in (self.admin, *self.clients, *self.members, self.probe, self.second_probe, self.reader):
            if client.incarnation:
                client.loop.close()

    # ---- what the plan asks for

    def _topic(self, value: float) -> str | None:
        names = list(self.topics.counts)
        return names[int(value * 100) % len(names)] if names else None

    def recreate_topic(self, value: float) -> None:
        """Delete the second topic and make it again."""
        if TOPICS[1] in self.topics.counts:
            config = cleaning.draw_config(random.Random(value)) if self._world.options.cleanup else None
            self.admin.recreate(TOPICS[1], 1, 3, config)

    def alter_min_isr(self, value: float) -> None:
        name = self._topic(value)
        if name is not None:
            self.admin.alter(name, {"min_insync_replicas": self._min_isr[int(value * 1000) % 4]})

    def alter_cleanup(self, value: float) -> None:
        """Change what of a topic is kept."""
        name = self._topic(value)
        if name is not None:
            self.admin.alter(name, cleaning.draw_config(random.Random(value)))

    def trim(self, value: float) -> None:
        """Ask the leader of a partition to delete the records below an offset."""
        world = self._world
        rng, keys = random.Random(value), sorted(world.checks.partitions(internal=False))
        key = rng.choice(keys) if keys else None
        machine = None if key is None else world.leader_of(key)
        broker = None if machine is None else machine.broker
        partition = None if key is None or broker is None else broker.replicas.find(key)
        if key is None or machine is None or machine.process is None or partition is None:
            return
        start, mark = partition.log_start_offset, partition.high_watermark
        asked = None if rng.random() < 0.15 else int(start + (mark - start) * rng.random() ** 2) + (rng.random() < 0.05)
        truth = world.checks.truth(key)
        truth.trim_asked = max(truth.trim_asked, mark if asked is None else asked)

        async def ask() -> None:
            try:
                begins = await partition.trim(asked, None, 2.0)
            except ProtocolError as error:
                world.trace("trim", str(key), asked, error.reason.name)
            else:
                world.trace("trim", str(key), asked, begins)
                world.checks.count("trims")
                truth.trims.append((partition.leader_epoch, begins))

        loop = machine.process.loop
        loop.run(lambda: loop.create_task(ask()))

    def add_partitions(self, value: float) -> None:
        name = self._topic(value)
        if name is not None and self.topics.counts[name] < 4:
            self.admin.grow(name)

    def member(self, value: float) -> MemberClient:
        """Choose a member of the group."""
        return self.members[int(value * 100) % len(self.members)]

    def crash_client(self, value: float) -> None:
        client = self.clients[int(value * 100) % len(self.clients)]
        client.crash_and_restart(0.1 + value)

    def reassign(self, value: float) -> None:
        """Ask any node for another replica set of a partition."""
        world = self._world
        rng, keys = random.Random(value), sorted(world.checks.partitions())
        ready = [machine for machine in world.machines.values() if machine.broker is not None]
        if not keys or not ready:
            return
        machine, key = rng.choice(ready), rng.choice(keys)
        target: list[int] = rng.sample(list(world.machines), rng.choice((3, 3, 2, 1)))
        if rng.random() < 0.2:
            target = []  # back to what was before
        broker, process = machine.broker, machine.process
        assert broker is not None
        assert process is not None
        request = controller_pb2.ReassignPartitionsRequest()
        request.targets.add(topic_id=key.topic_id, partition=key.partition, replicas=target)

        async def ask() -> None:
            try:
                answer = await broker.controller_client.reassign_partitions(request, 2.0)
            except ProtocolError as error:
                world.trace("reassign", str(key), target, error.reason.name)
            else:
                world.trace("reassign", str(key), target, answer.changes[0].refusal)

        process.loop.run(lambda: process.loop.create_task(ask()))
