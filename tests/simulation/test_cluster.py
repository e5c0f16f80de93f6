"""Whole-system worlds: a fixed number of seeds, and replay."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.simulation.cluster import run

ROOT = Path(__file__).parents[2]
SEEDS = 150
CHUNK = 30
REPLAYED = range(1_000, 1_006)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """No garbage is collected within a world: it would be slow, and a closed loop's last words come late."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_worlds(first: int) -> None:
    failed = {}
    for seed in range(first, first + CHUNK):
        result = run(seed)
        gc.collect()
        if result.failure is not None:
            failed[seed] = result.failure
    assert not failed, "replay: make replay WORLD=cluster SEED=..."


def test_a_seed_is_the_same_world_in_another_process_and_in_another_order() -> None:
    ours = {seed: run(seed).hash for seed in REPLAYED}
    assert _hashes(REPLAYED, hash_seed="1") == _hashes(reversed(REPLAYED), hash_seed="77") == ours


def _hashes(seeds: Iterable[int], hash_seed: str) -> dict[int, int]:
    """Run seeds in a process of their own, as the runner does."""
    asked = "".join(json.dumps({"seeds": [seed, seed + 1]}) + "\n" for seed in seeds)
    command = [sys.executable, "-m", "tests.simulation.runner.worker", "cluster", "100"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, input=asked, capture_output=True, text=True, check=True)
    _, *reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {report[0]: report[1] for report in reports}
