"""A wall clock that is wrong: libfaketime, steered by a file while the process runs.

Owns that file. The monotonic clock and the times of files stay right: only what a wrong NTP server or a careless
operator could change is changed. libfaketime reads the file at each question (its cache is whole seconds, too slow for
a strobe); a call of time.time() takes 1.4 µs instead of 0.06 so.
"""

import os
from pathlib import Path

from penstock.chaos.shims.faulty_disk import ShimError

LIBRARY_VARIABLE = "PENSTOCK_LIBFAKETIME"
"""Where libfaketime.so.1 is, where it is at none of the usual places."""
USUAL = (
    "/usr/lib/*/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
    "/usr/lib/libfaketime.so.1",
    "/opt/homebrew/lib/faketime/libfaketime.so.1",
)


class FakeClock:
    """One node's wall clock. Right until it is skewed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skew(0.0)

    def skew(self, seconds: float) -> None:
        """Set how far ahead the clock is (negative: behind), from the process's next question on."""
        part = self.path.with_suffix(".part")
        part.write_text(f"{seconds:+.6f}\n")
        os.utime(part, (0, 0))
        part.replace(self.path)  # whoever reads it reads all of it
        self.seconds = seconds

    def was_asked(self) -> bool:
        """Say whether the process has asked for the time since the last `skew`. On a file system that notes reads."""
        return self.path.stat().st_atime_ns != 0


def find_library() -> Path:
    """Find libfaketime. Raises ShimError where it is not installed."""
    if named := os.environ.get(LIBRARY_VARIABLE):
        return Path(named)
    found = (path for pattern in USUAL for path in Path("/").glob(pattern[1:]))
    library = next(found, None)
    if library is None:
        raise ShimError(
            "libfaketime is not installed (Debian, Ubuntu: apt install faketime; Fedora: dnf install libfaketime); "
            f"{LIBRARY_VARIABLE} names it elsewhere"
        )
    return library


def environment(clock: FakeClock) -> dict[str, str]:
    """Give what the process must find in its environment, beside LD_PRELOAD."""
    return {
        "FAKETIME_TIMESTAMP_FILE": os.fspath(clock.path),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",  # its name before version 0.9.7
        "NO_FAKE_STAT": "1",
    }
