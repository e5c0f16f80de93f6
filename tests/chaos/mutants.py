"""Deliberate bugs, built into real nodes or clients: a chaos run must call each invalid.

python -m tests.chaos.mutants [NAME…] [--seeds N] [--out FOLDER] [--markdown FILE]

`--out` keeps the runs. The table is in `mutant_table`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from penstock.chaos import run as runs
from penstock.chaos.run import INVALID, Run, RunOptions
from penstock.chaos.scenario import SCENARIOS, Scenario
from penstock.client.devcluster import PENSTOCKD
from tests.chaos.broken_node import BREAKS, WHAT
from tests.chaos.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SEEDS = 3
"""It must show in so many."""
PATIENCE_S = 40.0
"""A broken cluster may never be whole again, and the history says enough by then."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a mutant's runs."""

    mutant: Mutant
    seed: int
    """The last one that ran."""
    verdict: str
    kinds: tuple[str, ...]
    """Of its anomalies."""

    def __str__(self) -> str:
        return f"{self.mutant.name}, seed {self.seed}: {self.verdict} {', '.join(self.kinds)}".rstrip()


def look_for(mutant: Mutant, seeds: Iterable[int], folder: Path) -> Outcome:
    """Run seed after seed until one is invalid; the last one's outcome."""
    outcome = Outcome(mutant, -1, "not run", ())
    for seed in seeds:
        outcome = _try(mutant, seed, folder / f"{mutant.name.replace(' ', '-')}-{seed}")
        print(outcome, flush=True)
        if outcome.verdict == INVALID:
            break
    return outcome


def _try(mutant: Mutant, seed: int, folder: Path) -> Outcome:
    options = RunOptions(_scenario(mutant), seed, folder, schedule=mutant.schedule, program=_program(mutant))
    with ExitStack() as context:
        for name in ("HEALTH_PATIENCE_S", "FINAL_PATIENCE_S"):
            context.enter_context(mock.patch.object(runs, name, PATIENCE_S))
        for name in mutant.names if mutant.in_clients else ():
            context.enter_context(BREAKS[name]())
        document = Run(options).perform()
    return Outcome(mutant, seed, document["verdict"], tuple(sorted(document["found"])))


def _scenario(mutant: Mutant) -> Scenario:
    return replace(
        SCENARIOS["quick-control"],
        name=mutant.name,
        workload=mutant.workload,
        disk=mutant.disk,
        spare=mutant.spare,
        tail_s=1.0,
    )


def _program(mutant: Mutant) -> Sequence[str]:
    if mutant.in_clients:
        return PENSTOCKD
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.chaos.broken_node import main; main()"
    return sys.executable, "-P", "-c", code, *mutant.names, "--"


def _markdown(outcomes: Sequence[Outcome]) -> str:
    rows = ["| mutant | what is wrong | faults | caught at | anomalies |", "| --- | --- | --- | ---: | --- |"]
    for one in outcomes:
        what = "; ".join(WHAT[name] for name in one.mutant.names)
        where = f"seed {one.seed}" if one.verdict == INVALID else f"not: {one.verdict}"
        rows.append(f"| {one.mutant.name} | {what} | {one.mutant.faults} | {where} | {', '.join(one.kinds)} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Run all, or those that are named; 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many are tried at most")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the table there")
    arguments = parser.parse_args()
    wanted = [mutant for mutant in MUTANTS if not arguments.names or set(arguments.names) & set(mutant.names)]
    with tempfile.TemporaryDirectory(prefix="penstock-mutants-") as temporary:
        folder = arguments.out or Path(temporary)
        outcomes = [look_for(mutant, range(1, arguments.seeds + 1), folder) for mutant in wanted]
    missed = [one for one in outcomes if one.verdict != INVALID]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} caught")
    if arguments.markdown is not None:
        arguments.markdown.write_text(_markdown(outcomes))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
