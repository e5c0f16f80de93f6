"""How long it takes to open a store, by what is in it: the same at 10 MB and at gigabytes.

    python -m benchmarks.storage_open [--path DIR] [--sizes-mb 10,4096] [--partitions 100]

Each size is opened by a process of its own, with the page cache dropped for the file where the system allows it; the
ratio of the medians is what counts.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from penstock.protocol.batch import NewRecord, ProducerStamp, build, header_of
from penstock.storage import Append, Committer, CreateLog, LogBatch, PartitionKey, Store, StoreOptions, Write

BATCH_BYTES = 64 * 1024
REPEATS = 7


def fill(path: Path, size_mb: int, partitions: int) -> None:
    """A store of so many MB, in batches of idempotent producers over all partitions."""
    Store.format(path, cluster_id="bench", node_id=1)
    store = Store.open(path, StoreOptions(durability="os"))  # only the filling is faster
    committer = Committer(store)
    outcomes = committer.commit([CreateLog(PartitionKey(bytes(16), index)) for index in range(partitions)])
    logs = [outcome.log for outcome in outcomes if outcome.log is not None]
    message = build([NewRecord(None, os.urandom(BATCH_BYTES), 0)], stamp=ProducerStamp(1, 0, 0))
    header, payload = header_of(message), message.SerializeToString()
    for round_number in range(max(1, size_mb * 1024 * 1024 // BATCH_BYTES // partitions)):
        stamped = header._replace(base_sequence=round_number, max_timestamp_ms=round_number)
        batch = LogBatch(round_number, round_number, 0, round_number, stamped, payload)
        writes: list[Write] = [Append(log, 0, (batch,)) for log in logs]
        committer.commit(writes)
    committer.sync()
    store.close()


def forget_pages(path: Path) -> None:
    """Ask the system to drop the file from its cache."""
    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def open_once(path: Path) -> float:
    """Seconds to open, in this process."""
    began = time.perf_counter()
    store = Store.open(path)
    took = time.perf_counter() - began
    store.close()
    return took


def measure(path: Path) -> list[float]:
    """Milliseconds of several openings, each by a new process."""
    command = [sys.executable, __file__, "--open", str(path)]
    samples = []
    for _ in range(REPEATS):
        forget_pages(path)
        ran = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  this very program
        samples.append(float(ran.stdout))
    return samples


def run(path: Path, sizes_mb: list[int], partitions: int) -> None:
    """One line a size, and the ratio."""
    medians = []
    for size_mb in sizes_mb:
        store = path / f"store-{size_mb}"
        fill(store, size_mb, partitions)
        samples = measure(store)
        medians.append(statistics.median(samples))
        allocated = (store / "data.mdb").stat().st_blocks * 512 / 1e6
        sys.stdout.write(
            f"{size_mb:6} MB in {partitions} partitions, {allocated:,.0f} MB on disk: opened in "
            f"{medians[-1]:.2f} ms (median of {REPEATS}; {min(samples):.2f} to {max(samples):.2f})\n"
        )
        shutil.rmtree(store)
    sys.stdout.write(f"ratio of the last to the first: {medians[-1] / medians[0]:.2f}\n")


def main() -> None:
    """Entry point."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--path", type=Path, help="directory on the disk to measure")
    arguments.add_argument("--sizes-mb", default="10,4096", help="sizes, with commas")
    arguments.add_argument("--partitions", type=int, default=100)
    arguments.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.open is not None:
        sys.stdout.write(f"{open_once(options.open) * 1e3}\n")
        return
    path = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=options.path))
    try:
        run(path, [int(size) for size in options.sizes_mb.split(",")], options.partitions)
    finally:
        shutil.rmtree(path)


if __name__ == "__main__":
    main()
