"""What holds for all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job that a script starts in the background ignores SIGINT, and so would every program that the tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its news of servers that tests stop are noise

# The same examples each time, as all else here; others: pytest --hypothesis-profile explore. Where the process is not
# scheduled for a second, neither example nor strategy is slow.
settings.register_profile("penstock", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("penstock"), derandomize=False)
settings.load_profile("penstock")
