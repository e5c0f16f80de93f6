"""Worlds of four nodes whose partition changes its replicas at any moment: the real commands, the real cores.

A node that is no replica has no role and keeps its disk, as Replicas does; added again it begins with what it kept. A
reassignment is completed as soon as `apply` lets it, which is earlier than the controller would.
"""

from penstock.internal.v1 import metadata_pb2 as meta_pb
from penstock.node.partition.producing import Producers
from penstock.node.replication.replica import ReplicaCore
from penstock.raft import apply_reassignments
from penstock.raft.image import NO_LEADER
from tests.replication import fair, steps
from tests.replication.node import Message, Node
from tests.replication.schedule import STEPS, Chance, Draw, walk
from tests.replication.steps import Step
from tests.replication.world import LAG_MS, TOPIC, Violation, World

NODES = (1, 2, 3, 4)
REASSIGNMENTS = 20
ROUNDS = 80
RECORDS = 10
MINIMUM = 2
SIZES = (0, 2, 2, 3, 3, 4)
"""Of targets; 0 turns back."""

steps.SHAPES |= {"reassign": "", "complete": "N"}


class Reassigning(World):
    """`reassign` and `complete` are steps like the others."""

    node_ids = NODES

    def __post_init__(self) -> None:
        self.released: set[int] = set()
        """Nodes that know that they are no replica."""
        self.begun = self.completed = 0
        super().__post_init__()

    def start(self, node_id: int) -> bool:
        started = super().start(node_id)
        if started:
            self.released.discard(node_id)
        return started

    def act(self, node: Node) -> None:
        if node.image is None or node.core is None or not self.includes_registration(node, node.image):
            return
        if node.id not in node.image.topics[TOPIC].partitions[0].replicas:
            if node.id not in self.released:
                self.release(node, node.core)
            return
        if node.id in self.released:
            self.released.discard(node.id)
            node.core = node.core_type(node.id, node.disk.bounds(), node.disk.acted_epoch, LAG_MS)
            node.memory = list(node.disk.entries)
            node.producers = Producers(node.disk.producer)
        super().act(node)

    def release(self, node: Node, core: ReplicaCore) -> None:
        """As Replicas does: the role ends, the log stays."""
        node.run(core.close())
        node.slots.clear()
        node.session = None
        self.released.add(node.id)

    def _deliver_up(self, node: Node, core: ReplicaCore, message: Message) -> None:
        if node.id not in self.released:
            super()._deliver_up(node, core, message)
        elif message.kind == "open":
            self.send(Message(node.id, message.sender, message.session, "refuse", None))

    # ---- the commands

    def reassign(self, *target: int) -> bool:
        """Begin, give another target, or turn back."""
        before = self.info
        if self.begun >= REASSIGNMENTS:
            return False
        change = meta_pb.Reassignment(
            topic_id=TOPIC, partition=0, partition_epoch=before.partition_epoch, target=target
        )
        command = meta_pb.ReassignPartitions(reassignments=[change])
        self.apply_now(apply_reassignments.reassign_partitions, command)
        self.begun += self.info != before
        return self.info != before

    def complete(self, leader: int) -> bool:
        """Led by this node from then on; 0: the leader stays."""
        if not self.info.target:
            return False
        change = meta_pb.ReassignmentCompletion(topic_id=TOPIC, partition=0, partition_epoch=self.info.partition_epoch)
        if leader:
            change.leader = leader
            change.leader_node_epoch = self.image.nodes[leader].node_epoch
        command = meta_pb.CompleteReassignments(completions=[change])
        result = self.apply_now(apply_reassignments.complete_reassignments, command)
        self.completed += not result.changes[0].refusal
        return not result.changes[0].refusal


class ReassigningChance(Chance):
    """Reassignments among everything else."""

    nodes = NODES

    def rates(self) -> list[tuple[Draw, float]]:
        rng = self.rng
        return [
            *super().rates(),
            (lambda _: Step("reassign", tuple(rng.sample(NODES, rng.choice(SIZES)))), rng.choice((0.1, 0.3, 1.0))),
            (lambda _: Step("complete", (rng.choice((0, *NODES)),)), rng.choice((0.5, 1.0, 2.0))),
        ]


def run(world: Reassigning, seed: int, count: int = STEPS) -> None:
    """Random steps with every invariant checked after each; then no faults, and progress. Raises Violation."""
    walk(world, ReassigningChance(seed), count)
    settle(world)


def settle(world: Reassigning) -> None:
    """Nothing fails any more: the reassignment ends, all replicas are in sync, and a record is committed."""
    goal = len(world.committed) + 1
    world.limits.records = world.used.records + RECORDS
    for _ in range(ROUNDS):
        fair.carry_on(world, NODES)
        _complete_if_due(world)
        info = world.info
        if len(world.committed) >= goal and not info.target and set(info.isr) == set(info.replicas):
            return
    raise Violation(f"I10 no progress: {world.describe()}, {world.info}")


def _complete_if_due(world: Reassigning) -> None:
    """As the controller does."""
    info = world.info
    left = set(info.isr).intersection(info.target)
    enough = len(left) == len(info.target) or info.target == info.original
    if info.target and info.leader != NO_LEADER and enough and len(left) >= MINIMUM:
        world.complete(0 if info.leader in left else min(left))


class Deleting(Reassigning):
    """Who is removed deletes its log."""

    def release(self, node: Node, core: ReplicaCore) -> None:
        super().release(node, core)
        node.outcomes.clear()
        disk = node.disk
        node.disk = node.disk_type(disk.store_id)
        node.disk.start_ids = disk.start_ids
