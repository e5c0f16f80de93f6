"""A wall clock that is wrong, steered from outside while the process runs.

Owns the control file (wrong_clock.c maps the same one; its fields are listed there). The monotonic clock and the times
of files stay right: only what a wrong NTP server or a careless operator could change is changed.

Not libfaketime: below it, nodes that talk to each other came to a stand-still even with a clock that was right (0.9.10,
gRPC 1.76), for it also takes over waiting.
"""

import mmap
import os
from pathlib import Path

VARIABLE = "PENSTOCK_WRONG_CLOCK"
SOURCE = Path(__file__).with_name("wrong_clock.c")
_SKEW_NS, _ASKED = range(2)
_BYTES = 16


class FakeClock:
    """One node's wall clock. Right until it is skewed; the node may run or not."""

    def __init__(self, path: Path) -> None:
        """Make the file at `path`."""
        path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._fields = memoryview(mmap.mmap(file.fileno(), _BYTES)).cast("q")
        self.path = path

    def skew(self, seconds: float) -> None:
        """Set how far ahead the clock is (negative: behind), from the process's next question on."""
        self._fields[_SKEW_NS] = round(seconds * 1e9)

    def asked(self) -> int:
        """Count how often a process has asked for the time while it was wrong."""
        return int(self._fields[_ASKED])


def environment(clock: FakeClock) -> dict[str, str]:
    """Give what the process must find in its environment, beside LD_PRELOAD."""
    return {VARIABLE: os.fspath(clock.path)}
