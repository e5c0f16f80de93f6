"""Worlds of consensus: a fixed number of seeds, replay, and the journal in LMDB."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.consensus.world import Options, World

ROOT = Path(__file__).parents[2]
CHUNK = 50


@pytest.mark.parametrize("first", range(0, 400, CHUNK))
def test_worlds(first: int) -> None:
    for seed in range(first, first + CHUNK):
        try:
            World(seed).run()
        except BaseException as error:
            error.add_note(f"replay: python -m tests.simulation.consensus --seeds {seed} --trace")
            raise


def test_membership_changes_in_every_world() -> None:
    for seed in range(20_000, 20_040):
        World(seed, Options.of(seed, observers=2)).run()


def test_a_seed_is_the_same_world_in_another_process() -> None:
    def hashes(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation.consensus", "--seeds", "100:110", "--hashes"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return "\n".join(line for line in done.stdout.splitlines() if "worlds" not in line)

    ours = "\n".join(f"{seed} {World(seed).run().hash:08x}" for seed in range(100, 110))
    assert hashes("1") == hashes("77") == ours


def test_the_journal_in_lmdb_holds_the_same(tmp_path: Path) -> None:
    for seed in range(3):
        place = tmp_path / str(seed)
        World(seed, Options.of(seed, lmdb=place, snapshot_entries=12, snapshot_tail=3, seconds=8.0)).run()
