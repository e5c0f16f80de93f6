"""Deliberate bugs, built into real nodes or clients: a chaos run must call each invalid.

python -m tests.chaos.mutants [NAME…] [--seeds N] [--out FOLDER] [--markdown FILE] [--sound]

`--out` keeps the runs. `--sound`: the same faults without the bugs, a run each, which must be valid. The table is in
`mutant_table`.
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
from penstock.chaos.run import INVALID, VALID, Run, RunOptions
from penstock.chaos.scenario import SCENARIOS, Scenario
from penstock.client.devcluster import PENSTOCKD
from tests.chaos import broken_members
from tests.chaos.broken_node import BREAKS, WHAT
from tests.chaos.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SEEDS = 3
"""It must show in so many."""
KNOWN = {**WHAT, **{name: bug.what for name, bug in broken_members.BUGS.items()}}
"""What is wrong then, also in members of groups."""
PATIENCE_S = 30.0
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
        outcome = run_one(mutant, seed, folder)
        if outcome.verdict == INVALID:
            break
    return outcome


def run_one(mutant: Mutant, seed: int, folder: Path, *, broken: bool = True) -> Outcome:
    """Run one seed, with the bug or without."""
    names = tuple(name for name in mutant.names if name in BREAKS) if broken else ()
    of_members = tuple(name for name in mutant.names if name in broken_members.BUGS) if broken else ()
    options = RunOptions(
        _scenario(mutant, of_members),
        seed,
        folder / f"{mutant.name.replace(' ', '-')}-{seed}",
        schedule=mutant.schedule,
        program=PENSTOCKD if mutant.in_clients or not broken else _broken_node(names),
    )
    with ExitStack() as context:
        for name in ("HEALTH_PATIENCE_S", "FINAL_PATIENCE_S"):
            context.enter_context(mock.patch.object(runs, name, PATIENCE_S))
        for name in names if mutant.in_clients else ():
            context.enter_context(BREAKS[name]())
        document = Run(options).perform()
    outcome = Outcome(mutant, seed, document["verdict"], tuple(sorted(document["found"])))
    print(outcome if broken else f"without {outcome}", flush=True)
    return outcome


def _scenario(mutant: Mutant, of_members: Sequence[str]) -> Scenario:
    program = broken_members.program(of_members) if of_members else ()
    members = tuple(replace(crew, program=program) for crew in mutant.workload.members)
    return replace(
        SCENARIOS["quick-control"],
        name=mutant.name,
        workload=replace(mutant.workload, members=members),
        spare=mutant.spare,
        limits=mutant.limits,
        tail_s=1.0,
    )


def _broken_node(names: Sequence[str]) -> Sequence[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.chaos.broken_node import main; main()"
    return sys.executable, "-P", "-c", code, *names, "--"


def _markdown(outcomes: Sequence[Outcome]) -> str:
    rows = ["| mutant | what is wrong | faults | caught at | anomalies |", "| --- | --- | --- | ---: | --- |"]
    for one in outcomes:
        what = "; ".join(KNOWN[name] for name in one.mutant.names)
        where = f"seed {one.seed}" if one.verdict == INVALID else f"not: {one.verdict}"
        rows.append(f"| {one.mutant.name} | {what} | {one.mutant.faults} | {where} | {', '.join(one.kinds)} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Run all, or those that are named; 1 if one was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many are tried at most")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sound", action="store_true", help="without the bugs: each run must be valid")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    arguments = parser.parse_args()
    wanted = [mutant for mutant in MUTANTS if not arguments.names or set(arguments.names) & set(mutant.names)]
    with tempfile.TemporaryDirectory(prefix="penstock-mutants-") as temporary:
        folder = arguments.out or Path(temporary)
        if arguments.sound:
            sound = [run_one(mutant, 1, folder, broken=False).verdict == VALID for mutant in wanted]
            return 0 if all(sound) else 1
        outcomes = [look_for(mutant, range(1, arguments.seeds + 1), folder) for mutant in wanted]
    missed = [one for one in outcomes if one.verdict != INVALID]
    print(f"{len(outcomes) - len(missed)} of {len(outcomes)} caught")
    if arguments.markdown is not None:
        arguments.markdown.write_text(_markdown(outcomes))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
