"""The runner's command line, for the Makefile: `python -m tests.simulation.runner simulate --seeds 0:1000`."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path

from tests.simulation.runner import mutants, replay, simulate
from tests.simulation.runner.found import Found, read
from tests.simulation.runner.pool import CPU_S, NotStartedError
from tests.simulation.runner.worlds import ALL, kinds_of, processors

RESULTS = Path(".simulation/results.jsonl")
INTERRUPTED = 130


def seed_range(text: str) -> range:
    """A:B is from A to before B; A alone is that one seed."""
    first, colon, stop = text.partition(":")
    try:
        seeds = range(int(first), int(stop) if colon else int(first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is empty")
    return seeds


def parser() -> argparse.ArgumentParser:
    """What can be asked."""
    top = argparse.ArgumentParser(prog="python -m tests.simulation.runner", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("simulate", help="run many seeds")
    run.add_argument("--seeds", type=seed_range, help="A:B; by default seeds that are this code version's own")
    run.add_argument("--world", default=ALL)
    run.add_argument("--jobs", type=int, default=processors())
    run.add_argument("--results", type=Path, default=RESULTS, help="what was run already")
    run.add_argument("--shrink-s", type=float, default=simulate.SHRINK_S, help="for the first failing seed")
    run.add_argument("--limit-s", type=float, default=CPU_S, help="seconds of CPU that one world may take")
    run.add_argument("--failures", type=int, default=simulate.TOO_MANY, help="end after so many failing seeds")
    for name, text in (("replay", "run one world again"), ("shrink", "look for a smaller plan that fails alike")):
        one = commands.add_parser(name, help=text)
        one.add_argument("--seed", type=int)
        one.add_argument("--world", default="cluster")
        one.add_argument("--plan", type=Path, help="a file with a world in it, instead of seed and world")
        if name == "replay":
            one.add_argument("--trace", type=Path, help="write the trace to this file")
            one.add_argument("--twice", help="anything: run it in two processes, and tell where their traces part")
        else:
            one.add_argument("--seconds", type=float, default=600.0, help="how long to go on at most")
            one.add_argument("--to", type=Path, help="the file to write")
    table = commands.add_parser("mutants", help="prove that deliberate bugs are found")
    table.add_argument("--jobs", type=int, default=processors())
    table.add_argument("--world", default=ALL, help="the mutants of one table")
    table.add_argument("--mutant", help="only those of this name, or that begin with it")
    table.add_argument("--limit-s", type=float, default=mutants.LIMIT_S, help="seconds of CPU that one may take")
    table.add_argument("--markdown", type=Path, help="also write the table to this file")
    return top


def _found(arguments: argparse.Namespace) -> Found:
    if arguments.plan is not None:
        return read(arguments.plan)
    if arguments.seed is None:
        raise SystemExit("which world? SEED=… WORLD=…, or PLAN=file")
    return Found(f"{arguments.world}-{arguments.seed}", arguments.world, arguments.seed, None, "")


def _run(task: Coroutine[object, object, int]) -> int:
    """Run to the end, or until a signal asks to stop."""

    async def stoppable() -> int:
        current = asyncio.current_task()
        assert current is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
        return await task

    try:
        return asyncio.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


def main() -> int:
    """Do what is asked."""
    arguments = parser().parse_args()
    if arguments.command == "replay" and arguments.twice:
        return _run(replay.compare(_found(arguments)))
    if arguments.command == "replay":
        return replay.replay(_found(arguments), arguments.trace)
    if arguments.command == "shrink":
        found = _found(arguments)
        return _run(
            replay.shrink(found, arguments.to or RESULTS.parent / "found" / f"{found.name}.json", arguments.seconds)
        )
    if arguments.command == "mutants":
        wanted = (arguments.jobs, arguments.world, arguments.mutant, arguments.markdown, arguments.limit_s)
        return _run(mutants.prove(mutants.Options(*wanted)))
    options = simulate.Options(
        arguments.seeds, arguments.jobs, arguments.results, arguments.shrink_s, arguments.limit_s, arguments.failures
    )
    try:
        return _run(simulate.simulate(kinds_of(arguments.world), options))
    except* NotStartedError as errors:
        print(*errors.exceptions, sep="\n", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
