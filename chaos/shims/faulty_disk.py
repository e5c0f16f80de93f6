"""The failing disk's control: says from outside which syncs of a process fail or are slow, and counts them.

Owns the control file (faulty_disk.c maps the same one; its fields are listed there). A sync is fsync, fdatasync,
msync, or a write to a file opened with O_DSYNC.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "PENSTOCK_FAULTY_DISK"
SOURCE = Path(__file__).with_name("faulty_disk.c")
FOREVER = 1 << 62
_PASS, _FAIL, _DELAY_US, _CALLS, _FAILED, _DELAYED = range(6)
_BYTES = 48


@dataclass(frozen=True, slots=True)
class SyncCounts:
    """Syncs since the control was made, over all processes that were started with it."""

    calls: int
    failed: int
    delayed: int


class FaultyDisk:
    """The control of one node's disk. The node may run or not; what is set holds for its next process too."""

    def __init__(self, path: Path) -> None:
        """Make the file at `path`: nothing fails."""
        path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        self._fields = memoryview(self._map).cast("q")  # so each assignment is one store of 8 bytes, as in C
        self.path = path

    def fail(self, syncs: int = FOREVER, after: int = 0) -> None:
        """Let so many syncs fail, after so many more that succeed."""
        self._fields[_PASS] = after
        self._fields[_FAIL] = syncs

    def delay(self, milliseconds: float) -> None:
        """Let each sync take so much longer."""
        self._fields[_DELAY_US] = int(milliseconds * 1000)

    def heal(self) -> None:
        """Let all syncs succeed at once."""
        for field in (_FAIL, _PASS, _DELAY_US):
            self._fields[field] = 0

    def counts(self) -> SyncCounts:
        """Count."""
        return SyncCounts(*(int(self._fields[field]) for field in (_CALLS, _FAILED, _DELAYED)))


def environment(control: FaultyDisk) -> dict[str, str]:
    """Give what the process must find in its environment, beside LD_PRELOAD."""
    return {VARIABLE: os.fspath(control.path)}
