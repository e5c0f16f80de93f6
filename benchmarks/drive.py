"""The client process of a benchmark, the same for every system.

    python -m benchmarks.drive SYSTEM BOOTSTRAP [--fill]

The workload comes as JSON on standard input, the Load goes as JSON to standard output (with --fill: nothing but `{}`).
Exit code 1 and a traceback on standard error after any failure.
"""

import argparse
import ctypes
import gc
import json
import sys

from benchmarks.registry import MODULES, driver
from benchmarks.workloads import Workload

GC_THRESHOLD = (50_000, 20, 20)
"""As a Penstock server's. A client that makes many records spends a quarter of its time in collections otherwise."""
MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
TRIM_THRESHOLD_BYTES = 256 * 1024 * 1024


def tune_process() -> None:
    """Collect garbage rarely and keep large buffers off mmap, as a Penstock server does; for every client alike."""
    gc.set_threshold(*GC_THRESHOLD)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # glibc
            m_trim_threshold, m_mmap_threshold = -1, -3
            libc.mallopt(m_mmap_threshold, MMAP_THRESHOLD_BYTES)
            libc.mallopt(m_trim_threshold, TRIM_THRESHOLD_BYTES)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=list(MODULES))
    parser.add_argument("bootstrap")
    parser.add_argument("--fill", action="store_true", help="only put the records of a consume workload into its topic")
    arguments = parser.parse_args()
    workload = Workload.from_json(json.load(sys.stdin))
    tune_process()
    client = driver(arguments.system)
    if arguments.fill:
        client.fill(arguments.bootstrap, workload)
        content = {}
    else:
        content = client.drive(arguments.bootstrap, workload).to_json()
    sys.stdout.write(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
