"""`penstock consume --group`: records as a member of a group; what was written out is what gets committed."""

import asyncio
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from penstock.client import Admin, Consumer, OffsetOutOfRangeError, Record, RequestTimeoutError, TopicPartition
from penstock.client.options import ConsumerOptions
from penstock.protocol.reasons import Reason

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

    Where writing fails, what was written before is committed and no more: nobody asks past the rest.
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
        try:
            await _follow(job, consumer, ends, write)
        except asyncio.CancelledError:
            await _commit(job, consumer)
            raise
        except OffsetOutOfRangeError as error:
            raise _with_a_way_out(job, error) from error
        await _commit(job, consumer)


async def _follow(
    job: GroupJob,
    consumer: Consumer,
    ends: Mapping[TopicPartition, int] | None,
    write: Callable[[Sequence[Record]], None],
) -> None:
    left, has_joined = job.max_records, False
    until = asyncio.get_running_loop().time() + job.options["request_timeout_ms"] / 1000
    while left != 0 and (ends is None or not _at_end(consumer, ends)):
        records = await consumer.poll(POLL_RECORDS if left is None else min(left, POLL_RECORDS), POLL_TIMEOUT_S)
        if records:
            write(records)
        has_joined = has_joined or _has_joined(consumer)
        if not has_joined and asyncio.get_running_loop().time() > until:
            text = f"group {job.group!r} could not be joined within {job.options['request_timeout_ms']} ms"
            raise RequestTimeoutError(Reason.NOT_SERVING, f"{text}; see `penstock cluster health`")
        if left is not None:
            left -= len(records)


def _has_joined(consumer: Consumer) -> bool:
    member = consumer.group_member
    return member is not None and member.joined


async def _commit(job: GroupJob, consumer: Consumer) -> None:
    """Commit all that was handed out, for all of it was written; closing commits only what was asked past."""
    if job.commits:
        await consumer.commit()


def _with_a_way_out(job: GroupJob, error: OffsetOutOfRangeError) -> OffsetOutOfRangeError:
    """The same would happen at each start, and to whoever gets the partition."""
    to = "earliest" if error.reason is Reason.OFFSET_BELOW_START else "latest"
    way = f"stop the group and move it: penstock group seek {shlex.quote(job.group)} --topic TOPIC:PARTITION --to {to}"
    return OffsetOutOfRangeError(error.reason, f"{error.message}; {way}", error.metadata)


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
