"""Properties of apply under random commands: total, deterministic, invariants kept, snapshots and prefixes exact.

World.apply checks the invariants of every image and step.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import state
from penstock.raft.command import UnknownCommandError
from penstock.raft.election import choose
from penstock.raft.image import EMPTY_IMAGE, NO_LEADER, MetadataImage, PartitionInfo
from penstock.raft.records import config_record, decode_image, encode_image
from penstock.raft.topic_config import TopicConfig
from penstock.v1 import common_pb2 as common
from tests.raft.group_checks import Grants
from tests.raft.group_world import GROUP, GROUPS, make_offsets
from tests.raft.metadata_world import CLUSTER, World, id16

NODES = st.integers(1, 4)
SUBSETS = st.lists(st.integers(0, 4), max_size=4)
Act = Callable[[World, int, list[int]], object]


def _create(world: World, node: int, _: list[int]) -> None:
    replicas = [(node + i - 1) % 3 + 1 for i in range(3)]
    world.create("t", replicas, minimum=2, topic_id=f"t-{world.index}", request_id=f"r{node}")


def _config(world: World, node: int, subset: list[int]) -> None:
    topic = world.topic()
    compaction = {
        "cleanup_policy": sum(subset) % 3 + 1,
        "delete_retention_ms": sum(subset),
        "min_dirty_ratio": len(subset) / 4,
        "max_compaction_lag_ms": subset[0] if subset else None,
    }
    config = config_record(TopicConfig((node - 1) % 3 + 1, **compaction))  # type: ignore[arg-type]
    world.do(
        alter_topic_config=pb.AlterTopicConfig(
            topic_id=topic.topic_id, config=config, config_epoch=topic.config_epoch - node // 4
        )
    )


def _elect_as_chosen(world: World, node: int, _: list[int]) -> None:
    choice = choose(world.partition(), world.image.nodes, avoid=(node,))
    if choice is not None:
        assert world.elect(choice.leader, choice.isr).refusal == pb.REFUSAL_UNSPECIFIED


def _replicas(world: World, node: int, subset: list[int]) -> None:
    change = pb.ReplicasChange(
        topic_id=world.topic().topic_id,
        partition_epoch=world.partition().partition_epoch - node // 4,
        replicas=subset,
    )
    world.do(alter_replicas=pb.AlterReplicas(changes=[change]))


def _reassign(world: World, node: int, subset: list[int]) -> None:
    """Mostly a target that can be; without a subset anything but `node`."""
    wanted = dict.fromkeys(member for member in subset if member) or {1: None, 2: None, 3: None, 4: None}
    world.reassign([member for member in wanted if subset or member != node])


def _complete(world: World, node: int, _: list[int]) -> None:
    world.complete(leader=node if node in world.partition().target else None)


def _catch_up(world: World, node: int, _: list[int]) -> None:
    info = world.partition()
    live = [member for member in info.replicas if not world.image.nodes[member].fenced]
    world.alter_isr([member for member in live if member in info.isr or member <= 2 * node])


def _elect_at_random(world: World, node: int, subset: list[int]) -> None:
    leader = subset[0] if subset and subset[0] in world.image.nodes else None
    world.elect(leader, subset, unclean=node == 1)


def _repeat(world: World, node: int, subset: list[int]) -> None:
    world.apply(world.journal[-1 - (node * (1 + sum(subset))) % len(world.journal)])


SAFE: dict[str, Act] = {
    "create": _create,
    "delete": lambda w, _, __: w.do(delete_topic=pb.DeleteTopic(topic_id=w.topic().topic_id)),
    "config": _config,
    "fence": lambda w, node, _: w.fence(node),
    "register again": lambda w, node, _: w.register(node),
    "restart": lambda w, node, _: w.restart(node, f"s-{w.index}"),
    "drain": lambda w, node, _: w.do(drain_node=pb.DrainNode(node_id=node, node_epoch=w.image.nodes[node].node_epoch)),
    "full": lambda w, node, _: w.note_store(node),
    "room": lambda w, node, subset: w.note_store(node, len(subset) % 2 + 1),
    "alter isr": lambda w, _, subset: w.alter_isr(subset),
    "elect as chosen": _elect_as_chosen,
    "elect at random": _elect_at_random,
    "replicas": _replicas,
    "reassign": _reassign,
    "reassign at random": lambda w, _, subset: w.reassign(subset),
    "turn back": lambda w, _, __: w.reassign([]),
    "catch up": _catch_up,
    "complete": _complete,
    "producer ids": lambda w, node, _: w.do(allocate_producer_ids=pb.AllocateProducerIds(count=node)),
    "repeat": _repeat,
}
MOVING = {name: SAFE[name] for name in ("reassign", "turn back", "catch up", "complete", "elect as chosen")}
MOVING |= {name: SAFE[name] for name in ("fence", "register again", "alter isr", "config")}
LOSING: dict[str, Act] = {
    "new store": lambda w, node, _: w.register(node, store=f"d-{w.index}", starts=[f"s-{w.index}"]),
    "unclean": lambda w, node, _: w.register(
        node, starts=[f"s-{w.index}"], durability=common.DURABILITY_OS if node % 2 else common.DURABILITY_COMMIT
    ),
    "lost": lambda w, node, subset: w.alter_isr(subset, lost=[node]),
}
ALL = SAFE | LOSING | GROUPS
COORDINATING = GROUPS | {name: SAFE[name] for name in ("fence", "register again", "restart", "delete", "repeat")}


def _world() -> World:
    world = World.with_nodes(4)
    world.create("t")
    make_offsets(world)
    return world


def _schedule(acts: dict[str, Act], least: int = 0) -> st.SearchStrategy[list[tuple[str, int, list[int]]]]:
    return st.lists(st.tuples(st.sampled_from(sorted(acts)), NODES, SUBSETS), min_size=least, max_size=40)


def _run(world: World, acts: dict[str, Act], schedule: list[tuple[str, int, list[int]]]) -> None:
    for name, node, subset in schedule:
        if "t" not in world.image.topic_ids:
            _create(world, node, [])
        if "t" in world.image.topic_ids:  # else a node of it is fenced
            acts[name](world, node, subset)
        elif name in {"register again", "restart"}:
            world.register(node)


@settings(max_examples=150, deadline=None)
@given(_schedule(ALL))
def test_invariants_hold_and_replay_is_exact(schedule: list[tuple[str, int, list[int]]]) -> None:
    world = _world()
    _run(world, ALL, schedule)
    assert _replay(world.journal) == world.image


@settings(max_examples=150, deadline=None)
@given(_schedule(SAFE))
def test_without_lost_disks_somebody_is_always_electable(schedule: list[tuple[str, int, list[int]]]) -> None:
    world = World.with_nodes(4)
    world.create("t")
    for step in schedule:
        _run(world, SAFE, [step])
        for topic in world.image.topics.values():
            assert all(info.isr or info.elr for info in topic.partitions), step


@settings(max_examples=80, deadline=None)
@given(_schedule(COORDINATING, least=20))
def test_rule_21_a_partition_is_granted_once_a_generation(schedule: list[tuple[str, int, list[int]]]) -> None:
    """But to who follows a member that is one no more. World.apply checks that it has one owner at a time."""
    world, grants = _world(), Grants()
    for step in schedule:
        before = world.image.groups.get(GROUP)
        _run(world, COORDINATING, [step])
        grants.look(before, world.image.groups.get(GROUP))


class Holders:
    """Who has what was acknowledged of a partition: after each command one record, wherever records are taken then."""

    def __init__(self) -> None:
        self._acknowledged = 0
        self._held: dict[int, int] = {}

    def look(self, info: PartitionInfo, minimum: int) -> None:
        """Check that everybody who may lead has everything; then acknowledge one record."""
        if info.leader != NO_LEADER:  # who joins has caught up with a leader that has everything
            assert self._has_all(info.leader), info
            self._held |= dict.fromkeys(info.isr, self._acknowledged)
        assert all(self._has_all(node) for node in info.isr + info.elr), info
        if info.leader != NO_LEADER and len(info.isr) >= minimum:
            self._acknowledged += 1
            self._held |= dict.fromkeys(info.isr, self._acknowledged)

    def _has_all(self, node: int) -> bool:
        return self._held.get(node, 0) == self._acknowledged


@settings(max_examples=300, deadline=None)
@given(st.one_of(_schedule(SAFE), _schedule(MOVING, least=20)))
def test_without_lost_disks_whoever_may_lead_has_what_was_acknowledged(
    schedule: list[tuple[str, int, list[int]]],
) -> None:
    world = World.with_nodes(4)
    world.create("t")
    holders: dict[bytes, Holders] = {}
    for step in schedule:
        for topic_id, topic in world.image.topics.items():
            minimum = topic.config.min_insync_replicas
            holders.setdefault(topic_id, Holders()).look(topic.partitions[0], minimum)
        _run(world, SAFE, [step])


@settings(max_examples=100, deadline=None)
@given(_schedule(ALL), st.integers(0, 1000))
def test_a_snapshot_stands_for_the_prefix_that_made_it(schedule: list[tuple[str, int, list[int]]], cut: int) -> None:
    world = _world()
    _run(world, ALL, schedule)
    place = cut % (len(world.journal) + 1)
    half = _replay(world.journal[:place])
    restored = decode_image(encode_image(half))
    assert restored == half
    assert encode_image(_replay(world.journal[place:], restored)) == encode_image(world.image)


def _replay(journal: list[bytes], image: MetadataImage = EMPTY_IMAGE) -> MetadataImage:
    for data in journal:
        image = state.apply(image, image.version + 1, data).image
    return image


def class_of(descriptor: Any) -> type[Message]:
    """The Python class of a message type."""
    found: type[Message] = GetMessageClass(descriptor)
    return found


@st.composite
def arbitrary(draw: st.DrawFn, kind: type[Message], depth: int = 0) -> Message:
    """Any message of a type, with small and extreme values."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.booleans()):
            continue
        if field.message_type is not None:
            part = class_of(field.message_type)
            if depth < 4:
                target = getattr(message, field.name)
                many = draw(st.integers(1, 2)) if field.is_repeated else 1
                for _ in range(many):
                    (target.add() if field.is_repeated else target).MergeFrom(draw(arbitrary(part, depth + 1)))
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_scalar(field)))
    return message


def _scalar(field: Any) -> st.SearchStrategy[object]:
    if field.type == field.TYPE_BYTES:
        return st.one_of(st.sampled_from([id16("topic-t"), id16("store-1"), id16("start-1")]), st.binary(max_size=16))
    if field.type == field.TYPE_STRING:
        return st.one_of(st.sampled_from(["t", CLUSTER]), st.text(max_size=3))
    if field.type == field.TYPE_BOOL:
        return st.booleans()
    extremes: dict[int, list[float]] = {
        field.TYPE_INT32: [-(2**31), 2**31 - 1],
        field.TYPE_INT64: [-(2**63), 2**63 - 1],
        field.TYPE_SINT64: [-(2**63), 2**63 - 1],
        field.TYPE_UINT32: [2**32 - 1],
        field.TYPE_UINT64: [2**64 - 1],
        field.TYPE_DOUBLE: [-0.5, 0.5, float("inf"), float("nan")],
    }
    return st.sampled_from([0, 1, 2, 3, 4, *extremes[field.type]])


@st.composite
def any_command(draw: st.DrawFn) -> pb.MetadataCommand:
    """A command of any kind, its byte fields plausible or not."""
    field = draw(st.sampled_from(list(pb.MetadataCommand.DESCRIPTOR.oneofs_by_name["kind"].fields)))
    content = draw(arbitrary(class_of(field.message_type)))
    return pb.MetadataCommand(**{field.name: content})  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.lists(any_command(), max_size=5), st.binary(max_size=20))
def test_apply_is_total(commands: list[pb.MetadataCommand], garbage: bytes) -> None:
    world = World.with_nodes(3)
    world.create("t")
    make_offsets(world)
    for data in [*(command.SerializeToString() for command in commands), garbage]:
        with contextlib.suppress(UnknownCommandError):
            world.apply(data).SerializeToString()


@settings(max_examples=300, deadline=None)
@given(_schedule(ALL), st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 255))
def test_apply_is_total_for_commands_with_a_flipped_byte(
    schedule: list[tuple[str, int, list[int]]], which: int, where: int, flip: int
) -> None:
    world = _world()
    _run(world, ALL, schedule)
    data = bytearray(world.journal[-1 - which % len(world.journal)])
    data[where % len(data)] ^= flip
    with contextlib.suppress(UnknownCommandError):
        world.apply(bytes(data))
