"""A parent for one process that must not outlive the program that asked for it, however that ends.

Owns nothing but its child: `python guard.py COMMAND…` runs the command until standard input ends (whoever holds the
other end is gone, killed or not) or SIGTERM comes, then kills it. Ends when the child ends, with its exit status.
Run as a file, without the package: it must start at once, on any Python, and import only the standard library.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from types import FrameType

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal for a process whose parent's thread has died."""


def main(command: list[str]) -> int:
    """Run the command. The exit status is the child's, 128 and more when a signal ended it."""
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the program that asked ends in order, and then this
    child = subprocess.Popen(  # noqa: S603  the caller's own command line, no shell
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  there are no threads yet
    )
    threading.Thread(target=_kill_at_end_of_input, args=(child,), daemon=True).start()
    try:
        status = child.wait()
    except SystemExit:
        child.kill()
        status = child.wait()
    return status if status >= 0 else 128 - status


def _die_with_parent() -> None:
    """Also when the guard itself is killed, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_at_end_of_input(child: "subprocess.Popen[bytes]") -> None:
    while True:
        select.select([0], [], [])
        if not os.read(0, 4096):
            child.kill()
            return


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
