"""What must hold in every state of the replication world. Numbers as in the checked model; I13 is the cores' own.

I0  a core finds that the code contradicts a rule (InvariantViolationError)
I1  no node's HW covers a record other than the committed one
I2  the leader, I3 every member of ISR and ELR, holds every committed record durably, if its disk is intact
I4  one leader an epoch
I5  no sequence of a producer twice below HW, none left out
I6  the end that readers are answered never goes back
I7  somebody is electable as long as an intact and complete replica exists
I8  one leader epoch and offset has one value
I9  an answered duplicate is in the committed log
I10 without faults there is progress (see `schedule.settle`)
I11 no node's HW is above any leader's
I12 the leader is in the ISR
I13 what a core says of its log is so, whenever no write is under way
"""

from typing import TYPE_CHECKING

from penstock.node.replication.replica import ReplicaCore, Role
from penstock.raft.image import NO_LEADER

if TYPE_CHECKING:
    from tests.replication.disk import Entry
    from tests.replication.node import Node
    from tests.replication.world import World

NAMES = {1: "A", 2: "B", 3: "C", 4: "D"}


class Violation(AssertionError):  # noqa: N818  what the checks are for
    """An invariant does not hold. The text begins with its number."""

    @property
    def number(self) -> str:
        return str(self).partition(" ")[0]


def check(world: "World") -> None:
    _check_nodes(world)
    _check_values(world)
    _check_places(world)
    _check_answers(world)


def expose(world: "World", node: "Node") -> None:
    """A leader's high watermark: what is below was readable and acknowledged from now on."""
    core = node.core
    if core is None or core.leader is None:
        return
    for offset in range(core.log.high_watermark):
        entry = node.memory[offset]
        if offset < len(world.committed):
            if world.committed[offset] != entry:
                raise Violation(f"I1 node {NAMES[node.id]} commits another record at {offset}")
            continue
        expected = sum(other.producer == entry.producer for other in world.committed)
        if entry.sequence != expected:
            raise Violation(f"I5 {entry} is committed in place of sequence {expected}")
        world.committed.append(entry)


def _check_nodes(world: "World") -> None:
    leaders: dict[int, str] = {}
    for node in world.nodes.values():
        core, name = node.core, NAMES[node.id]
        if core is None or core.role not in {Role.LEADING, Role.FOLLOWING}:
            continue
        mark = core.log.high_watermark
        if core.leader is not None:
            epoch = core.leader.leader_epoch
            if epoch in leaders:
                raise Violation(f"I4 nodes {leaders[epoch]} and {name} lead epoch {epoch}")
            leaders[epoch] = name
            current = world.info.leader == node.id and world.info.leader_epoch == epoch
            if current and core.leader.end_is_known and mark < len(world.committed):
                raise Violation(f"I6 leader {name} would answer the end {mark}, {len(world.committed)} are committed")
        if mark > len(world.committed):
            raise Violation(f"I11 node {name} has a HW above any leader's")
        if node.memory[:mark] != world.committed[:mark]:
            raise Violation(f"I1 the HW of node {name} covers other records")
        if not node.disk.queue and not node.outcomes:
            _check_bounds(node, core)


def _check_bounds(node: "Node", core: ReplicaCore) -> None:
    end, log = len(node.disk.entries), core.log
    if node.memory != node.disk.entries or (log.log_end_offset, log.durable_end) != (end, end):
        ends = f"end at {log.log_end_offset}, durably at {log.durable_end}"
        raise Violation(f"I13 node {NAMES[node.id]} takes its log to {ends}, and it ends at {end}")


def _check_values(world: "World") -> None:
    logs = [node.disk.entries for node in world.nodes.values()]
    logs += [node.memory for node in world.nodes.values() if node.core is not None]
    seen: dict[tuple[int, int], Entry] = {}
    for log in logs:
        for offset, entry in enumerate(log):
            if seen.setdefault((entry.leader_epoch, offset), entry) != entry:
                raise Violation(f"I8 epoch {entry.leader_epoch} has two values at offset {offset}")


def _complete(world: "World", node_id: int) -> bool:
    return world.nodes[node_id].disk.entries[: len(world.committed)] == world.committed


def _check_places(world: "World") -> None:
    info = world.info
    if info.leader != NO_LEADER and info.leader not in info.isr:
        raise Violation("I12 the leader is outside the ISR")
    intact = {*info.isr, *info.elr} - world.wiped
    for node_id in sorted(intact):
        if not _complete(world, node_id):
            who = "I2 the leader" if info.leader == node_id else "I3 a member of ISR or ELR"
            raise Violation(f"{who}, node {NAMES[node_id]}, lacks committed records")
    if not intact:
        others = [NAMES[node_id] for node_id in world.nodes if node_id not in world.wiped and _complete(world, node_id)]
        if others:
            raise Violation(f"I7 nobody is electable though {others} are intact and complete")


def _check_answers(world: "World") -> None:
    for value, offset in world.answered:
        if offset >= len(world.committed) or world.committed[offset].value != value:
            raise Violation(f"I9 {value} was answered as appended at {offset}, and is not")
