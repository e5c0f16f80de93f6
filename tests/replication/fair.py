"""Runs without any fault: the partition must make progress (I10)."""

from penstock.raft.image import NO_LEADER
from tests.replication.world import NODES, TICK_MS, Violation, World

ROUNDS = 60
RECORDS = 10


def settle(world: World, among: tuple[int, ...] = NODES) -> None:
    """Nothing fails any more, but nodes not in `among` stay cut off (with living sessions): a record must be committed.

    With nobody cut off, all replicas must be in sync as well.
    """
    goal = len(world.committed) + 1
    world.limits.records = world.used.records + RECORDS
    for _ in range(ROUNDS):
        carry_on(world, among)
        if len(world.committed) >= goal and (len(among) < len(NODES) or world.info.isr == NODES):
            return
    raise Violation(f"I10 no progress: {world.describe()}, committed {len(world.committed)}")


def can_lose(world: World, node_id: int) -> bool:
    """Whether there must be progress with this node cut off: the others have what is needed, and nobody is amiss."""
    info = world.info
    alive = all(node.core is not None for node in world.nodes.values())
    others = set(info.isr) - {node_id}
    return alive and bool(others) and not info.elr and not world.wiped and info.leader not in {node_id, NO_LEADER}


def carry_on(world: World, among: tuple[int, ...]) -> None:
    world.now_ms += TICK_MS
    for node_id in among:
        world.start(node_id)
        world.register(node_id)
    _elect_if_due(world, among)
    for node_id in among:
        node = world.nodes[node_id]
        world.learn(node_id)
        world.act(node)
        if node.core is not None and node.core.follower is not None and node.session is None:
            world.open(node_id)
        if world.info.leader == node_id:
            world.produce(node_id, 0)
    for _ in range(4):
        _carry(world, among)
    for node_id in among:
        world.resend(node_id)
    while world.commands:
        world.apply(world.commands[0][0])
    for node_id in among:
        world.tick(node_id)
        world.check()


def _carry(world: World, among: tuple[int, ...]) -> None:
    for node_id in among:
        for other in among:
            world.push(node_id, other)
        world.flush(node_id)
        world.outcomes(node_id)
    while channel := next((c for c in map(world.channel_of, world.messages) if c[0] in among and c[1] in among), None):
        world.deliver(*channel)
        world.check()


def _elect_if_due(world: World, among: tuple[int, ...]) -> None:
    info = world.info
    leader = world.nodes.get(info.leader)
    resigned = leader is not None and leader.resigned == info.leader_epoch
    if info.leader == NO_LEADER or resigned:
        for node_id in (*info.isr, *info.elr):
            if node_id in among and world.elect(node_id, free=True):
                return
