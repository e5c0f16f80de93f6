"""Forks members: `python -m penstock.chaos.member.nursery FD`, where FD is a Unix socket that listens.

Whoever connects gets a child of its own, which reads a plan from the connection and becomes a member. Forked from a
process that has imported everything, a member is there in some milliseconds. The nursery opens no channel and starts no
thread: a fork would not survive either. It ends, and all members with it, frozen ones too, when its standard input ends
(whoever holds the other end is gone, killed or not).
"""

import ctypes
import os
import select
import signal
import socket
import sys
import traceback

from penstock.chaos.member.program import live

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal for a process whose parent's thread has died."""


def main() -> None:
    """Be the nursery."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the runner ends in order, and then this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _be_a_member(connection)


def _be_a_member(connection: socket.socket) -> None:
    """Never returns."""
    status = 1
    try:
        _die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.sendall(b'{"pid":%d}\n' % os.getpid())
        live(connection)
        status = 0
    except Exception:  # noqa: BLE001  whatever it is: this process ends here
        traceback.print_exc()
    finally:
        os._exit(status)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
