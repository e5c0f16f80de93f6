"""Changers: make, grow, alter and delete topics of their own; after each change they look at the topic.

A changer has a few names, which it uses again and again and never writes to; besides it makes topics of fresh names,
writes to them, reads them back, and leaves them there. No two changers share a name, so what a changer is told is
explained by its own changes alone.
"""

from collections.abc import Awaitable

from penstock.chaos.workload.appending import Appending
from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.chaos.workload.reading import Reading
from penstock.client import (
    Admin,
    PenstockError,
    Producer,
    TopicDescription,
    TopicPartition,
    UnknownTopicError,
)

FRESH_SHARE = 0.15
"""Of a changer's turns."""
FRESH_PARTITIONS = 2
FRESH_APPENDS = 4
APPEND_TIMEOUT_S = 10.0
READ_TURNS = 5
"""Polls, a second each at most, after which a fresh topic that cannot be read now is left to the final reading."""
ABSENT = 0


class Changer(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access) -> None:
        super().__init__(common, host, "change", number, access)
        self._options = common.options.changers
        names = (common.topic(f"changed-{host}-{number}-{index}") for index in range(self._options.most_topics))
        self._known: dict[str, int | None] = dict.fromkeys(names, ABSENT)
        """Number of partitions; ABSENT; None: not known."""
        self._fresh = common.topic(f"fresh-{host}-{number}")
        self._fresh_made = 0

    async def run(self) -> None:
        """See Process."""
        access = self.access
        async with (
            Admin(access.bootstrap, timeout_ms=self._options.timeout_ms, address_map=access.address_map) as admin,
            Producer(access.bootstrap, idempotence=False, address_map=access.address_map) as producer,
        ):
            while await self.pause(self.rng.uniform(0.5, 1.5) * self._options.every_s):
                if self._fresh_made < self._options.most_fresh and self.rng.random() < FRESH_SHARE:
                    await self._use_fresh(admin, producer)
                else:
                    await self._change_one(admin, self.rng.choice(list(self._known)))

    # -- topics that change

    async def _change_one(self, admin: Admin, name: str) -> None:
        partitions = self._known[name]
        if partitions == ABSENT:
            await self._create(admin, name, self.rng.randint(1, 3), self._options.replication)
        elif partitions is not None:
            draw = self.rng.random()
            if draw < 0.3 and partitions < self._options.most_partitions:
                await self._grow(admin, name, partitions + self.rng.randint(1, 2))
            elif draw < 0.6:
                await self._alter(admin, name)
            else:
                await self._delete(admin, name)
        self._known[name] = await self._describe(admin, name)

    async def _create(self, admin: Admin, name: str, partitions: int, replication: int) -> bool:
        call = admin.create_topic(name, partitions, replication)
        return await self._change("create_topic", call, topic=name, partitions=partitions, replication=replication)

    async def _grow(self, admin: Admin, name: str, partitions: int) -> None:
        call = admin.add_partitions(name, partitions)
        await self._change("add_partitions", call, topic=name, partitions=partitions)

    async def _alter(self, admin: Admin, name: str) -> None:
        config = {"retention_bytes": self.rng.randint(1, 1 << 20) * 1024}
        await self._change("alter_topic", admin.alter_topic(name, config), topic=name, config=config)

    async def _delete(self, admin: Admin, name: str) -> None:
        await self._change("delete_topic", admin.delete_topic(name), topic=name)

    async def _change(self, f: str, call: Awaitable[TopicDescription | None], **fields: object) -> bool:
        """Make a change and note what came of it; say whether it was acknowledged."""
        pending = self.invoke(f, **fields)
        try:
            topic = await call
        except PenstockError as error:
            self.refused(pending, error)
            return False
        self.ok(pending, **({"topic_id": topic.topic_id.hex()} if topic is not None else {}))
        return True

    async def _describe(self, admin: Admin, name: str) -> int | None:
        """Look at a topic and note what is there: its partitions, ABSENT, or None where nobody says."""
        began = self.recorder.now()
        try:
            topic = await admin.describe_topic(name)
        except UnknownTopicError:
            self.recorder.read(
                self.name, "describe_topic", began, topic=name, exists=False, topic_id=None, partitions=0
            )
            return ABSENT
        except PenstockError:
            return None
        count = len(topic.partitions)
        topic_id = topic.topic_id.hex()
        self.recorder.read(
            self.name, "describe_topic", began, topic=name, exists=True, topic_id=topic_id, partitions=count
        )
        return count

    # -- fresh topics

    async def _use_fresh(self, admin: Admin, producer: Producer) -> None:
        self._fresh_made += 1
        name = f"{self._fresh}-{self._fresh_made}"
        if not await self._create(admin, name, FRESH_PARTITIONS, self._options.fresh_replication):
            return
        await self._describe(admin, name)
        appending = Appending(self, producer, APPEND_TIMEOUT_S)
        for _ in range(FRESH_APPENDS):
            if self.is_stopping:
                return
            partition = TopicPartition(name, self.rng.randrange(FRESH_PARTITIONS))
            await appending.append(partition, self.rng.randint(1, 3), appending.ends.get(partition))
        if appending.ends:
            await self._read_back(appending.ends)

    async def _read_back(self, ends: dict[TopicPartition, int]) -> None:
        reading = Reading(self, self.rng.choice(("read_uncommitted", "read_committed")))
        reading.begin(dict.fromkeys(ends, 0))
        async with reading.consumer(self.access) as consumer:
            try:
                await reading.resume(consumer)
                for _ in range(READ_TURNS):
                    if self.is_stopping or all(reading.positions[p] >= end for p, end in ends.items()):
                        return
                    await reading.poll(consumer, 1_000, 1.0)
            except PenstockError:
                return  # the final reading has it
