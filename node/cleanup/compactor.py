"""Asking a process of its own to plan a compaction (storage.compactor), and reading what it answers."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from penstock.internal.v1 import compaction_pb2 as pb
from penstock.storage import Compact, DamagedStoreError, Log, StaleCompactionError, StorageError
from penstock.storage.compaction_run import Task
from penstock.storage.compactor import LENGTH

LOG = logging.getLogger(__name__)
MAX_FRAME_BYTES = 1 << 30


class Planned(NamedTuple):
    """A write of a compaction, in their order. `due_ms` with the last one: see compaction_run.End."""

    write: Compact
    last: bool = False
    records: int = 0
    keys: int = 0
    due_ms: int | None = None


async def plan(store_path: Path, map_bytes: int, log: Log, task: Task) -> AsyncIterator[Planned]:
    """The writes. Raises StaleCompactionError, DamagedStoreError, StorageError; the process ends with the iteration."""
    request = pb.CompactionRequest(
        store_path=str(store_path),
        map_bytes=map_bytes,
        local_id=log.local,
        now_ms=task.now_ms,
        delete_retention_ms=task.delete_retention_ms,
        min_lag_ms=task.min_lag_ms,
        passed_offset=task.passed_offset,
        max_key_bytes=task.max_key_bytes,
    ).SerializeToString()
    process = _started(LENGTH.pack(len(request)) + request)
    try:
        frames = await _reader(process)
        try:
            while True:
                planned = _planned(log, await _frame(frames.stream))
                yield planned
                if planned.last:
                    return
        finally:
            frames.transport.close()
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _started(request: bytes) -> subprocess.Popen[bytes]:
    """Start it by the subprocess module, on the loop's thread.

    The loop's own way (uvloop) forks, and gRPC's threads and handlers make that fail now and then: the child ended by a
    signal before it was another program. The module does not fork where the system knows better (vfork). The thread is
    that which lives as long as the node: the child ends with it.
    """
    command = [sys.executable, "-m", "penstock.storage.compactor"]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  ours
    except OSError as error:
        raise StorageError(f"the compaction's process cannot be started: {error}") from error
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # ended at once: then there is no answer either
            process.stdin.write(request)  # much less than a pipe holds, so this does not wait
    return process


class _Frames(NamedTuple):
    stream: asyncio.StreamReader
    transport: asyncio.ReadTransport


async def _reader(process: subprocess.Popen[bytes]) -> _Frames:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), process.stdout)
    return _Frames(stream, transport)


async def _frame(stream: asyncio.StreamReader) -> pb.CompactionFrame:
    try:
        (length,) = LENGTH.unpack(await stream.readexactly(LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise StorageError(f"the compaction's process sends a frame of {length} bytes")
        return pb.CompactionFrame.FromString(await stream.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise StorageError("the compaction's process ended before it was done; its stderr is this node's") from error


def _planned(log: Log, frame: pb.CompactionFrame) -> Planned:
    kind = frame.WhichOneof("kind")
    if kind == "step":
        return Planned(_write_of(log, frame.step))
    if kind == "end":
        end = frame.end
        # No batch is replaced: at its own place, which is in the log whatever was trimmed since.
        at = end.cleaned_offset
        write = Compact(log, (end.data_id, end.cuts), at, at, (), (), cleaned_offset=at)
        return Planned(write, True, end.records_read, end.keys, end.due_ms if end.HasField("due_ms") else None)  # noqa: FBT003
    failure = frame.failure
    if failure.damaged:
        raise DamagedStoreError(failure.message)
    if failure.stale:
        raise StaleCompactionError(failure.message)
    raise StorageError(f"a compaction failed: {failure.message or 'for an unknown reason'}")


def _write_of(log: Log, step: pb.CompactionStep) -> Compact:
    return Compact(
        log,
        (step.data_id, step.cuts),
        step.start_offset,
        step.end_offset,
        tuple((batch.base_offset, batch.payload_crc) for batch in step.replaced),
        tuple((row.base_offset, row.row) for row in step.rows),
        step.tombstones_below,
    )
