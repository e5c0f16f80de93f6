"""`make simulate`: a range of seeds in many processes; what is done is noted, and failures come with their replay."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.runner import sources
from tests.simulation.runner.found import Found
from tests.simulation.runner.pool import CPU_S, run_chunks
from tests.simulation.runner.progress import Progress, duration
from tests.simulation.runner.replay import compare, short, shrink
from tests.simulation.runner.results import Chunk, Results, Tally, split
from tests.simulation.runner.worker import Report
from tests.simulation.runner.worlds import Kind

SHRINK_S = 60.0
TOO_MANY = 20
"""Failing seeds after which a run ends: they will have the same few causes."""
_SAMPLES = 200
"""Worlds that are run a second time at the end, at most."""
_TICK_S = 0.25


@dataclass(frozen=True)
class Options:
    """How to run."""

    seeds: range | None
    """None: fresh ones."""
    jobs: int
    results: Path
    shrink_s: float = SHRINK_S
    limit_s: float = CPU_S
    too_many: int = TOO_MANY


class Run:
    """One sort of worlds over one range of seeds."""

    def __init__(self, kind: Kind, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._version = sources.version_of(kind)
        self.kind = kind
        self.seeds = options.seeds or sources.fresh_seeds(self._version, kind.seeds)
        self._options = options
        self._results = Results(options.results, kind.name, self._version, sources.commit())
        self.total, self._left = split(self.seeds, self._results.chunks())
        self._before = self.total.worlds
        self._open: dict[range, Tally] = {}
        self._progress = Progress(kind.name, len(self.seeds), sys.stderr, clock)
        self._started = clock()
        self._clock = clock

    async def run(self) -> bool:
        """Run what is left, then some worlds again, then shrink; True if all is well."""
        where = f"seeds {self.seeds.start}:{self.seeds.stop}, {self._options.jobs} at a time"
        print(f"{self.kind.name}: {where}{f', {self._before} done before' if self._before else ''}", flush=True)
        for seed, failure in self.total.failures.items():
            self._tell(seed, failure)
        try:
            await self._run_left()
            alike = await self._run_again() if self.is_complete else True
        finally:
            self._note_open()
            self._progress.clear()
            self._summarize()
        if self.total.failures:
            await self._shrink_first()
        return alike and not self.total.failures

    @property
    def is_complete(self) -> bool:
        """Every seed has been run."""
        return self.total.worlds == len(self.seeds)

    @property
    def _failed(self) -> int:
        return sum(len(tally.failures) for tally in (self.total, *self._open.values()))

    # --- running -----------------------------------------------------------------------------------------------------

    async def _run_left(self) -> None:
        ticker = asyncio.create_task(self._tick())
        try:
            await self._run_chunks(self._chunks(), self._count)
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker

    async def _run_chunks(self, chunks: Iterator[range], on_report: Callable[[range, Report], None]) -> None:
        await run_chunks(self.kind, chunks, on_report, jobs=self._options.jobs, limit_s=self._options.limit_s)

    def _chunks(self) -> Iterator[range]:
        size = max(1, min(self.kind.chunk, len(self.seeds) // (4 * self._options.jobs)))
        for part in self._left:
            for at in range(0, len(part), size):
                if self._failed >= self._options.too_many:
                    return
                yield part[at : at + size]

    def _count(self, chunk: range, report: Report) -> None:
        self._open.setdefault(chunk, Tally()).count(report)
        if report.failure is not None:
            self._tell(report.seed, report.failure)
        if report.seed == chunk[-1]:
            self._note(chunk)

    def _note(self, chunk: range) -> None:
        tally = self._open.pop(chunk)
        self._results.add(Chunk(chunk.start, chunk.start + tally.worlds, tally))
        self.total.add(tally)

    def _note_open(self) -> None:
        """Interrupted: what has been done of each chunk is done."""
        for chunk in list(self._open):
            self._note(chunk)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            seen = Tally()
            for tally in (self.total, *self._open.values()):
                seen.add(tally)
            self._progress.show(seen.worlds, self._before, seen.rate, len(seen.failures))

    # --- replay is exact ---------------------------------------------------------------------------------------------

    async def _run_again(self) -> bool:
        """Run samples a second time, in other processes and in reverse order: their traces must be alike."""
        if sources.version_of(self.kind) != self._version:
            print(f"{self.kind.name}: the code was changed meanwhile; no seed is run again")
            return True
        noted = sorted(self.total.samples.items(), reverse=True)
        samples = dict(noted[:: -(-len(noted) // _SAMPLES) or 1])
        different: list[int] = []

        def check(_: range, report: Report) -> None:
            if report.hash != samples[report.seed] or report.failure is not None:
                different.append(report.seed)

        await self._run_chunks((range(seed, seed + 1) for seed in samples), check)
        self._progress.clear()
        for seed in different:
            print(f"{self.kind.name} seed {seed}: not exact: its second run had another trace", flush=True)
        if different:
            await compare(Found("", self.kind.name, different[0], None, ""))
        if samples and not different:
            print(f"{self.kind.name}: {len(samples)} seeds run again in other processes and order: traces alike")
        return not different

    # --- what is told ------------------------------------------------------------------------------------------------

    def _tell(self, seed: int, failure: str) -> None:
        self._progress.clear()
        print(f"{self.kind.name} seed {seed}: {short(failure)}")
        print(f"  replay: make replay WORLD={self.kind.name} SEED={seed}", flush=True)

    def _summarize(self) -> None:
        total = self.total
        state = "" if self.is_complete else f" of {len(self.seeds)}, not complete"
        if not self.is_complete:
            too_many = self._failed >= self._options.too_many
            state += " (too many failures)" if too_many else " (the same command goes on from here)"
        took = f"{duration(total.cpu_s)} of CPU, {duration(self._clock() - self._started)} here"
        print(
            f"{self.kind.name}: {total.worlds} worlds{state}, {len(total.failures)} failed, {total.events} events; "
            f"{total.rate:.0f} a minute and core ({took}); digest {total.digest:08x}",
            flush=True,
        )
        if total.facts:
            print("  " + ", ".join(f"{name} {number}" for name, number in sorted(total.facts.items())), flush=True)

    async def _shrink_first(self) -> None:
        seed = min(self.total.failures)
        failure = self.total.failures[seed]
        name = f"{self.kind.name}-{seed}"
        found = Found(name, self.kind.name, seed, None, failure)
        path = self._options.results.parent / "found" / f"{name}.json"
        print(f"{self.kind.name} seed {seed}: {short(failure)}", flush=True)
        if await shrink(found, path, self._options.shrink_s, self._options.limit_s):
            print(f"{self.kind.name} seed {seed}: not exact: it fails only sometimes", flush=True)


async def simulate(kinds: list[Kind], options: Options) -> int:
    """Run each sort of worlds; 1 if anything failed."""
    return 0 if all([await Run(kind, options).run() for kind in kinds]) else 1
