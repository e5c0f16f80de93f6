"""Random schedules of a world: every run draws its own rate of each kind of disruption; then a fair run without any."""

from collections.abc import Callable

from penstock.raft.image import NO_LEADER
from tests.replication.world import NODES, PRODUCERS, TICK_MS, Node, Violation, World

Action = Callable[[World], bool]
RARE = (0.003, 0.01, 0.03, 0.1, 0.0)
OFTEN = (1.0, 0.5, 0.2, 0.07)


def rates(world: World) -> list[tuple[Action, float]]:
    """Actions with the weights of this run."""
    rng = world.rng

    def rare() -> float:
        return rng.choice(RARE)

    def often() -> float:
        return rng.choice(OFTEN)

    return [
        (lambda w: w.produce(any_node(w), rng.choice(PRODUCERS)), 0.5),
        (lambda w: w.flush(any_node(w)), 1.5),
        (lambda w: w.outcomes(any_node(w)), 1.5),
        (lambda w: w.push(any_node(w), rng.choice(NODES)), 6 * often()),
        (deliver, 3.0),
        (lose, often()),
        (open_missing, 1.0),
        (lambda w: w.open(any_node(w)), rare()),
        (lambda w: w.learn(any_node(w)), often()),
        (lambda w: w.register(any_node(w)), often()),
        (lambda w: w.start(any_node(w)), often()),
        (old_view, rare()),
        (lambda w: w.crash(any_node(w)), rare()),
        (lambda w: w.wipe(any_node(w)), rare()),
        (lambda w: w.fence(any_node(w)), rare()),
        (fail_commit, rare()),
        (lambda w: w.info.leader == NO_LEADER and w.elect(rng.choice(NODES)), 0.5),
        (lambda w: w.elect(rng.choice(NODES)), rare()),
        (lambda w: w.ask_again(any_node(w), rng.choice(PRODUCERS), rng.randrange(4)), 0.2),
        (lambda w: w.resend(any_node(w)), rare()),
        (apply_command, often()),
        (lambda w: w.tick(any_node(w)), often() / 5),
        (pass_time, rng.choice((0.02, 0.1))),
    ]


def any_node(world: World) -> Node:
    return world.nodes[world.rng.choice(NODES)]


def open_missing(world: World) -> bool:
    node = any_node(world)
    return node.session is None and world.open(node)


def lose(world: World) -> bool:
    return bool(world.messages) and world.lose(world.rng.randrange(len(world.messages)))


def deliver(world: World) -> bool:
    return bool(world.messages) and world.deliver(world.rng.randrange(len(world.messages)))


def old_view(world: World) -> bool:
    """A node that just started may see an older image first; any node may skip to one that is not the newest."""
    node = any_node(world)
    return world.learn(node, world.rng.choice(world.history[-12:]))


def fail_commit(world: World) -> bool:
    node = any_node(world)
    queue = node.disk.queue
    return bool(queue) and world.flush(node, world.rng.randrange(len(queue)))


def apply_command(world: World) -> bool:
    if not world.commands:
        return False
    return world.apply_command(world.rng.randrange(len(world.commands)), lose_answer=world.rng.random() < 0.2)


def pass_time(world: World) -> bool:
    world.now_ms += TICK_MS
    return True


def walk(world: World, steps: int) -> None:
    """Take `steps` random actions, checking every invariant after each."""
    actions, weights = zip(*rates(world), strict=True)
    taken = 0
    for action in world.rng.choices(actions, weights, k=20 * steps):
        if action(world):
            world.check()
            taken += 1
            if taken == steps:
                return


def settle(world: World, rounds: int = 60) -> None:
    """No more faults: the partition must commit a further record with all three replicas in sync (I10)."""
    goal = len(world.committed) + 1
    world.limits.records = world.used.records + 10
    for _ in range(rounds):
        _fair_round(world)
        if len(world.committed) >= goal and world.info.isr == NODES:
            return
    raise Violation(f"seed {world.seed}: I10 no progress: {world.info}, committed {len(world.committed)}")


def _fair_round(world: World) -> None:
    world.now_ms += TICK_MS
    for node in world.nodes.values():
        world.start(node)
        world.register(node)
    _elect_if_due(world)
    for node in world.nodes.values():
        world.learn(node)
        world.act(node)
        if node.core is not None and node.core.follower is not None and node.session is None:
            world.open(node)
        if world.info.leader == node.id:
            world.produce(node, 0)
    for _ in range(4):
        for node in world.nodes.values():
            for other in NODES:
                world.push(node, other)
            world.flush(node)
            world.outcomes(node)
        while world.messages:
            world.deliver(0)
            world.check()
    for node in world.nodes.values():
        world.resend(node)
    while world.commands:
        world.apply_command(0, lose_answer=False)
    for node in world.nodes.values():
        world.tick(node)
        world.check()


def _elect_if_due(world: World) -> None:
    info = world.info
    leader = world.nodes.get(info.leader)
    resigned = leader is not None and leader.resigned == info.leader_epoch
    if info.leader == NO_LEADER or resigned:
        for node_id in (*info.isr, *info.elr):
            if world.elect(node_id, free=True):
                return
