"""Worlds that failed once, each kept in a file of `regressions/`: they must not fail again."""

from pathlib import Path

import pytest

from tests.simulation.runner.found import REGRESSIONS, read
from tests.simulation.runner.worlds import KINDS

FILES = sorted(REGRESSIONS.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_failed_once_fails_no_more(path: Path) -> None:
    found = read(path)
    assert found.run().failure is None, f"{found.shows}; replay: make replay PLAN={path}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_regression_says_what_it_is(path: Path) -> None:
    found = read(path)
    assert found.name == path.stem
    assert found.world in KINDS
    assert found.shows, "say in `shows` what it showed"
