"""Run worlds: `python -m tests.simulation.consensus --seeds 0:1000`."""

import argparse
import sys
import time
import traceback

from tests.simulation.consensus.invariants import Violation
from tests.simulation.consensus.world import World


def run_seed(seed: int, *, record: bool = False) -> tuple[World, str | None]:
    """Run one world; the problem, if there is one."""
    world = World(seed, record=record)
    try:
        world.run()
    except Violation as violation:
        return world, str(violation)
    except Exception:  # noqa: BLE001  whatever a world runs into is that seed's result
        return world, traceback.format_exc()
    return world, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.consensus", description=__doc__)
    parser.add_argument("--seeds", default="0:300", help="from:to, or one seed")
    parser.add_argument("--trace", action="store_true", help="print every step")
    parser.add_argument("--hashes", action="store_true", help="print each seed's trace hash")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last or int(first) + 1))
    started = shown = time.monotonic()
    failed: list[int] = []
    commands = 0
    for done, seed in enumerate(seeds, 1):
        world, problem = run_seed(seed, record=arguments.trace)
        commands += len(world.invariants.acknowledged)
        if arguments.trace:
            print(*(world.lines or ()), sep="\n")
        if arguments.hashes:
            print(seed, f"{world.hash:08x}")
        if problem is not None:
            failed.append(seed)
            print(f"seed {seed}: {problem}\n  replay: python -m tests.simulation.consensus --seeds {seed} --trace")
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            rate = done / (shown - started) * 60
            print(f"{done}/{len(seeds)} worlds, {rate:.0f} a minute, {len(failed)} failed", flush=True)
    seconds = time.monotonic() - started
    summary = f"{len(seeds)} worlds in {seconds:.1f} s ({len(seeds) / seconds * 60:.0f} a minute)"
    print(f"{summary}, {commands} commands acknowledged, failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
