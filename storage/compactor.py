"""The process that plans one compaction: `python -m penstock.storage.compactor`, its request on stdin.

A process and not a thread: it parses every record, and would keep the node from everything else meanwhile. It reads the
node's LMDB environment, in short transactions, and answers with finished rows on stdout; the node writes them. It ends
with the node that asked, and asks the machine to be served last.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import lmdb

from penstock.internal.v1 import compaction_pb2 as pb
from penstock.storage import layout
from penstock.storage.compaction import Step
from penstock.storage.compaction_run import End, Run, Task
from penstock.storage.errors import DamagedStoreError, LogDroppedError, StaleCompactionError, StorageError
from penstock.storage.log import Log
from penstock.storage.rows import Rows

LENGTH = struct.Struct(">I")
NICENESS = 10
_PR_SET_PDEATHSIG = 1


class ReadOnlyEnvironment:
    """The store of a running node, to be read by its logs."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self._lmdb = lmdb.open(
            str(path), map_size=map_bytes, max_dbs=len(layout.DATABASES), readonly=True, create=False, readahead=True
        )
        self.db: dict[str, Any] = {name: self._lmdb.open_db(name.encode(), create=False) for name in layout.DATABASES}

    def begin(self) -> Any:
        """Begin a read transaction; reads give memoryviews that live as long as it does."""
        return self._lmdb.begin(buffers=True)

    def tell(self, error: DamagedStoreError) -> None:
        """Told by the frame that the compaction ends with."""

    def log(self, local: int) -> Log:
        """The log of a local id. Raises LogDroppedError, DamagedStoreError."""
        with self.begin() as txn:
            body = Rows(txn, self.db).get("partitions", layout.LOCAL.pack(local))
        if body is None:
            raise LogDroppedError("the log was dropped")
        row = layout.unpack_log(body)
        return Log(self, row.key, local, row.state)


def frames(request: pb.CompactionRequest) -> Iterator[pb.CompactionFrame]:
    """All that is answered to a request."""
    try:
        log = ReadOnlyEnvironment(Path(request.store_path), request.map_bytes).log(request.local_id)
        run = Run(log, task_of(request))
        for item in run.steps():
            yield frame_of(item, run.content)
    except (StaleCompactionError, LogDroppedError) as error:
        yield pb.CompactionFrame(failure=pb.CompactionFailure(stale=True, message=str(error)))
    except DamagedStoreError as error:
        yield pb.CompactionFrame(failure=pb.CompactionFailure(damaged=True, message=str(error)))
    except (StorageError, lmdb.Error, MemoryError) as error:
        yield pb.CompactionFrame(failure=pb.CompactionFailure(message=f"{type(error).__name__}: {error}"))


def task_of(request: pb.CompactionRequest) -> Task:
    """What is asked for."""
    return Task(
        request.now_ms,
        request.delete_retention_ms,
        request.min_lag_ms,
        request.passed_offset,
        request.max_key_bytes,
    )


def frame_of(item: Step | End, content: tuple[int, int]) -> pb.CompactionFrame:
    """A step, or the end, as it is sent."""
    data, cuts = content
    if isinstance(item, End):
        end = pb.CompactionEnd(
            data_id=data,
            cuts=cuts,
            cleaned_offset=item.cleaned_offset,
            records_read=item.records,
            keys=item.keys,
            due_ms=item.due_ms,
        )
        return pb.CompactionFrame(end=end)
    step = pb.CompactionStep(
        data_id=data,
        cuts=cuts,
        start_offset=item.start,
        end_offset=item.end,
        replaced=[pb.ReplacedBatch(base_offset=base, payload_crc=crc) for base, crc in item.replaced],
        rows=[pb.CompactedRow(base_offset=base, row=row) for base, row in item.rows],
        tombstones_below=item.tombstones_below,
    )
    return pb.CompactionFrame(step=step)


def main(source: BinaryIO, target: BinaryIO) -> None:
    """Serve one request."""
    (length,) = LENGTH.unpack(source.read(LENGTH.size))
    request = pb.CompactionRequest.FromString(source.read(length))
    for frame in frames(request):
        data = frame.SerializeToString()
        target.write(LENGTH.pack(len(data)) + data)
        target.flush()


def _end_with_parent() -> None:
    """Where the system can do that (Linux): elsewhere the broken pipe ends this process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _end_with_parent()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(BrokenPipeError):
        main(sys.stdin.buffer, sys.stdout.buffer)
