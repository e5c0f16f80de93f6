"""The metadata of a cluster whose __offsets has one partition, for tests of its groups' coordinator."""

from collections.abc import Sequence

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.joining import GroupLimits, Wish
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, GroupPartition, MemberInfo
from tests.raft.metadata_world import World, id16, placement

GROUP = "g"
LIMITS = GroupLimits()


def metadata(**topics: int) -> World:
    """Nodes 1 to 3, __offsets led by node 1, and these topics with so many partitions."""
    world = World.with_nodes()
    world.create(OFFSETS_TOPIC, internal=True)
    for name, count in topics.items():
        create(world, name, count)
    return world


def create(world: World, name: str, count: int, topic_id: str = "") -> None:
    """Create a topic."""
    fields = {"topic_id": topic_id} if topic_id else {}
    world.create(name, *([(1, 2, 3)] * count), **fields)  # type: ignore[arg-type]


def grow(world: World, name: str, count: int) -> None:
    """Add partitions up to `count`."""
    topic = world.topic(name)
    present = len(topic.partitions)
    added = [placement((1, 2, 3)) for _ in range(count - present)]
    world.do(add_partitions=pb.AddPartitions(topic_id=topic.topic_id, present_partitions=present, partitions=added))


def leadership(world: World) -> tuple[int, int]:
    """Who coordinates, in which leader epoch."""
    info = world.partition(OFFSETS_TOPIC)
    return info.leader, info.leader_epoch


def move_leadership(world: World, node_id: int) -> tuple[int, int]:
    """Make a node the leader of __offsets; who coordinates then."""
    topic, info = world.topic(OFFSETS_TOPIC), world.partition(OFFSETS_TOPIC)
    election = pb.Election(
        topic_id=topic.topic_id,
        partition=0,
        partition_epoch=info.partition_epoch,
        leader=node_id,
        leader_node_epoch=world.image.nodes[node_id].node_epoch,
        isr=info.isr,
    )
    result = world.do(elect_leaders=pb.ElectLeaders(elections=[election]))
    assert not result.changes[0].refusal, result
    return leadership(world)


def alter(world: World, changes: Sequence[pb.GroupChange]) -> list[pb.ChangeResult]:
    """Apply changes of groups."""
    return list(world.do(alter_groups=pb.AlterGroups(changes=changes)).changes)


def group_of(world: World) -> GroupInfo:
    """The group as the metadata has it."""
    return world.image.groups.get(GROUP, GroupInfo(GROUP, group_epoch=0))


def wish(member_id: str, *topics: str, generation: int = 0, **fields: object) -> Wish:
    """Somebody who wants to join."""
    times = {"session_timeout_ms": 10_000, "rebalance_timeout_ms": 60_000}
    member = MemberInfo(member_id, topics=tuple(sorted(topics or ("t",))), **{**times, **fields})  # type: ignore[arg-type]
    return Wish(member, generation)


def parts(name: str, *indexes: int) -> frozenset[GroupPartition]:
    """Partitions of a topic."""
    return frozenset(GroupPartition(id16(f"topic-{name}"), index) for index in indexes)
