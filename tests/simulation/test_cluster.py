"""Whole-system worlds: a fixed number of seeds, replay, the real store, weaker durability, and the quickest mutants."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.simulation.cluster import World, run
from tests.simulation.cluster.mutants import MUTANTS, Mutant, caught
from tests.simulation.cluster.plan import options_of

ROOT = Path(__file__).parents[2]
SEEDS = 150
CHUNK = 30
REPLAYED = range(1_000, 1_006)
QUICK = ("HW not frozen", "ack before durable", "own end counted")


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """No garbage is collected within a world, for speed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_worlds(first: int) -> None:
    failed = {}
    for seed in range(first, first + CHUNK):
        result = run(seed, store="memory")
        gc.collect()
        if result.failure is not None:
            failed[seed] = result.failure
    assert not failed, "replay: make replay WORLD=cluster SEED=..."


@pytest.mark.parametrize("durability", ["interval", "os"])
def test_worlds_where_commits_are_not_durable_by_themselves(durability: str) -> None:
    for seed in range(500, 505):
        options = dataclasses.replace(options_of(seed), durability=durability, single_copies=False)
        result = World(seed, options=options).run()
        gc.collect()
        assert result.failure is None, seed


def test_a_seed_is_the_same_world_in_another_process_and_in_another_order() -> None:
    ours = {seed: run(seed, store="memory").hash for seed in REPLAYED}
    assert _hashes(REPLAYED, hash_seed="1") == _hashes(reversed(REPLAYED), hash_seed="77") == ours


def _hashes(seeds: Iterable[int], hash_seed: str) -> dict[int, int]:
    """Run seeds in a process of their own, as the runner does."""
    asked = "".join(json.dumps({"seeds": [seed, seed + 1]}) + "\n" for seed in seeds)
    command = [sys.executable, "-m", "tests.simulation.runner.worker", "cluster", "100"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, input=asked, capture_output=True, text=True, check=True)
    _, *reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {report[0]: report[1] for report in reports}


@pytest.mark.parametrize("durability", ["commit", "interval", "os"])
def test_the_real_store_makes_the_same_world(durability: str) -> None:
    """Every answer of the store in memory is the real one's, or the traces would part."""
    for seed in range(2):
        options = dataclasses.replace(options_of(seed), durability=durability)
        assert run(seed, store="lmdb", options=options) == run(seed, store="memory", options=options)


@pytest.mark.parametrize("mutant", [one for one in MUTANTS if one.name in QUICK], ids=lambda mutant: mutant.name)
def test_a_deliberate_bug_is_found(mutant: Mutant) -> None:
    assert caught(mutant, range(mutant.budget)) is not None


def test_the_quick_mutants_are_there() -> None:
    assert set(QUICK) <= {mutant.name for mutant in MUTANTS}
