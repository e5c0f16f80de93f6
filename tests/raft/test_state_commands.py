"""What each metadata command does, refuses, and does when it comes twice."""

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import state
from penstock.raft.command import COMPACTION_LEVEL, SUPPORTED_LEVEL, UnknownCommandError, encode, level_of
from penstock.raft.draft import REMEMBERED_REQUESTS
from penstock.raft.image import EMPTY_IMAGE
from penstock.raft.metadata import MetadataMachine
from penstock.raft.records import SnapshotError, config_of, config_record, decode_image
from penstock.raft.topic_config import TopicConfig
from penstock.raft.view import View
from penstock.v1 import common_pb2 as common
from tests.raft.metadata_world import CLUSTER, World, id16, placement


@pytest.fixture
def world() -> World:
    """Three nodes, topic t with one partition on 1, 2, 3."""
    world = World.with_nodes()
    world.create("t")
    return world


def test_genesis_happens_once() -> None:
    world = World()
    assert world.do(genesis=pb.Genesis(cluster_id=CLUSTER, feature_level=1)).refusal == pb.REFUSAL_UNSPECIFIED
    assert world.do(genesis=pb.Genesis(cluster_id="other", feature_level=1)).refusal == pb.REFUSAL_STALE
    assert (world.image.cluster_id, world.image.feature_level) == (CLUSTER, 1)


def test_nothing_is_applied_before_genesis() -> None:
    world = World()
    assert world.register(1).refusal == pb.REFUSAL_UNSUPPORTED
    assert world.image.nodes == {}


def test_a_command_of_a_higher_feature_level_is_refused_even_if_its_kind_is_unknown(world: World) -> None:
    unknown_kind = bytes([0xFA, 0x3F, 0])  # field 1023, empty
    newer = pb.MetadataCommand(feature_level=SUPPORTED_LEVEL + 1).SerializeToString() + unknown_kind
    assert world.apply(newer).refusal == pb.REFUSAL_UNSUPPORTED


def test_a_command_of_an_unknown_kind_stops_the_node(world: World) -> None:
    before = world.image
    with pytest.raises(UnknownCommandError, match="upgrade"):
        world.apply(bytes([0xFA, 0x3F, 0]))
    assert world.image is before


def test_a_feature_level_that_this_software_does_not_know_stops_the_node() -> None:
    above = pb.RaiseFeatureLevel(feature_level=SUPPORTED_LEVEL + 1)
    world = World()
    world.do(genesis=pb.Genesis(cluster_id=CLUSTER, feature_level=1))
    with pytest.raises(UnknownCommandError, match="upgrade"):
        world.do(raise_feature_level=above)


def test_the_feature_level_waits_for_every_node(world: World) -> None:
    above = pb.RaiseFeatureLevel(feature_level=SUPPORTED_LEVEL + 1)
    assert world.do(raise_feature_level=above).refusal == pb.REFUSAL_UNSUPPORTED
    assert world.do(raise_feature_level=pb.RaiseFeatureLevel(feature_level=1)).refusal == pb.REFUSAL_STALE


@pytest.mark.parametrize("data", [b"", b"\x07", b"\xff" * 8, b"\x22\x05abc"])
def test_bytes_that_are_no_command_are_refused(world: World, data: bytes) -> None:
    assert world.apply(data).refusal == pb.REFUSAL_MALFORMED


def test_a_refused_command_changes_nothing_but_the_version(world: World) -> None:
    before = world.image
    world.create("t", topic_id="other")
    assert world.image.version == before.version + 1
    assert (world.image.topics, world.image.nodes) == (before.topics, before.nodes)


def test_a_topic_of_the_same_name_is_refused(world: World) -> None:
    assert world.create("t", topic_id="other").refusal == pb.REFUSAL_TOPIC_EXISTS


def test_a_topic_starts_led_by_the_registration_of_its_leader(world: World) -> None:
    info = world.partition()
    assert (info.leader, info.leader_epoch, info.partition_epoch, info.isr) == (1, 0, 0, (1, 2, 3))
    assert info.leader_node_epoch == world.image.nodes[1].node_epoch


def test_placement_on_a_node_fenced_meanwhile_is_decided_again(world: World) -> None:
    world.fence(2)
    assert world.create("u").refusal == pb.REFUSAL_STALE
    assert world.create("u", (1, 9)).refusal == pb.REFUSAL_UNKNOWN_NODE


@pytest.mark.parametrize(
    "bad",
    [
        pb.PartitionPlacement(),
        pb.PartitionPlacement(replicas=[1, 1], isr=[1], leader=1),
        pb.PartitionPlacement(replicas=[1, 2], isr=[1, 3], leader=1),
        pb.PartitionPlacement(replicas=[1, 2], isr=[2], leader=1),
        pb.PartitionPlacement(replicas=[1, 2], isr=[2, 2], leader=2),
    ],
)
def test_a_placement_that_breaks_an_invariant_is_refused(world: World, bad: pb.PartitionPlacement) -> None:
    config = config_record(TopicConfig())
    command = pb.CreateTopic(topic_id=id16("u"), name="u", config=config, partitions=[placement([1]), bad])
    assert world.do(create_topic=command).refusal == pb.REFUSAL_MALFORMED
    assert "u" not in world.image.topic_ids


def test_a_creation_repeated_under_its_request_id_answers_with_the_first_topic(world: World) -> None:
    first = world.create("u", request_id="r1")
    again = world.create("u", topic_id="other", request_id="r1")
    assert (again.topic_id, again.repeated_request) == (first.topic_id, True)
    assert world.create("v", request_id="r1").refusal == pb.REFUSAL_REQUEST_REUSED
    world.do(delete_topic=pb.DeleteTopic(topic_id=first.topic_id))
    assert world.create("u", topic_id="other", request_id="r1").refusal == pb.REFUSAL_UNKNOWN_TOPIC


def test_request_ids_are_forgotten_oldest_first(world: World) -> None:
    for i in range(REMEMBERED_REQUESTS + 2):
        created = state.apply(world.image, world.index, _creation(f"r{i}", f"u{i % 2}"))
        topic = created.image.topics[created.result.topic_id]
        dropped = pb.MetadataCommand(delete_topic=pb.DeleteTopic(topic_id=topic.topic_id))
        world.image = state.apply(created.image, world.index, encode(dropped)).image
    assert len(world.image.requests) == REMEMBERED_REQUESTS
    assert "r1" not in world.image.requests
    assert "r2" in world.image.requests


def _creation(request_id: str, name: str) -> bytes:
    config = config_record(TopicConfig())
    command = pb.CreateTopic(
        topic_id=id16(request_id), name=name, config=config, partitions=[placement([1])], request_id=request_id
    )
    return encode(pb.MetadataCommand(create_topic=command))


def test_settings_are_compared_before_they_are_set(world: World) -> None:
    topic = world.topic()
    config = config_record(TopicConfig(min_insync_replicas=2, retention_time_ms=5000))
    command = pb.AlterTopicConfig(topic_id=topic.topic_id, config=config, config_epoch=topic.config_epoch)
    assert world.do(alter_topic_config=command).refusal == pb.REFUSAL_UNSPECIFIED
    assert world.topic().config == TopicConfig(min_insync_replicas=2, retention_time_ms=5000)
    assert world.do(alter_topic_config=command).refusal == pb.REFUSAL_STALE
    unknown = pb.AlterTopicConfig(topic_id=id16("nope"), config=config)
    assert world.do(alter_topic_config=unknown).refusal == pb.REFUSAL_UNKNOWN_TOPIC


def test_partitions_are_added_behind_the_present_ones(world: World) -> None:
    more = [placement([2, 3, 1]), placement([3, 1, 2])]
    command = pb.AddPartitions(topic_id=world.topic().topic_id, present_partitions=1, partitions=more)
    assert world.do(add_partitions=command).refusal == pb.REFUSAL_UNSPECIFIED
    assert [info.leader for info in world.topic().partitions] == [1, 2, 3]
    assert world.do(add_partitions=command).refusal == pb.REFUSAL_STALE
    assert len(world.topic().partitions) == 3


def test_a_batch_is_applied_change_by_change(world: World) -> None:
    more = pb.AddPartitions(
        topic_id=world.topic().topic_id, present_partitions=1, partitions=[placement([2, 3, 1])] * 2
    )
    world.do(add_partitions=more)
    good, late, missing = (world.isr_change([2, 3], index=i) for i in (1, 2, 2))
    late.partition_epoch += 1
    missing.partition = 7
    repeated = world.isr_change([2, 3], index=1)
    result = world.do(alter_isr=pb.AlterIsr(changes=[good, late, missing, repeated]))
    assert [change.refusal for change in result.changes] == [
        pb.REFUSAL_UNSPECIFIED,
        pb.REFUSAL_STALE,
        pb.REFUSAL_UNKNOWN_PARTITION,
        pb.REFUSAL_STALE,
    ]
    assert [info.isr for info in world.topic().partitions] == [(1, 2, 3), (2, 3), (1, 2, 3)]


@pytest.mark.parametrize("isr", [[2, 3], [1, 1], [1, 4], []])
def test_an_isr_that_breaks_an_invariant_is_refused(world: World, isr: list[int]) -> None:
    world.register(4)
    assert world.alter_isr(isr).refusal == pb.REFUSAL_INVALID


def test_replicas_move_in_steps_that_keep_leader_and_guarantee(world: World) -> None:
    world.register(4)

    def move(*replicas: int) -> "pb.Refusal.ValueType":
        change = pb.ReplicasChange(
            topic_id=world.topic().topic_id, partition_epoch=world.partition().partition_epoch, replicas=replicas
        )
        return world.do(alter_replicas=pb.AlterReplicas(changes=[change])).changes[0].refusal

    assert move(2, 3, 4) == pb.REFUSAL_INVALID  # without the leader
    assert move(1, 2, 3, 4) == pb.REFUSAL_UNSPECIFIED
    assert world.partition().isr == (1, 2, 3)
    assert move(1, 4) == pb.REFUSAL_INVALID  # one in sync, two are needed
    world.alter_isr([1, 2, 3, 4])
    assert move(1, 3, 4) == pb.REFUSAL_UNSPECIFIED
    assert (world.partition().replicas, world.partition().isr) == ((1, 3, 4), (1, 3, 4))
    assert move(1, 3, 3) == pb.REFUSAL_MALFORMED
    assert move(1, 3, 9) == pb.REFUSAL_UNKNOWN_NODE


def test_producer_ids_are_given_once(world: World) -> None:
    first = world.do(allocate_producer_ids=pb.AllocateProducerIds(count=1000)).first_producer_id
    second = world.do(allocate_producer_ids=pb.AllocateProducerIds(count=10)).first_producer_id
    assert (first, second, world.image.next_producer_id) == (0, 1000, 1010)
    for count in (0, 2**32 - 1):
        assert world.do(allocate_producer_ids=pb.AllocateProducerIds(count=count)).refusal == pb.REFUSAL_MALFORMED


def test_draining_lasts_until_the_next_registration(world: World) -> None:
    node_epoch = world.image.nodes[2].node_epoch
    world.do(drain_node=pb.DrainNode(node_id=2, node_epoch=node_epoch))
    before = world.image.nodes[2]
    world.restart(2, "again")
    assert (before.draining, world.image.nodes[2].draining) == (True, False)
    assert world.do(drain_node=pb.DrainNode(node_id=2, node_epoch=node_epoch)).refusal == pb.REFUSAL_STALE
    assert world.do(drain_node=pb.DrainNode(node_id=9)).refusal == pb.REFUSAL_UNKNOWN_NODE


def test_a_voter_with_a_new_journal_votes_once_it_is_admitted(world: World) -> None:
    command = pb.MetadataCommand.FromString(world.journal[3]).register_node
    assert command.registration.node_id == 3
    command.registration.journal_id = id16("new journal")
    command.registration.may_vote = False
    command.previous_node_epoch = world.image.nodes[3].node_epoch
    command.voter = False  # the controller has removed it, to add it again
    world.do(register_node=command)
    assert (world.image.nodes[3].voter, world.image.nodes[3].may_vote) == (True, False)
    world.do(admit_voter=pb.AdmitVoter(node_id=3, voter=True, journal_id=id16("journal-3")))
    other = world.image.nodes[3]
    world.do(admit_voter=pb.AdmitVoter(node_id=3, voter=True, journal_id=id16("new journal")))
    assert (other.may_vote, world.image.nodes[3].may_vote) == (False, True)
    command.registration.journal_id = id16("journal-3")
    command.registration.may_vote = True  # as the former journal says of itself, when it is put back
    command.previous_node_epoch = world.image.nodes[3].node_epoch
    world.do(register_node=command)
    assert not world.image.nodes[3].may_vote
    world.do(admit_voter=pb.AdmitVoter(node_id=3, voter=False))
    assert not world.image.nodes[3].voter


@pytest.mark.parametrize(
    ("field", "value", "refusal"),
    [
        ("cluster_id", "other", pb.REFUSAL_FOREIGN_CLUSTER),
        ("node_id", 0, pb.REFUSAL_MALFORMED),
        ("node_id", 2**31, pb.REFUSAL_MALFORMED),
        ("store_id", b"short", pb.REFUSAL_MALFORMED),
        ("start_ids", [b"short"], pb.REFUSAL_MALFORMED),
        ("start_ids", [], pb.REFUSAL_MALFORMED),
        ("durability", 0, pb.REFUSAL_MALFORMED),
        ("durability", 9, pb.REFUSAL_MALFORMED),
        ("client_address", pb.NodeAddress(host="h", port=70000), pb.REFUSAL_MALFORMED),
        ("peer_address", pb.NodeAddress(port=1), pb.REFUSAL_MALFORMED),
        ("rack", "r" * 2000, pb.REFUSAL_MALFORMED),
        ("supported_level", 0, pb.REFUSAL_UNSUPPORTED),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    world: World, field: str, value: object, refusal: "pb.Refusal.ValueType"
) -> None:
    command = pb.MetadataCommand.FromString(world.journal[3]).register_node
    fields: dict[str, object] = {known.name: part for known, part in command.registration.ListFields()} | {field: value}
    changed = pb.RegisterNode(registration=pb.Registration(**fields))  # type: ignore[arg-type]
    assert world.do(register_node=changed).refusal == refusal


def test_the_machine_publishes_every_image_and_comes_back_from_its_snapshot(world: World) -> None:
    view = View()
    machine = MetadataMachine(view.publish)
    for index, command in enumerate(world.journal, start=1):
        pb.MetadataResult.FromString(machine.apply(index, command))
        assert view.image is machine.image
    assert machine.image == world.image
    other = View()
    restored = MetadataMachine(other.publish)
    restored.restore(world.index + 5, machine.snapshot())
    assert restored.image == other.image == world.image
    assert restored.snapshot() == machine.snapshot()


def test_a_snapshot_that_cannot_be_read_stops_the_node() -> None:
    with pytest.raises(SnapshotError, match="not readable"):
        decode_image(b"\xff\xff")
    newer = pb.MetadataSnapshot(format=2).SerializeToString()
    with pytest.raises(SnapshotError, match="upgrade"):
        decode_image(newer)
    assert decode_image(pb.MetadataSnapshot(format=1).SerializeToString()) == EMPTY_IMAGE


# ---- settings of compaction


def alter(world: World, config: TopicConfig) -> pb.MetadataResult:
    topic = world.topic()
    command = pb.AlterTopicConfig(
        topic_id=topic.topic_id, config=config_record(config), config_epoch=topic.config_epoch
    )
    return world.do(alter_topic_config=command)


@pytest.mark.parametrize(
    "config",
    [
        TopicConfig(cleanup_policy=common.CLEANUP_POLICY_COMPACT),
        TopicConfig(cleanup_policy=common.CLEANUP_POLICY_COMPACT_AND_DELETE),
        TopicConfig(delete_retention_ms=0),
        TopicConfig(min_compaction_lag_ms=1),
        TopicConfig(max_compaction_lag_ms=1),
        TopicConfig(min_dirty_ratio=0.0),
        TopicConfig(timestamp_before_max_ms=0),
        TopicConfig(timestamp_after_max_ms=0),
    ],
)
def test_settings_of_compaction_need_feature_level_3(config: TopicConfig) -> None:
    for level, refusal in ((2, pb.REFUSAL_UNSUPPORTED), (3, pb.REFUSAL_UNSPECIFIED)):
        world = World.with_nodes(level=level)
        world.create("t")
        assert alter(world, config).refusal == refusal
        assert (world.topic().config == config) is (level == 3)
        create = pb.CreateTopic(
            topic_id=id16("c"), name="c", config=config_record(config), partitions=[placement((1, 2, 3))]
        )
        assert level_of(pb.MetadataCommand(create_topic=create)) == COMPACTION_LEVEL
        assert world.do(create_topic=create).refusal == refusal
        assert ("c" in world.image.topic_ids) is (level == 3)


def test_settings_of_former_levels_need_no_new_one() -> None:
    former = TopicConfig(3, retention_time_ms=1, retention_bytes=1, max_batch_bytes=5000, unclean_leader_election=True)
    record = config_record(former)
    assert max(field.number for field, _ in record.ListFields()) < 8  # as it was stored always
    assert level_of(pb.MetadataCommand(alter_topic_config=pb.AlterTopicConfig(config=record))) == 1
    assert config_of(record) == former
    assert config_of(pb.StoredTopicConfig(min_insync_replicas=3)).min_dirty_ratio == 0.5


@pytest.mark.parametrize("ratio", [float("nan"), -0.5, 1.5, float("inf")])
def test_a_ratio_that_is_none_is_refused_by_the_state_too(world: World, ratio: float) -> None:
    before = world.topic()
    record = config_record(TopicConfig(2, min_dirty_ratio=0.1))
    record.min_dirty_ratio = ratio
    command = pb.AlterTopicConfig(topic_id=before.topic_id, config=record, config_epoch=before.config_epoch)
    assert world.do(alter_topic_config=command).refusal == pb.REFUSAL_MALFORMED
    assert world.topic() == before
