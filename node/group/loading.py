"""Reading a partition of __offsets from its beginning to the end that a new coordinator finds.

Of each key the last value is gathered, and only that is decoded: most of a busy log are commits that later ones have
replaced. This is done in a thread, in portions, so that the loop goes on meanwhile.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from penstock.node.clock import occasion
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.records import InvalidRecordError, OffsetsRecord, decode
from penstock.node.partition import Partition, ReadRequest
from penstock.protocol.batch import parse
from penstock.protocol.batch import read as read_records
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.storage import LogBatch
from penstock.v1 import common_pb2, record_pb2

LOG = logging.getLogger(__name__)
READ_BYTES = 512 * 1024
"""A portion: some 10,000 commits."""
LOOK_S = 0.2
"""The end of a new leader's log is looked for again after this, if nothing tells before."""
UNCOMMITTED = common_pb2.ISOLATION_READ_UNCOMMITTED

Latest: TypeAlias = dict[bytes, bytes | None]
"""Of each key the last value; None: a tombstone."""


async def load(partition: Partition, leader_epoch: int) -> OffsetTable:
    """Read all that is committed. Raises NOT_LEADER, STALE_LEADER_EPOCH where the leadership ends."""
    end = await _known_end(partition, leader_epoch)
    latest: Latest = {}
    offset = partition.log_start_offset
    while offset < end:
        batches = await partition.read(ReadRequest(offset, READ_BYTES, UNCOMMITTED, leader_epoch))
        if not batches:
            raise PenstockError(Reason.NOT_LEADER, f"the log of {partition.key} ends below the end that was found")
        await asyncio.to_thread(gather, latest, batches)
        offset = batches[-1].last_offset + 1
    return await asyncio.to_thread(table_of, latest)


async def _known_end(partition: Partition, leader_epoch: int) -> int:
    """Rule 12: a coordinator serves only what is known to be committed."""
    progress = asyncio.Event()
    unsubscribe = partition.on_progress(progress.set)
    try:
        while True:
            progress.clear()
            try:
                return partition.latest(leader_epoch, UNCOMMITTED).offset
            except PenstockError as error:
                if error.reason is not Reason.LEADER_NOT_AVAILABLE:
                    raise
            await occasion(progress, LOOK_S)
    finally:
        unsubscribe()


def gather(latest: Latest, batches: Sequence[LogBatch]) -> None:
    """Note the records of batches, in order."""
    for batch in batches:
        _, message = parse(batch.payload)
        for record in read_records(message):
            latest[record.key] = record.value if record.HasField("value") else None


def table_of(latest: Latest) -> OffsetTable:
    """What is committed, by the last value of each key. What nobody can read is left out, and said."""
    table = OffsetTable()
    for key, value in latest.items():
        try:
            record = decode(key, value)
        except InvalidRecordError as error:
            LOG.error("in __offsets, by key %s: %s", key.hex(), error)  # noqa: TRY400  no fault of this code
            continue
        if record is not None:
            table.apply(record)
    return table


def records_of(batch: LogBatch) -> Iterator[tuple[record_pb2.Record, OffsetsRecord]]:
    """The records that this version knows. One that nobody can read is left out, and said: its CRC was right."""
    _, message = parse(batch.payload)
    for record in read_records(message):
        try:
            known = decode(record.key, record.value if record.HasField("value") else None)
        except InvalidRecordError as error:
            LOG.error("offset %d of __offsets: %s", batch.base_offset + record.offset_delta, error)  # noqa: TRY400  no fault of this code
            continue
        if known is not None:
            yield record, known
