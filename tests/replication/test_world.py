"""Random schedules of the real cores; that rules taken away are missed by them; and which guards stand twice."""

import pytest

from tests.replication import broken
from tests.replication.mutants import COMMON, MUTANTS, Mutant, caught
from tests.replication.schedule import FROM_TRACES, run
from tests.replication.world import World
from tests.traces.player import Trace, all_traces, play_mutant

SEEDS = 300
CHUNK = 50
GUARDED_SEEDS = 24


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_and_the_partition_recovers_under_random_schedules(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(World(), seed)


@pytest.mark.parametrize(
    "mutant", [mutant for mutant in MUTANTS if mutant.budget == COMMON], ids=lambda mutant: mutant.name
)
def test_a_rule_taken_away_is_missed(mutant: Mutant) -> None:
    """What is common needs no seeds that begin with a trace; the rest is shown by its traces, and by `make mutants`."""
    assert caught(mutant, (seed for seed in range(2 * COMMON) if seed % FROM_TRACES)) is not None


# ---- guards that stand twice: each alone keeps the schedules that show them from harm

DOUBLE_GUARDS = {
    "rule-26-old-view-and-epoch": [
        Mutant("only the view waits for the registration", "26", "", replica=broken.AnyEpoch, disk=broken.Unfenced),
        Mutant("only the core knows the epoch acted in", "26", "", world=broken.AnyView, disk=broken.Unfenced),
        Mutant("only the store knows the epoch acted in", "26", "", replica=broken.AnyEpoch, world=broken.AnyView),
    ],
    "rule-26-any-grant": [
        Mutant("only the view waits for the registration", "26", "", replica=broken.AnyGrant),
        Mutant("only the grant is compared", "26", "", world=broken.AnyView),
    ],
    "rule-11-session-opens-undrained": [
        Mutant("only batches must continue the log", "11", "", follower=broken.OpenUndrained),
        Mutant("only a session waits for earlier writes", "11", "", follower=broken.AnyBatches),
    ],
}
TRACES = all_traces()
GUARDS = [(trace, mutant) for name, mutants in DOUBLE_GUARDS.items() for trace in (TRACES[name],) for mutant in mutants]


@pytest.mark.parametrize(("trace", "mutant"), GUARDS, ids=lambda part: part.name)
def test_either_of_two_guards_is_enough(trace: Trace, mutant: Mutant) -> None:
    assert play_mutant(trace, mutant) is None
    assert caught(mutant, range(GUARDED_SEEDS)) is None


def test_the_same_seed_is_the_same_run() -> None:
    runs = []
    for _ in range(2):
        world = World()
        run(world, 11)
        disks = [node.disk.entries for node in world.nodes.values()]
        runs.append((world.trace, world.image, world.committed, world.messages, disks))
    assert runs[0] == runs[1]
