"""Run worlds: `python -m tests.simulation.consensus --seeds 0:1000`."""

import argparse
import gc
import sys
import time

from tests.simulation.consensus import run
from tests.simulation.consensus.options import profile_of

SHOW_S = 10.0
COLLECT_EVERY = 16


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.consensus", description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="from:to, or one seed")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--hashes", action="store_true", help="print each seed's trace hash")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    gc.freeze()
    gc.disable()
    started, shown = time.process_time(), time.monotonic()
    failed: list[int] = []
    for done, seed in enumerate(seeds, 1):
        result = run(seed, record=arguments.trace)
        if arguments.trace:
            print(*(result.lines or ()), sep="\n")
        if arguments.hashes:
            print(seed, f"{result.hash:08x}")
        if result.failure is not None:
            failed.append(seed)
            replay = f"python -m tests.simulation.consensus --seeds {seed} --trace"
            print(f"seed {seed} ({profile_of(seed)}): {result.failure}\n  replay: {replay}", flush=True)
        if done % COLLECT_EVERY == 0:
            gc.collect()
        if time.monotonic() - shown > SHOW_S:
            shown = time.monotonic()
            rate = done / (time.process_time() - started) * 60
            print(f"{done}/{len(seeds)} worlds, {rate:.0f} a minute of CPU, {len(failed)} failed", flush=True)
    seconds = time.process_time() - started
    rate = len(seeds) / seconds * 60
    print(f"{len(seeds)} worlds in {seconds:.1f} s of CPU ({rate:.0f} a minute), failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
