"""The process that runs worlds: `python -m tests.simulation.runner.worker MODULE CPU_S`.

It is asked on its standard input, a JSON object a line, and answers on its standard output, a JSON array for each
world. It ends with its input, or when nobody takes its answers: so none is left when the runner is killed.

Garbage is collected between worlds, never inside one. A world that takes more than CPU_S seconds of CPU is a failure.
"""

import gc
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any, NamedTuple, cast

from tests.simulation.runner.worlds import Result, Worlds, events_of, facts_of, kind_of

READY = "ready"


class Report(NamedTuple):
    """How one world ended, as it is told to the runner."""

    seed: int
    hash: int
    failure: str | None
    events: int
    cpu_s: float
    facts: dict[str, int]


class Stuck(KeyboardInterrupt):
    """A world does not end. Of a kind that asyncio lets through: no task of a world may swallow it."""


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise `Stuck` in the main thread after so much CPU time."""

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise Stuck

    previous = signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, seconds, 5.0)  # again, should somebody catch it all the same
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def run_one(worlds: Worlds, seed: int, plan: tuple[Any, ...] | None, limit_s: float) -> Report:
    """Run one world. Whatever it runs into is its failure."""
    started = time.process_time()
    report = Report(seed, 0, None, 0, 0.0, {})
    try:
        with cpu_limit(limit_s):
            report = _report(worlds.run(seed, plan))
    except Stuck:
        report = report._replace(failure=f"stuck: not at its end after {limit_s:g} s of CPU")
    except Exception:  # noqa: BLE001  it is the seed's result
        report = report._replace(failure=traceback.format_exc())
    gc.collect()
    return report._replace(cpu_s=round(time.process_time() - started, 5))


def _report(result: Result) -> Report:
    """What is kept of a world; the world itself is not."""
    return Report(result.seed, result.hash, result.failure, events_of(result), 0.0, facts_of(result))


def quiet_process() -> None:
    """Settings of a process that runs worlds: no collection inside of worlds, no log lines of theirs."""
    logging.getLogger().addHandler(logging.NullHandler())
    gc.collect()
    gc.freeze()
    gc.disable()


def own_output() -> IO[str]:
    """Take standard output for answers; what worlds print goes to standard error."""
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return output


def main() -> int:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner's affair
    output = own_output()
    module, limit_s = sys.argv[1], float(sys.argv[2])
    worlds = kind_of(module).load()
    quiet_process()
    try:
        print(json.dumps(READY), file=output, flush=True)
        for line in sys.stdin:
            asked = cast("dict[str, Any]", json.loads(line))
            data = asked.get("plan")
            plan = None if data is None else worlds.from_json(data)
            for seed in range(*asked["seeds"]):
                print(json.dumps(run_one(worlds, seed, plan, limit_s)), file=output, flush=True)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more; flushing at a usual exit would fail again
    return 0


if __name__ == "__main__":
    sys.exit(main())
