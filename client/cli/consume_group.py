"""`penstock consume --group`: records as a member of a group; what was written out is what gets committed."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from penstock.client import Admin, CommitPoint, Consumer, Record, TopicPartition
from penstock.client.options import ConsumerOptions

POLL_RECORDS = 5_000
POLL_TIMEOUT_S = 0.5
CLIENT_ID = "penstock-consume"


@dataclass(frozen=True, slots=True)
class GroupJob:
    """What to read as whom, and when to stop."""

    servers: str
    group: str
    topics: tuple[str, ...]
    start: Literal["earliest", "latest"]
    """In partitions of which the group has committed nothing."""
    commits: bool
    exit_at_end: bool
    max_records: int | None
    options: ConsumerOptions


async def read_in_group(job: GroupJob, write: Callable[[Sequence[Record]], None]) -> None:
    """Read until done or cancelled, commit what was written, leave the group.

    A record that could not be written is not committed: nobody asks past it.
    """
    task = cast("asyncio.Task[None]", asyncio.current_task())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    ends = await _ends(job) if job.exit_at_end else None
    options: ConsumerOptions = {
        **job.options,
        "group": job.group,
        "topics": job.topics,
        "client_id": CLIENT_ID,
        "start": job.start,
        "auto_commit": job.commits,
    }
    async with Consumer(job.servers, **options) as consumer:
        written: dict[TopicPartition, CommitPoint] = {}
        try:
            await _follow(job, consumer, ends, write, written)
        finally:
            mine = {one: written[one] for one in consumer.assignment() if one in written}
            if job.commits and mine:
                await consumer.commit(mine)


async def _follow(
    job: GroupJob,
    consumer: Consumer,
    ends: Mapping[TopicPartition, int] | None,
    write: Callable[[Sequence[Record]], None],
    written: dict[TopicPartition, CommitPoint],
) -> None:
    """Read and write; `written` is told how far."""
    left = job.max_records
    while left != 0 and (ends is None or not _at_end(consumer, ends)):
        records = await consumer.poll(POLL_RECORDS if left is None else min(left, POLL_RECORDS), POLL_TIMEOUT_S)
        if not records:
            continue
        write(records)
        for one in records:
            written[TopicPartition(one.topic, one.partition)] = CommitPoint(one.offset + 1, one.leader_epoch)
        if left is not None:
            left -= len(records)


async def _ends(job: GroupJob) -> dict[TopicPartition, int]:
    """Where the logs end before the group is joined."""
    async with Admin(job.servers, timeout_ms=job.options["request_timeout_ms"]) as admin:
        found = [one for topic in job.topics for one in await admin.list_offsets(topic)]
    return {TopicPartition(one.topic, one.partition): one.offset for one in found}


def _at_end(consumer: Consumer, ends: Mapping[TopicPartition, int]) -> bool:
    """Whether the member has partitions, and is at the end of all of them."""
    member, reading = consumer.group_member, set(consumer.assignment())
    mine = () if member is None else member.assignment
    return bool(mine) and all(one in reading and consumer.position(one) >= ends.get(one, 0) for one in mine)
