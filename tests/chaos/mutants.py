"""Deliberate bugs of `make mutants`, built into real nodes or clients: a chaos run must call each invalid.

python -m tests.chaos.mutants [NAME…] [--out FOLDER]
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from penstock.chaos.plan import Profile
from penstock.chaos.run import INVALID, Run, RunOptions
from penstock.chaos.scenario import SCENARIOS, Scenario
from tests.simulation.cluster.mutants import MUTANTS as SIMULATED

ROOT = Path(__file__).parents[2]
BUDGET = 3
"""Seeds in which it must show."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One of them, and the faults that bring it out."""

    names: tuple[str, ...]
    """In the table of the simulation; all of them at once."""
    faults: tuple[str, ...]
    scenario: str = "quick-kills"
    in_clients: bool = False
    duration_s: float = 30.0


MUTANTS = (
    Mutant(("acked at the local commit",), ("kill-leader", "cut-node")),
    Mutant(("cut to HW",), ("kill-all", "kill-leader")),
    Mutant(("reads above HW",), ("cut-node", "kill-leader")),
    Mutant(("no duplicate check",), ("reset-links", "kill-leader"), "quick-links"),
    Mutant(("wiped keeps its places",), ("lost-disk",), "quick-damage"),
    Mutant(("ack before durable", "own end counted"), ("power-loss-all",), "quick-power"),
    Mutant(("success at the end of a role",), ("kill-leader", "pause-leader", "cut-node")),
    Mutant(("HW not frozen",), ("kill-leader", "cut-node")),
    Mutant(("producer ids given twice",), ("kill-leader",)),
    Mutant(("lost and renumbered",), ("reset-links", "kill-leader"), "quick-links", in_clients=True),
    Mutant(("unanswered is not appended",), ("reset-links", "kill-leader"), "quick-links", in_clients=True),
)


def scenario_of(mutant: Mutant) -> Scenario:
    """Give a scenario with these faults only."""
    base = SCENARIOS[mutant.scenario]
    profile = Profile(
        dict.fromkeys(mutant.faults, 1.0),
        base.profile.length_s,
        base.profile.lengths_s,
        base.profile.quiet_s,
        base.profile.warm_up_s,
    )
    return Scenario(
        base.name,
        base.summary,
        profile,
        mutant.duration_s,
        base.workload,
        disk=base.disk,
        hosts=base.hosts,
        tail_s=base.tail_s,
    )


def verdict(mutant: Mutant, seed: int, folder: Path) -> tuple[str, list[str]]:
    """Run one seed; the verdict, and the kinds of its anomalies."""
    program: Sequence[str] = RunOptions(SCENARIOS["control"], 0, folder).program
    if not mutant.in_clients:
        path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.chaos.broken_node import main; main()"
        program = (sys.executable, "-P", "-c", path, *mutant.names, "--")
    with ExitStack() as broken:
        if mutant.in_clients:
            for each in SIMULATED:
                if each.name in mutant.names:
                    broken.enter_context(each.apply())
        document = Run(RunOptions(scenario_of(mutant), seed, folder, program=program)).perform()
    return document["verdict"], sorted({anomaly["kind"] for anomaly in document["anomalies"]})


def caught(mutant: Mutant, folder: Path) -> bool:
    """Say whether one of the first seeds is invalid."""
    for seed in range(1, BUDGET + 1):
        found, kinds = verdict(mutant, seed, folder / f"{mutant.names[0].replace(' ', '-')}-{seed}")
        print(f"{' + '.join(mutant.names)}, seed {seed}: {found} {', '.join(kinds)}", flush=True)
        if found == INVALID:
            return True
    return False


def main() -> None:
    """Run all, or those that are named."""
    wanted = [mutant for mutant in MUTANTS if not sys.argv[1:] or set(sys.argv[1:]) & set(mutant.names)]
    with tempfile.TemporaryDirectory(prefix="penstock-mutants-") as folder:
        missed = [mutant for mutant in wanted if not caught(mutant, Path(folder))]
    print(f"{len(wanted) - len(missed)} of {len(wanted)} caught")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
