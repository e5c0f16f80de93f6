"""What holds for all tests."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job that a script starts in the background ignores SIGINT, and so would every program that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its news of servers that tests stop are noise
