"""What a durable commit costs: one batch at a time, large batches, and a batch for each of many partitions.

    python -m benchmarks.storage_commit [--path DIR] [--seconds S]

Beside each figure is that of a bare file written and fsynced in the same run, since disks differ.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from penstock.protocol.batch import NewRecord, ProducerStamp, build, header_of
from penstock.storage import LogBatch, PartitionKey, Store
from penstock.storage.commit import Committer
from penstock.storage.log import Log
from penstock.storage.writes import Append, CheckpointHighWatermark, CreateLog, Write

PARTITIONS = 1_000
SMALL, MEDIUM, LARGE = 1_024, 64 * 1024, 1024 * 1024


class Feed:
    """The next batch of one log, one record of a given size, of an idempotent producer."""

    def __init__(self, log: Log, size: int, producer_id: int) -> None:
        self.log = log
        self.size = size
        self.end = log.state.log_end_offset
        self._stamp = producer_id
        message = build([NewRecord(None, os.urandom(size), 1_700_000_000_000)], stamp=ProducerStamp(producer_id, 0, 0))
        self._header, self._payload = header_of(message), message.SerializeToString()

    def next(self) -> Append:
        """An append of one batch. The payload's stamp stays that of the first batch; the store reads the header."""
        offset, self.end = self.end, self.end + 1
        header = self._header._replace(base_sequence=offset, base_timestamp_ms=offset, max_timestamp_ms=offset)
        return Append(self.log, 0, (LogBatch(offset, offset, 0, offset, header, self._payload),))


def percentiles(samples: list[float]) -> str:
    """P50 and p99 in ms."""
    ordered = sorted(samples)
    return f"p50 {ordered[len(ordered) // 2] * 1e3:.2f} ms, p99 {ordered[len(ordered) * 99 // 100] * 1e3:.2f} ms"


def timed(seconds: float, steps: Iterator[None]) -> tuple[list[float], float]:
    """Durations of the rounds of that many seconds, and the processor time of one."""
    samples: list[float] = []
    cpu = time.process_time()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        began = time.perf_counter()
        next(steps)
        samples.append(time.perf_counter() - began)
    return samples, (time.process_time() - cpu) / len(samples)


def file_rounds(path: Path, size: int) -> Iterator[None]:
    """Append and fsync a bare file."""
    data = os.urandom(size)
    with (path / "bare").open("wb", buffering=0) as file:
        while True:
            file.write(data)
            os.fsync(file.fileno())
            yield


def store_rounds(committer: Committer, feeds: list[Feed]) -> Iterator[None]:
    """Commit one batch for each feed; every 100 rounds the high watermark's checkpoint, as a node does."""
    count = 0
    while True:
        writes: list[Write] = [feed.next() for feed in feeds]
        if count % 100 == 99:
            writes += [CheckpointHighWatermark(feed.log, feed.end - 1) for feed in feeds]
        outcomes = committer.commit(writes)
        if any(outcome.error for outcome in outcomes):
            raise SystemExit(f"commit failed: {outcomes[0].error}")
        count += 1
        yield


def report(name: str, size: int, measured: tuple[list[float], float]) -> None:
    """One line."""
    samples, cpu = measured
    rate = size * len(samples) / sum(samples) / 1e6
    sys.stdout.write(f"{name:44} {percentiles(samples)}, {rate:,.1f} MB/s, processor {cpu * 1e3:.2f} ms\n")


def run(path: Path, seconds: float) -> None:
    """All figures."""
    Store.format(path / "store", cluster_id="bench", node_id=1)
    store = Store.open(path / "store")
    committer = Committer(store)
    outcomes = committer.commit([CreateLog(PartitionKey(bytes(16), index)) for index in range(PARTITIONS)])
    logs = [outcome.log for outcome in outcomes if outcome.log is not None]
    cases = [("1 KiB", SMALL, 1), ("64 KiB", MEDIUM, 1), ("1 MiB", LARGE, 1), ("8 x 1 MiB", LARGE, 8)]
    for name, size, count in cases:
        feeds = [Feed(log, size, 1) for log in logs[:count]]
        report(f"bare file, {name}", size * count, timed(seconds / 2, file_rounds(path, size * count)))
        report(f"store, {name}", size * count, timed(seconds, store_rounds(committer, feeds)))
    feeds = [Feed(log, SMALL, 1) for log in logs]
    samples, cpu = timed(seconds, store_rounds(committer, feeds))
    report(f"store, 1 KiB for each of {PARTITIONS} partitions", SMALL * PARTITIONS, (samples, cpu))
    mean = sum(samples) / len(samples)
    sys.stdout.write(
        f"  a batch: {mean / PARTITIONS * 1e6:.1f} us with the fsync, processor {cpu / PARTITIONS * 1e6:.1f} us\n"
    )
    store.close()


def main() -> None:
    """Entry point."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--path", type=Path, help="directory on the disk to measure")
    arguments.add_argument("--seconds", type=float, default=2.0)
    options = arguments.parse_args()
    path = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=options.path))
    try:
        run(path, options.seconds)
    finally:
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
