"""Journals of metadata commands as clusters of each feature level have committed them, and the states that they make.

The files are never made anew: every later version must replay them to the same state. A new feature level adds files.
`python -m tests.raft.golden` writes them where they are missing.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.records import config_record, encode_image
from penstock.raft.topic_config import TopicConfig
from penstock.v1 import common_pb2 as common
from tests.raft.group_world import alter, change, elect_coordinator, make_offsets, member, part
from tests.raft.metadata_world import World, id16, placement

FOLDER = Path(__file__).parent / "golden"


def journal_of(level: int) -> Path:
    """The journal of a feature level."""
    return FOLDER / f"metadata_journal_{level}.bin"


def state_of(level: int) -> Path:
    """The state that it makes."""
    return FOLDER / f"metadata_state_{level}.bin"


def write_journal(path: Path, commands: list[bytes]) -> None:
    """Each command behind its length, 4 bytes big-endian."""
    path.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for data in commands))


def read_journal(path: Path) -> Iterator[bytes]:
    """The commands of a journal file."""
    content = path.read_bytes()
    position = 0
    while position < len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        yield content[position + 4 : position + 4 + size]
        position += 4 + size


def history_1() -> World:
    """A life with every kind of command of feature level 1, applied and refused."""
    world = World.with_nodes(4, level=1)
    world.create("t", (1, 2, 3), (2, 3, 1), (3, 1, 2), request_id="r1")
    world.create("t", topic_id="twice", request_id="r1")
    world.create("other", (4, 1), minimum=1, internal=True, unclean=True)
    world.create("gone", (1,), minimum=1)
    world.do(delete_topic=pb.DeleteTopic(topic_id=world.topic("gone").topic_id))
    _change_settings(world)
    world.do(allocate_producer_ids=pb.AllocateProducerIds(count=1000))
    world.alter_isr([1, 2])
    world.alter_isr([1], lost=[2])
    world.alter_isr([1, 2, 3])
    world.fence(1)
    world.elect(2, [2, 3])
    world.elect(1, [1, 2, 3])
    world.restart(1, "again")
    world.fence(3)
    world.fence(2)
    world.register(2, store="blank", durability=common.DURABILITY_OS)
    world.restart(2, "unclean")
    world.restart(2, "clean", clean=True)
    world.register(3)
    world.elect(3, [3])
    world.elect(None, [])
    world.do(drain_node=pb.DrainNode(node_id=4, node_epoch=world.image.nodes[4].node_epoch))
    world.do(admit_voter=pb.AdmitVoter(node_id=4, voter=False))
    world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=1))
    world.do(genesis=pb.Genesis(cluster_id="late", feature_level=1))
    _change_replicas(world)
    return world


def _change_settings(world: World) -> None:
    topic = world.topic()
    config = TopicConfig(
        min_insync_replicas=2,
        retention_time_ms=86_400_000,
        retention_bytes=10**9,
        max_batch_bytes=65536,
        timestamp_type=common.TIMESTAMP_TYPE_APPEND,
    )
    command = pb.AlterTopicConfig(
        topic_id=topic.topic_id, config=config_record(config), config_epoch=topic.config_epoch
    )
    world.do(alter_topic_config=command)
    world.do(alter_topic_config=command)
    more = pb.AddPartitions(topic_id=topic.topic_id, present_partitions=3, partitions=[placement((1, 3, 2))])
    world.do(add_partitions=more)


def _change_replicas(world: World) -> None:
    for replicas in ([4, 1, 2], [4, 2]):
        change = pb.ReplicasChange(
            topic_id=world.topic("other").topic_id,
            partition_epoch=world.partition("other").partition_epoch,
            replicas=replicas,
        )
        world.do(alter_replicas=pb.AlterReplicas(changes=[change]))


def history_2() -> World:
    """A cluster of level 1 that is raised, and reassignments: begun, changed, turned back, completed, refused."""
    world = World.with_nodes(4, level=1)
    world.create("t", (1, 2, 3), (2, 3, 1))
    world.do(reassign_partitions=pb.ReassignPartitions(reassignments=[world.reassignment([2, 3, 4])]))
    world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=2))
    world.supported_level = 2
    for node_id in (1, 2, 3, 4):
        world.register(node_id)
    world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=2))
    stale = world.reassignment([2, 3])
    world.reassign([2, 3, 4])
    world.do(reassign_partitions=pb.ReassignPartitions(reassignments=[stale, world.reassignment([2, 3], index=1)]))
    world.complete()
    world.alter_isr([1, 2, 3, 4])
    world.complete(leader=1)
    world.complete(leader=2)
    world.reassign([2, 1, 4])
    world.alter_isr([1, 2, 3, 4])
    world.reassign([])
    world.complete()
    world.reassign([])
    world.reassign([1, 2])
    world.fence(4)
    return world


def history_3() -> World:
    """A cluster of level 2 that is raised; stores that are full: noted, twice, all of them, and with room again; and
    topics with the settings of compaction: set, changed, taken back.
    """
    world = World.with_nodes(4, level=2)
    world.create("t", (1, 2, 3), (2, 3, 1), (3, 4, 1))
    world.note_store(1)
    _configure(world, COMPACTED)
    world.supported_level = 3
    for node_id in (1, 2, 3, 4):
        world.register(node_id)
    world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=3))
    _note_stores(world)
    _configure(world, COMPACTED)
    compacted = config_record(TopicConfig(2, cleanup_policy=common.CLEANUP_POLICY_COMPACT, max_compaction_lag_ms=1))
    command = pb.CreateTopic(
        topic_id=id16("topic-state"), name="state", config=compacted, partitions=[placement((3, 1, 2))]
    )
    world.do(create_topic=command)
    command.topic_id, command.name, command.config.min_dirty_ratio = id16("topic-bad"), "bad", float("nan")
    world.do(create_topic=command)
    _configure(world, TopicConfig(2, delete_retention_ms=0, min_dirty_ratio=0.0, timestamp_after_max_ms=0))
    _configure(world, TopicConfig(2), "state")
    return world


def _note_stores(world: World) -> None:
    world.note_store(2, common.STORE_STATE_NEARLY_FULL)
    world.note_store(1)
    world.note_store(1)
    world.note_store(1, 9)
    world.do(note_store_state=pb.NoteStoreState(node_id=2, node_epoch=1, state=common.STORE_STATE_FULL))
    world.elect(2, [2, 3])
    world.alter_isr([1, 2, 3])
    world.note_store(2)
    world.note_store(3)
    world.note_store(1, common.STORE_STATE_OK)
    world.elect(3, [3])
    world.alter_isr([1, 3])
    world.elect(1, [1])
    world.note_store(3, common.STORE_STATE_NEARLY_FULL)
    world.alter_isr([1, 3])
    world.restart(2, "again")


COMPACTED = TopicConfig(
    min_insync_replicas=1,
    cleanup_policy=common.CLEANUP_POLICY_COMPACT_AND_DELETE,
    retention_time_ms=86_400_000,
    delete_retention_ms=1000,
    min_compaction_lag_ms=2000,
    max_compaction_lag_ms=3000,
    min_dirty_ratio=0.25,
    timestamp_before_max_ms=0,
    timestamp_after_max_ms=5000,
)
"""No setting of compaction is the default."""


def _configure(world: World, config: TopicConfig, name: str = "t") -> None:
    topic = world.topic(name)
    command = pb.AlterTopicConfig(
        topic_id=topic.topic_id, config=config_record(config), config_epoch=topic.config_epoch
    )
    world.do(alter_topic_config=command)


def history_4() -> World:
    """A cluster of level 3 that is raised, and groups: made, rebalanced, handed on, emptied, deleted, refused."""
    world = World.with_nodes(4, level=3)
    world.create("t", (1, 2, 3), (2, 3, 4))
    make_offsets(world, (1, 2, 3), (2, 3, 1))
    alter_early = pb.AlterGroups(changes=[change(world)])
    world.do(alter_groups=alter_early)
    world.supported_level = 4
    for node_id in (1, 2, 3, 4):
        world.register(node_id)
    world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=4))
    world.do(alter_groups=alter_early)
    _rebalance(world)
    _refuse(world)
    alter(world, change(world, group_id="other", rebalance=True))
    alter(world, change(world, group_id="other", delete=True))
    alter(world, change(world, [member("s", target=[7], pattern="t.*", topics=())], group_id="more", rebalance=True))
    alter(world, change(world, removed=["s"], group_id="more"))
    return world


def _rebalance(world: World) -> None:
    a = member("a", {0: 1, 1: 1}, [0, 1], client_id="one", host="10.0.0.1", rebalance_timeout_ms=60_000, joined_ms=5)
    alter(world, change(world, [a], rebalance=True))
    alter(world, change(world, [member("b", instance_id="i", max_poll_interval_ms=300_000, assignor=2)]))
    a = replace(a, target=frozenset([part(0)]))
    b = member("b", {}, [1], instance_id="i", max_poll_interval_ms=300_000, assignor=2)
    alter(world, change(world, [a, b], rebalance=True, assignor=2))
    alter(world, change(world, [replace(b, owned={part(1): 2})]))
    a = replace(a, owned={part(0): 1})
    alter(world, change(world, [a, replace(b, owned={part(1): 2})]))
    alter(world, change(world, [replace(b, member_id="b2", owned={part(1): 2})], ["b"], rebalance=True))


def _refuse(world: World) -> None:
    late = change(world, [member("c")])
    for leader in (2, 1):
        elect_coordinator(world, leader)
        alter(world, late)
    good, nameless = change(world, [member("c")]), change(world, group_id="")
    two_owners, twice = change(world, [member("d", {0: 3}, [0])]), change(world, generation=9)
    world.do(alter_groups=pb.AlterGroups(changes=[nameless, two_owners, twice, good, good]))
    alter(world, change(world, delete=True))


HISTORIES = {1: history_1, 2: history_2, 3: history_3, 4: history_4}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for number, history in HISTORIES.items():
        if not journal_of(number).exists():
            made = history()
            write_journal(journal_of(number), made.journal)
            state_of(number).write_bytes(encode_image(made.image))
