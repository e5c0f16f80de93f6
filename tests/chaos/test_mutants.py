"""A checker that finds nothing proves nothing: with deliberate bugs in real nodes and clients, runs are invalid."""

from pathlib import Path

import pytest

from penstock.chaos.faults import registry
from penstock.chaos.run import INVALID
from penstock.chaos.toxiproxy import ToxiproxyMissingError, find_binary
from tests.chaos import broken_members
from tests.chaos.broken_node import BREAKS
from tests.chaos.mutant_table import MUTANTS, Mutant
from tests.chaos.mutants import KNOWN, SEEDS, look_for

HERE = ("acked at the local commit", "reads above HW", "unknown is failed")
"""Those that show soonest; `python -m tests.chaos.mutants` tries them all."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", HERE)
def test_a_bug_makes_a_run_invalid(name: str, tmp_path: Path) -> None:
    try:
        find_binary()
    except ToxiproxyMissingError as error:
        pytest.skip(str(error))
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    outcome = look_for(mutant, range(1, SEEDS + 1), tmp_path)
    assert outcome.verdict == INVALID, (tmp_path, outcome)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_table_names_bugs_and_faults_that_there_are(mutant: Mutant) -> None:
    assert set(mutant.names) <= {*BREAKS, *broken_members.BUGS}
    assert set(mutant.names) <= set(KNOWN)
    assert {planned.fault for planned in mutant.schedule} <= set(registry.FAULTS)
    assert mutant.schedule


def test_each_bug_is_there_once() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
    assert set(HERE) <= set(names)
