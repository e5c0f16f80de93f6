"""The disk that a benchmark writes to: it must be one, and it is measured, since every figure depends on it."""

import os
import tempfile
import time
from pathlib import Path

from penstock.client.bench.histogram import Histogram

MEMORY_FILESYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}
SYNCS = 200
SYNC_BYTES = 4096
_OCTAL = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}
"""How mountinfo writes what would break its lines."""


class NoDiskError(Exception):
    """The folder is not on a disk; the message says what to do."""


def filesystem(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Give the type of the file system that holds `folder`; empty where the system does not tell."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4]
        for written, meant in _OCTAL.items():
            mount = mount.replace(written, meant)
        # Of mounts on the same place the last one hides the others.
        if folder.resolve().is_relative_to(mount) and len(mount) >= longest:
            found, longest = rest.split()[0], len(mount)
    return found


def check_disk(folder: Path) -> str:
    """Give the type of the file system. Raises NoDiskError where it keeps its files in memory: fsync costs nothing."""
    kind = filesystem(folder)
    if kind in MEMORY_FILESYSTEMS:
        raise NoDiskError(f"{folder} is on {kind}, in memory: a benchmark of durable writes needs a disk (--folder)")
    return kind


def sync_latency(folder: Path, count: int = SYNCS) -> Histogram:
    """Measure `count` bare appends of 4 KiB, each with its fsync, to a file that is removed afterwards."""
    histogram, block = Histogram(), os.urandom(SYNC_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(block)
            os.fsync(file.fileno())
            histogram.record(int((time.perf_counter() - began) * 1e6))
    return histogram
