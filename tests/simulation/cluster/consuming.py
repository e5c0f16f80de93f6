"""Clients that read: one during the faults, and one that reads everything after them."""

import asyncio

from penstock.client import Admin, Consumer, OffsetOutOfRangeError, PenstockError, Record, Timestamp, TopicPartition
from penstock.client.options import ConsumerOptions
from penstock.protocol.reasons import Reason
from tests.simulation.cluster.cleaning import identity
from tests.simulation.cluster.clocks import EPOCH_S
from tests.simulation.cluster.history import Content, Reading, Row, Spot, TimeFound
from tests.simulation.cluster.process import ALLOWED, ClientProcess, Site, Topics


class ConsumingClient(ClientProcess):
    """Reads all partitions of its topics from the beginning; seeks back, pauses, opens a new consumer now and then.

    Asked to finish, it reads what there is then, however long that takes.
    """

    def __init__(self, site: Site, topics: Topics, *, trimmed: bool = False) -> None:
        """`trimmed`: logs may begin later than where it reads."""
        super().__init__(site)
        self.topics = topics
        self._trimmed = trimmed
        self._readings: dict[TopicPartition, Reading] = {}
        self._has_gone_ahead = False
        """It has asked for an offset that may not be there."""

    async def work(self) -> None:
        has_all = False
        while not has_all:
            options: ConsumerOptions = {"prefetch_bytes": self.rng.choice((500, 1 << 20))}
            if self._trimmed:
                options["auto_offset_reset"] = self.rng.choice(("error", "earliest"))
            consumer = Consumer(self.site.bootstrap, **options)
            consumer._seams = self.seams()
            await consumer.open()
            try:
                await self._assign(consumer)
                while not self.stopping.is_set() and self.rng.random() > 0.01:
                    await self._poll(consumer)
                if self.stopping.is_set():
                    await self._catch_up(consumer)
                    has_all = True
            except PenstockError as error:
                self._explain(error)
                await asyncio.sleep(0.2 * self.rng.random())
            finally:
                await consumer.close()

    async def _assign(self, consumer: Consumer) -> None:
        await consumer.assign_topics(list(self.topics.counts), "earliest")
        self._readings = {}
        for partition in consumer.assignment():
            self._begin_reading(consumer, partition)

    def _begin_reading(self, consumer: Consumer, partition: TopicPartition) -> None:
        """From the present position on."""
        cursor = consumer._fetcher.cursors[partition]
        spot = Spot(cursor.topic_id, partition.partition)
        reading = Reading(self.name, spot, partition.topic, cursor.position)
        self._readings[partition] = reading
        self.history.readings.append(reading)

    async def _poll(self, consumer: Consumer) -> None:
        await self._read(consumer, self.rng.choice((1, 10, 500)))
        await self._change_something(consumer)

    async def _catch_up(self, consumer: Consumer) -> None:
        """Read what there is now."""
        consumer.resume(*consumer.paused())
        ends = await consumer.end_offsets(consumer.assignment())
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            await self._read(consumer, 500)

    async def _read(self, consumer: Consumer, count: int) -> None:
        self.look_after([*consumer._fetcher._tasks, *consumer._session.metadata._tasks])
        records = await consumer.poll(count, timeout=0.5)
        for record in records:
            row = row_of(record)
            self._readings[TopicPartition(record.topic, record.partition)].rows.append(row)
        if records:
            self.trace("read", [(record.partition, record.offset, record.value) for record in records])

    async def _change_something(self, consumer: Consumer) -> None:
        draw = self.rng.random()
        if draw > 0.08:
            return
        partition = self.rng.choice(consumer.assignment())
        if draw < 0.03:
            consumer.pause(partition)
        elif draw < 0.035:
            self._has_gone_ahead = True
            await consumer.seek(partition, consumer.position(partition) + self.rng.randint(1, 30))
            self._begin_reading(consumer, partition)
        elif draw < 0.05:
            await consumer.seek(partition, self.rng.randint(0, consumer.position(partition)))
            self._begin_reading(consumer, partition)
        else:
            consumer.resume(*consumer.paused())

    def _explain(self, error: PenstockError) -> None:
        """An offset out of range is explained by a seek above the end, or by a topic that is another one now."""
        deleted = any(map(self.history.is_ever_deleted, self.topics.counts))
        moved = isinstance(error, OffsetOutOfRangeError) and (self._has_gone_ahead or deleted or self._trimmed)
        if not moved:
            self.tolerate(error, ALLOWED, "reading")
        self.trace("read", str(error))


def row_of(record: Record) -> Row:
    """As the history keeps it."""
    return Row(record.offset, record.leader_epoch, identity(record.value, record.headers))


class FinalReader(ClientProcess):
    """Reads all topics from earliest to latest, as often as it takes, and gives `content` once it has all."""

    def __init__(self, site: Site, *, finds_times: bool = False) -> None:
        """`finds_times`: it looks for offsets by time, too; and logs may begin later than where it reads."""
        super().__init__(site)
        self._finds_times = finds_times
        self.content: Content | None = None
        self.last_error = ""

    async def work(self) -> None:
        while self.content is None:
            try:
                self.content = await self._read()
            except PenstockError as error:
                trimmed = self._finds_times and error.reason is Reason.OFFSET_BELOW_START
                if error.reason is Reason.INTERNAL or not (trimmed or isinstance(error, ALLOWED)):
                    raise
                self.last_error = str(error)
                await self.pause(0.1)

    async def _read(self) -> Content:
        admin, consumer = Admin(self.site.bootstrap, timeout_ms=5_000), Consumer(self.site.bootstrap)
        admin._seams = consumer._seams = self.seams()
        await admin.open()
        await consumer.open()
        try:
            content = Content()
            for topic in await admin.list_topics():
                content.names[topic.name] = topic.topic_id
            if content.names:
                await self._read_topics(consumer, content)
                if self._finds_times:
                    await self._find_times(admin, content)
        finally:
            await consumer.close()
            await admin.close()
        return content

    async def _read_topics(self, consumer: Consumer, content: Content) -> None:
        await consumer.assign_topics(list(content.names), "earliest")
        ends = await consumer.end_offsets(consumer.assignment())
        for partition in ends:
            content.rows[Spot(content.names[partition.topic], partition.partition)] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for record in await consumer.poll(10_000, timeout=5.0):
                spot = Spot(content.names[record.topic], record.partition)
                content.rows[spot].append(row_of(record))

    async def _find_times(self, admin: Admin, content: Content) -> None:
        for name, topic_id in content.names.items():
            for _ in range(3):
                asked_ms = int((EPOCH_S + self.now * self.rng.random()) * 1000)
                for found in await admin.list_offsets(name, Timestamp(asked_ms)):
                    spot = Spot(topic_id, found.partition)
                    content.times.append(TimeFound(spot, asked_ms, found.offset, found.timestamp_ms))
