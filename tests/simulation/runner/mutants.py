"""`make mutants`: each deliberate bug is looked for in a process of its own; one that is not found is a gap."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.simulation.runner.pool import ROOT, Worker, environment
from tests.simulation.runner.progress import duration
from tests.simulation.runner.replay import short
from tests.simulation.runner.tables import TABLES, Mutant, Outcome, is_there, load, worlds_of
from tests.simulation.runner.worlds import ALL

LIMIT_S = 1800.0
"""CPU time that one mutant may take."""
_SHOWN = 90
"""Characters of an error that the table has room for; the whole of it goes to standard error."""


@dataclass(frozen=True)
class Options:
    """Which mutants, and how."""

    jobs: int
    table: str = ALL
    name: str | None = None
    """Those of this name, or, where there are none, those whose names begin with it."""
    markdown: Path | None = None
    limit_s: float = LIMIT_S


@dataclass(frozen=True)
class Row:
    """One mutant and what became of it."""

    table: str
    mutant: Mutant
    outcome: Outcome

    @property
    def is_caught(self) -> bool:
        """It was found in time; where chance is no way to find it, by a golden trace."""
        if self.outcome.error:
            return False
        return self.outcome.seed is not None or (self.mutant.budget == 0 and bool(self.outcome.traces))

    @property
    def verdict(self) -> str:
        """In words."""
        outcome, budget = self.outcome, self.mutant.budget
        if outcome.error:
            return f"NOT CAUGHT: {outcome.error.strip().splitlines()[-1][:_SHOWN]}"
        if not self.is_caught:
            return f"SURVIVES {budget} seeds"
        if outcome.seed is None:
            return "by its trace alone"
        return f"seed {outcome.seed} ({outcome.tried} of {budget})"


def modules_of(table: str) -> dict[str, str]:
    """Give the tables by name, or one by its name or its module's dotted name; of `all`, those that are there."""
    if table == ALL:
        return {name: module for name, module in TABLES.items() if is_there(module)}
    if "." not in table and table not in TABLES:
        raise SystemExit(f"no table named {table!r}; there are: {', '.join(TABLES)}, {ALL}")
    return {table: TABLES.get(table, table)}


def chosen(modules: dict[str, str], name: str | None) -> list[tuple[str, str, Mutant]]:
    """Give (table, module, mutant) of all that are asked for."""
    every = [(table, module, mutant) for table, module in modules.items() for mutant in load(module).MUTANTS]
    if name is None:
        return every
    exact = [entry for entry in every if entry[2].name == name]
    found = exact or [entry for entry in every if entry[2].name.startswith(name)]
    if not found:
        raise SystemExit(f"no mutant named {name!r}; there are:\n" + "\n".join(entry[2].name for entry in every))
    return found


async def look_for(table: str, module: str, mutant: Mutant, limit_s: float) -> Outcome:
    """Look for one mutant; what shows it must be well without it."""
    outcome, worlds = await _search(module, mutant, limit_s), worlds_of(table, module)
    if outcome.seed is None or worlds is None:
        return outcome
    async with Worker(worlds) as worker:
        failure = (await worker.run_plan(outcome.seed, None)).failure
    if failure is None:
        return outcome
    return replace(outcome, error=f"seed {outcome.seed} fails without it too: {short(failure)}")


async def _search(module: str, mutant: Mutant, limit_s: float) -> Outcome:
    """Look for one mutant in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.simulation.runner.tables", module, mutant.name, str(limit_s)),
        cwd=ROOT,
        env=environment(),
        stdin=PIPE,
        stdout=PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        answer = await process.stdout.read()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode != 0 or not answer:
        return Outcome(error=f"its process ended with {process.returncode}")
    return Outcome(**json.loads(answer))


async def prove(options: Options) -> int:
    """Look for all mutants; 1 if any survives."""
    todo = chosen(modules_of(options.table), options.name)
    started = time.monotonic()
    rows: dict[int, Row] = {}
    queue = iter(enumerate(todo))

    async def lane() -> None:
        for place, (table, module, mutant) in queue:
            rows[place] = Row(table, mutant, await look_for(table, module, mutant, options.limit_s))
            if sys.stderr.isatty():
                print(f"{len(rows)}/{len(todo)} {mutant.name}: {rows[place].verdict}", file=sys.stderr, flush=True)
            if rows[place].outcome.error:
                print(f"{mutant.name}: {rows[place].outcome.error}", file=sys.stderr, flush=True)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(options.jobs):
            lanes.create_task(lane())
    table_rows = [rows[place] for place in sorted(rows)]
    print(*text_of(table_rows), sep="\n")
    survivors = [row for row in table_rows if not row.is_caught]
    took = (
        f"{duration(sum(row.outcome.cpu_s for row in table_rows))} of CPU, {duration(time.monotonic() - started)} here"
    )
    print(f"{len(table_rows) - len(survivors)} of {len(table_rows)} mutants caught ({took})")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(markdown_of(table_rows)) + "\n")
    return 1 if survivors or not table_rows else 0


def text_of(rows: Sequence[Row]) -> Iterator[str]:
    """The table, for a terminal."""
    cells = [("mutant", "rule", "worlds", "caught at", "traces", "CPU s")]
    cells += [
        (r.mutant.name, r.mutant.rule, r.table, r.verdict, str(len(r.outcome.traces)), f"{r.outcome.cpu_s:.1f}")
        for r in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def markdown_of(rows: Iterable[Row]) -> Iterator[str]:
    """The table, for a document."""
    yield "| mutant | rule | what is wrong | worlds | caught at | of at most | golden traces |"
    yield "| --- | --- | --- | --- | ---: | ---: | --- |"
    for row in rows:
        mutant, seed = row.mutant, row.outcome.seed
        at = row.verdict if seed is None else f"seed {seed}, the {_ordinal(row.outcome.tried)}"
        budget, traces = f"{mutant.budget} seeds" if mutant.budget else "", ", ".join(row.outcome.traces)
        cells = (mutant.name, mutant.rule, mutant.what, row.table, at, budget, traces)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
