"""Worlds of consensus: a fixed number of seeds, replay, shrunk plans, the journal in LMDB, and some mutants."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.consensus import from_json, plan_of, run, to_json
from tests.simulation.consensus.mutants import MUTANTS, caught
from tests.simulation.consensus.options import PROFILES, Options, profile_of
from tests.simulation.consensus.world import World

ROOT = Path(__file__).parents[2]
CHUNK = 40
SEEDS = 320
QUICK_MUTANTS = (
    "CommitUnverified",
    "EagerOutbox",
    "ForgetfulJournal",
    "JoinedVotes",
    "NoPreVote",
    "SnapshotBusy",
    "VotesTwice",
)
FOUND = {
    533: "a lost disk that was put back voted after its successor was admitted, because its old log named it",
}
"""Seeds that showed a bug of the product when it was there."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_worlds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        assert run(seed).failure is None, f"replay: python -m tests.simulation.consensus --seeds {seed} --trace"


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_found_something(seed: int) -> None:
    assert run(seed).failure is None


def test_each_profile_is_part_of_the_ordinary_runs() -> None:
    assert {profile_of(seed) for seed in range(10)} == set(PROFILES)


def test_a_seed_is_the_same_world_in_another_process() -> None:
    def hashes(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation.consensus", "--seeds", "100:110", "--hashes"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return "\n".join(line for line in done.stdout.splitlines() if "worlds" not in line)

    ours = "\n".join(f"{seed} {run(seed).hash:08x}" for seed in reversed(range(100, 110)))
    assert hashes("1") == hashes("77") == "\n".join(reversed(ours.splitlines()))


def test_a_plan_survives_json_and_runs_with_actions_left_out() -> None:
    plan = plan_of(103)
    assert from_json(json.loads(json.dumps(to_json(plan)))) == plan
    whole, again = run(103), run(103, plan)
    assert whole.hash == again.hash
    half = run(103, plan[::2])
    assert half.failure is None
    assert half.hash != whole.hash


def test_a_failing_world_says_what_is_violated_and_records_its_steps() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "ForgetfulJournal")
    result = run(0, record=True, options=Options.of(0, **mutant.options))
    assert result.failure is not None
    assert result.failure.startswith("VoteIsDurable: ")
    assert result.lines


def test_the_journal_in_lmdb_holds_the_same(tmp_path: Path) -> None:
    for seed in (3, 9, 13):
        options = Options.of(seed, lmdb=tmp_path / str(seed), snapshot_entries=12, snapshot_tail=3, seconds=8.0)
        in_memory = World(seed, dataclasses.replace(options, lmdb=None)).run()
        assert World(seed, options).run().hash == in_memory.hash


@pytest.mark.parametrize("name", QUICK_MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """All of them are in `make mutants`; here are some that are found at once."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    assert caught(mutant, range(mutant.budget)) is not None


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
