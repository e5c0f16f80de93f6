"""Reading a whole topic back; waiting until a cluster is well."""

from penstock.client import Admin, Consumer, TopicPartition


async def read_all(bootstrap: str, topic: str) -> dict[TopicPartition, list[tuple[int, bytes]]]:
    """Every record of the topic up to the present ends: offset and value, by partition."""
    found: dict[TopicPartition, list[tuple[int, bytes]]] = {}
    async with Consumer(bootstrap) as consumer:
        await consumer.assign_topics([topic], start="earliest")
        ends = await consumer.end_offsets(consumer.assignment())
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for record in await consumer.poll(10_000, timeout=5.0):
                assert record.value is not None
                partition = TopicPartition(record.topic, record.partition)
                found.setdefault(partition, []).append((record.offset, record.value))
    return found


async def healthy(admin: Admin) -> None:
    """Wait until every replica is in sync and every voter votes (again)."""
    while not (await admin.health()).healthy:
        pass
