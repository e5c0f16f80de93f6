"""The deliberate bugs of the client are noticed."""

import pytest

from tests.simulation.cluster.client_mutants import MUTANTS, Mutant, caught


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_is_caught(mutant: Mutant) -> None:
    assert caught(mutant, range(mutant.first_seed, mutant.first_seed + mutant.budget)) is not None
