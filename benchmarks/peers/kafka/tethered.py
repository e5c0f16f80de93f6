"""Become a command that the system kills when the thread that started it ends, however that ends.

`python tethered.py PARENT_PID COMMAND…`: the process id stays the same, so that who starts it has that of the command.
Linux alone can do that; elsewhere it is just the command.
Run as a file, without the package: it imports only the standard library.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal for a process whose parent's thread has died. It outlives execve."""


def main(parent: int, command: list[str]) -> None:
    """Run the command in place of this program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be told
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  the caller's own command line, no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
