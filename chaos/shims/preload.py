"""What is loaded into a node's process (LD_PRELOAD): the wrapper that starts it so, and the handles on what is loaded.

Owns the environment of the node's start, and trying beforehand whether the libraries do here what they should. What
cannot be had is left out, with its reason.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from penstock.chaos.shims import clock, faulty_disk
from penstock.chaos.shims.clock import FakeClock
from penstock.chaos.shims.compiling import ShimError, compile_shim
from penstock.chaos.shims.faulty_disk import FaultyDisk

UNWANTED = "the run's nodes were started without it"
TRIAL_TIMEOUT_S = 60.0
TRIAL_SKEW_S = 1_000_000.0
TRIAL_SLACK_S = 1_000.0
"""A busy machine's trial may take long."""
_SYNC = "import os, sys; file = os.open(sys.argv[1], os.O_RDWR); os.fsync(file)"
_TIMES = "import time; print(time.time(), time.monotonic())"


@dataclass(frozen=True, slots=True)
class Preload:
    """What one node is started with."""

    wrapper: tuple[str, ...] = ()
    """Program and arguments before the server's own; empty: nothing is loaded."""
    disk: FaultyDisk | None = None
    clock: FakeClock | None = None


@dataclass(frozen=True, slots=True)
class Preloads:
    """What all nodes are started with."""

    disk_library: Path | None = None
    clock_library: Path | None = None
    missing_disk: str | None = UNWANTED
    """Why syncs cannot fail; None: they can."""
    missing_clock: str | None = UNWANTED
    """Why clocks cannot be wrong; None: they can."""

    def make(self, folder: Path) -> Preload:
        """Make what one node needs, in a new folder."""
        if self.disk_library is None and self.clock_library is None:
            return Preload()
        folder.mkdir(parents=True)
        disk = FaultyDisk(folder / "disk") if self.disk_library else None
        fake = FakeClock(folder / "clock") if self.clock_library else None
        return Preload(self._wrapper(disk, fake), disk, fake)

    def _wrapper(self, disk: FaultyDisk | None, fake: FakeClock | None) -> tuple[str, ...]:
        present = os.environ.get("LD_PRELOAD", "")
        libraries = [str(path) for path in (self.disk_library, self.clock_library) if path]
        variables = {"LD_PRELOAD": ":".join([*libraries, *([present] if present else [])])}
        variables |= faulty_disk.environment(disk) if disk else {}
        variables |= clock.environment(fake) if fake else {}
        return ("/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()))


NOTHING = Preloads()


def find(folder: Path) -> Preloads:
    """Build and find what there is, try it, and say what is missing. `folder` is made and keeps the libraries."""
    folder.mkdir(parents=True, exist_ok=True)
    disk, clock_library = None, None
    missing_disk, missing_clock = None, None
    try:
        disk = _tried_disk(folder)
    except ShimError as error:
        missing_disk = str(error)
    try:
        clock_library = _tried_clock(folder)
    except ShimError as error:
        missing_clock = str(error)
    return Preloads(disk, clock_library, missing_disk, missing_clock)


def _tried_disk(folder: Path) -> Path:
    library = compile_shim(faulty_disk.SOURCE, _preloadable(folder))
    preload = Preloads(disk_library=library).make(folder / "trial-disk")
    try:
        _run(preload.wrapper, _SYNC, str(folder / "trial-disk" / "disk"))
        if preload.disk is None or preload.disk.counts().calls == 0:
            raise ShimError("the failing disk is not loaded into processes here (LD_PRELOAD)")
    finally:
        shutil.rmtree(folder / "trial-disk")
    return library


def _tried_clock(folder: Path) -> Path:
    library = compile_shim(clock.SOURCE, _preloadable(folder))
    preload = Preloads(clock_library=library).make(folder / "trial-clock")
    try:
        if preload.clock:
            preload.clock.skew(TRIAL_SKEW_S)
        wall, monotonic = (float(text) for text in _run(preload.wrapper, _TIMES).split())
        if abs(wall - time.time() - TRIAL_SKEW_S) > TRIAL_SLACK_S or abs(monotonic - time.monotonic()) > TRIAL_SLACK_S:
            raise ShimError(f"{library} does not skew the wall clock alone")
    finally:
        shutil.rmtree(folder / "trial-clock")
    return library


def _preloadable(path: Path) -> Path:
    if set(str(path.absolute())) & {" ", ":"}:
        raise ShimError(f"nothing in {path} can be loaded: LD_PRELOAD divides its paths at blanks and colons")
    return path.absolute()


def _run(wrapper: tuple[str, ...], code: str, *arguments: str) -> str:
    command = [*wrapper, sys.executable, "-I", "-S", "-c", code, *arguments]
    try:
        done = subprocess.run(  # noqa: S603  this Python with code of ours
            command, check=True, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        raise ShimError(f"a process with the library loaded fails: {error.stderr.strip()[-500:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShimError(f"a process with the library loaded fails: {error}") from error
    return done.stdout
