"""Random and directed schedules of the real cores; and that each rule, taken away, is missed."""

import pytest

from penstock.node.replication import events as ev
from penstock.node.replication.leader import LeaderCore
from tests.replication.mutants import MUTANTS, AnyEpoch, AnyLeaderEpoch, AnyView, AnyViewAnyWrite, AnyWrite, Mutant
from tests.replication.schedule import settle, walk
from tests.replication.world import LAG_MS, Violation, World

SEEDS = 300
STEPS = 400
MUTANT_SEEDS = 700
CHUNK = 50


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_and_the_partition_recovers_under_random_schedules(first: int) -> None:
    for seed in range(first, first + CHUNK):
        world = World(seed)
        walk(world, STEPS)
        settle(world)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_rule_taken_away_is_missed(mutant: Mutant) -> None:
    for seed in range(mutant.first_seed, mutant.first_seed + MUTANT_SEEDS):
        world = mutant.build(seed)
        try:
            walk(world, STEPS)
            settle(world)
        except Violation as found:
            if mutant.liveness or "I10" not in str(found):
                return
    pytest.fail(f"{MUTANT_SEEDS} seeds show nothing")


# ---- directed schedules


def quiet(world: World, *among: int) -> None:
    """Let these nodes do all they can among themselves; messages from and to others stay under way."""
    busy = True
    while busy:
        busy = False
        for node in (world.nodes[node_id] for node_id in among):
            core = node.core
            if core is not None and core.follower is not None and core.follower.leader in among and not node.session:
                busy |= world.open(node)
            busy |= world.flush(node) | world.outcomes(node)
            for other in among:
                busy |= world.push(node, other)
        for message in list(world.messages):
            if message.sender in among and message.to in among and message in world.messages:
                busy |= world.deliver(world.messages.index(message))
        world.check()


def learn(world: World, *nodes: int) -> None:
    for node_id in nodes:
        world.learn(world.nodes[node_id])


def late_open_of_an_earlier_epoch(world: World) -> None:
    """C's open of epoch 1 arrives when A leads again, in epoch 3; C has cut its log in epoch 2."""
    a, c = world.nodes[1], world.nodes[3]
    quiet(world, 1, 2, 3)
    world.produce(a, 0)
    quiet(world, 1, 3)
    world.open(c)
    held = world.messages.pop()
    world.elect(2)
    learn(world, 2, 3)
    quiet(world, 2, 3)
    assert c.disk.entries == []
    world.elect(1)
    learn(world, 1, 2)
    quiet(world, 1, 2)
    assert a.up().leader is not None
    world.messages.insert(0, held)
    world.deliver(0)
    quiet(world, 1, 2)


def restart_with_an_old_view(world: World) -> None:
    """C restarts with its view at epoch 1 and follows A, who does not know that it was deposed."""
    c = world.nodes[3]
    quiet(world, 1, 2, 3)
    old = world.image
    world.fence(world.nodes[1])
    world.elect(2)
    learn(world, 2, 3)
    quiet(world, 2, 3)
    world.produce(world.nodes[2], 0)
    quiet(world, 2, 3)
    assert len(world.committed) == 1
    world.crash(c)
    world.start(c)
    while c.node_epoch == 0:  # the answer may be lost
        world.register(c)
    world.learn(c, old)
    quiet(world, 1, 3)


def a_follower_is_cut_off(world: World) -> None:
    """C never answers; after the lag A goes on with B."""
    quiet(world, 1, 2, 3)
    world.produce(world.nodes[1], 0)
    quiet(world, 1, 2)
    for _ in range(3):
        world.now_ms += LAG_MS
        world.tick(world.nodes[1])
    while world.commands:
        world.apply_command(0, lose_answer=False)
    learn(world, 1, 2)
    quiet(world, 1, 2)
    world.require(len(world.committed) == 1, "I10 one follower holds everything up")


class NoShrink(LeaderCore):
    """Rule 29: nobody leaves for lag."""

    def _shrink(self, lagging: set[int]) -> ev.Outputs:
        return []


DIRECTED = [
    (late_open_of_an_earlier_epoch, Mutant("3 any leader epoch", leader=AnyLeaderEpoch)),
    (restart_with_an_old_view, Mutant("26 old view and epoch", replica=AnyEpoch, world=AnyViewAnyWrite)),
    (a_follower_is_cut_off, Mutant("29 no shrink", leader=NoShrink)),
]


@pytest.mark.parametrize(("schedule", "mutant"), DIRECTED, ids=lambda part: getattr(part, "name", ""))
def test_directed_schedule(schedule: object, mutant: Mutant) -> None:
    assert callable(schedule)
    schedule(World(0))
    with pytest.raises(Violation):
        schedule(mutant.build(0))


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("the view waits for the registration", replica=AnyEpoch, world=AnyWrite),
        Mutant("the core knows the epoch acted in", world=AnyViewAnyWrite),
        Mutant("the store knows the epoch acted in", replica=AnyEpoch, world=AnyView),
    ],
    ids=lambda mutant: mutant.name,
)
def test_each_guard_of_rule_26_alone_keeps_an_old_view_from_harm(mutant: Mutant) -> None:
    restart_with_an_old_view(mutant.build(0))


def test_the_same_seed_is_the_same_run() -> None:
    runs = []
    for _ in range(2):
        world = World(11)
        walk(world, STEPS)
        runs.append(
            (world.image, world.committed, world.messages, [node.disk.entries for node in world.nodes.values()])
        )
    assert runs[0] == runs[1]
