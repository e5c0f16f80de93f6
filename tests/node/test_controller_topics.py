"""What users ask for about topics: each bad request gets its precise error; a good one becomes what the plan shows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.controller.topics import Plan, plan_add, plan_alter, plan_create, plan_delete
from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_BATCH_BYTES, MAX_PARTITIONS_PER_TOPIC
from penstock.protocol.reasons import Reason
from penstock.raft.command import encode
from penstock.raft.image import TopicConfig, TopicInfo
from penstock.v1 import topic_service_pb2 as v1
from tests.raft.metadata_world import World, id16

NEW_ID = id16("new")


@pytest.fixture
def world() -> World:
    """Three nodes; topic t on all three, and the internal topic inner."""
    world = World.with_nodes()
    world.create("t", request_id="made-t")
    world.create("inner", internal=True)
    return world


def create(world: World, **fields: object) -> Plan:
    """Plan a creation, of "new" if no name is given."""
    request = v1.CreateTopicRequest(**{"name": "new", **fields})  # type: ignore[arg-type]
    return plan_create(world.image, request, NEW_ID, 7)


def done(world: World, plan: Plan) -> TopicInfo:
    """Apply a plan; the topic it made."""
    assert plan.command is not None
    result = world.apply(encode(plan.command))
    assert result.refusal == pb.REFUSAL_UNSPECIFIED, result.detail
    return world.image.topics[plan.topic.topic_id]


def refused(call: Callable[[], Plan]) -> PenstockError:
    """The error of a plan that cannot be."""
    with pytest.raises(PenstockError) as caught:
        call()
    return caught.value


def assignments(*partitions: list[int]) -> list[v1.ReplicaAssignment]:
    """Explicit replicas."""
    return [v1.ReplicaAssignment(replicas=replicas) for replicas in partitions]


# ---- good requests


def test_the_plan_shows_what_the_command_makes(world: World) -> None:
    plan = create(world, partitions=4, replication_factor=2, config=v1.TopicConfig(retention_bytes=5))
    made = done(world, plan)
    assert made == replace(plan.topic, config_epoch=world.index)
    assert [len(info.replicas) for info in made.partitions] == [2] * 4
    assert made.config.retention_bytes == 5


def test_defaults_are_one_partition_three_replicas_and_two_in_sync(world: World) -> None:
    made = done(world, create(world))
    assert [len(info.replicas) for info in made.partitions] == [3]
    assert made.config.min_insync_replicas == 2


def test_by_default_a_small_cluster_has_as_many_replicas_as_nodes() -> None:
    made = done(World.with_nodes(1), create(World.with_nodes(1)))
    assert made.partitions[0].replicas == (1,)
    assert made.config.min_insync_replicas == 1


def test_replicas_can_be_named(world: World) -> None:
    made = done(world, create(world, assignments=assignments([3, 1], [1, 2])))
    assert [(info.replicas, info.leader) for info in made.partitions] == [((3, 1), 3), ((1, 2), 1)]


def test_a_named_replica_that_is_down_is_not_in_sync_yet(world: World) -> None:
    world.fence(3)
    info = done(world, create(world, assignments=assignments([3, 1, 2]))).partitions[0]
    assert (info.replicas, info.isr, info.leader) == ((3, 1, 2), (1, 2), 1)


def test_settings_change_and_are_reset(world: World) -> None:
    request = v1.AlterTopicRequest(name="t", config=v1.TopicConfig(max_batch_bytes=4096), reset=["min_insync_replicas"])
    plan = plan_alter(world.image, request)
    assert done(world, plan).config == plan.topic.config == TopicConfig(2, max_batch_bytes=4096)
    assert plan_alter(world.image, request).command is None, "it is so already"


def test_partitions_are_added(world: World) -> None:
    plan = plan_add(world.image, v1.AddPartitionsRequest(name="t", partitions=5), 3)
    assert done(world, plan) == plan.topic
    assert [info.partition for info in plan.topic.partitions] == [0, 1, 2, 3, 4]
    assert plan.topic.partitions[0] == world.partition("t")


@pytest.mark.parametrize("how", [{"name": "t"}, {"topic_id": id16("topic-t")}])
def test_a_topic_is_deleted_by_name_or_id(world: World, how: dict[str, object]) -> None:
    plan = plan_delete(world.image, v1.DeleteTopicRequest(**how))  # type: ignore[arg-type]
    assert plan.command is not None
    assert world.apply(encode(plan.command)).refusal == pb.REFUSAL_UNSPECIFIED
    assert "t" not in world.image.topic_ids


def test_the_same_request_id_answers_with_the_first_topic(world: World) -> None:
    plan = create(world, name="t", request_id="made-t")
    assert plan.command is None
    assert plan.topic == world.topic("t")


# ---- bad requests


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ä", "x" * 250, "__offsets"])
def test_an_invalid_name(world: World, name: str) -> None:
    error = refused(lambda: create(world, name=name))
    assert error.reason is Reason.INVALID_TOPIC_NAME


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"name": "t"}, Reason.TOPIC_EXISTS, "a topic named 't' exists"),
        ({"replication_factor": 4}, Reason.INVALID_REPLICATION_FACTOR, "4 is above the number of live nodes, 3"),
        ({"partitions": MAX_PARTITIONS_PER_TOPIC + 1}, Reason.INVALID_ARGUMENT, "10001 partitions"),
        ({"request_id": "r" * 256}, Reason.INVALID_ARGUMENT, "256 characters"),
        ({"request_id": "made-t"}, Reason.INVALID_ARGUMENT, "for topic 't'"),
        ({"assignments": assignments([1]), "partitions": 1}, Reason.INVALID_ARGUMENT, "either assignments"),
        ({"assignments": assignments([1]), "replication_factor": 1}, Reason.INVALID_ARGUMENT, "either"),
        ({"assignments": assignments([])}, Reason.INVALID_ARGUMENT, "are none, or repeat"),
        ({"assignments": assignments([1, 1])}, Reason.INVALID_ARGUMENT, "are none, or repeat"),
        ({"assignments": assignments([1, 9])}, Reason.INVALID_ARGUMENT, "no nodes [9]; nodes are [1, 2, 3]"),
        ({"assignments": assignments([1, 2], [3])}, Reason.INVALID_REPLICATION_FACTOR, "partition 1 has 1 replicas"),
        (
            {"config": v1.TopicConfig(min_insync_replicas=4)},
            Reason.INVALID_CONFIG,
            "min_insync_replicas 4 is above the replication factor 3",
        ),
        (
            {"config": v1.TopicConfig(min_insync_replicas=2), "replication_factor": 1},
            Reason.INVALID_CONFIG,
            "2 is above the replication factor 1",
        ),
        ({"config": v1.TopicConfig(max_batch_bytes=MAX_BATCH_BYTES + 1)}, Reason.INVALID_CONFIG, "max_batch_bytes"),
        ({"config": v1.TopicConfig(cleanup_policy=9)}, Reason.INVALID_CONFIG, "cleanup_policy 9 is unknown"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_creation(world: World, fields: dict[str, object], reason: Reason, text: str) -> None:
    error = refused(lambda: create(world, **fields))
    assert error.reason is reason
    assert text in error.message


def test_a_replication_factor_above_the_live_nodes_says_who_is_missing(world: World) -> None:
    world.fence(2)
    error = refused(lambda: create(world))
    assert error.reason is Reason.INVALID_REPLICATION_FACTOR
    assert "replication factor 3 is above the number of live nodes, 2 (1 of 3 nodes are down" in error.message
    assert error.metadata == {"replication_factor": "3", "live_nodes": "2"}


def test_no_node_lives(world: World) -> None:
    for node_id in (1, 2, 3):
        world.fence(node_id)
    assert refused(lambda: create(world)).reason is Reason.INVALID_REPLICATION_FACTOR
    error = refused(lambda: create(world, assignments=assignments([1, 2])))
    assert (error.reason, "are down" in error.message) == (Reason.INVALID_REPLICATION_FACTOR, True)


def test_a_request_id_whose_topic_was_deleted(world: World) -> None:
    world.do(delete_topic=pb.DeleteTopic(topic_id=world.topic("t").topic_id))
    error = refused(lambda: create(world, name="t", request_id="made-t"))
    assert error.reason is Reason.UNKNOWN_TOPIC
    assert "deleted since" in error.message


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"name": "none"}, Reason.UNKNOWN_TOPIC, "no topic is named 'none'"),
        ({"name": "inner"}, Reason.INVALID_ARGUMENT, "internal"),
        ({"config": v1.TopicConfig(min_insync_replicas=4)}, Reason.INVALID_CONFIG, "replication factor 3"),
        ({"reset": ["retention"]}, Reason.INVALID_CONFIG, "no setting of a topic is named 'retention'"),
    ],
)
def test_a_bad_change_of_settings(world: World, fields: dict[str, object], reason: Reason, text: str) -> None:
    request = v1.AlterTopicRequest(**{"name": "t", **fields})  # type: ignore[arg-type]
    error = refused(lambda: plan_alter(world.image, request))
    assert error.reason is reason
    assert text in error.message
    if reason is Reason.INVALID_CONFIG:
        assert error.metadata["setting"]


@pytest.mark.parametrize(
    ("name", "partitions", "reason", "text"),
    [
        ("none", 2, Reason.UNKNOWN_TOPIC, "none"),
        ("inner", 2, Reason.INVALID_ARGUMENT, "internal"),
        ("t", 1, Reason.INVALID_ARGUMENT, "has 1 partitions; 1 is not more"),
        ("t", 0, Reason.INVALID_ARGUMENT, "0 is not more"),
        ("t", MAX_PARTITIONS_PER_TOPIC + 1, Reason.INVALID_ARGUMENT, "may have"),
    ],
)
def test_a_bad_addition(world: World, name: str, partitions: int, reason: Reason, text: str) -> None:
    error = refused(lambda: plan_add(world.image, v1.AddPartitionsRequest(name=name, partitions=partitions), 0))
    assert error.reason is reason
    assert text in error.message


@pytest.mark.parametrize(
    ("how", "reason", "text"),
    [
        ({}, Reason.INVALID_ARGUMENT, "name or topic_id"),
        ({"name": "none"}, Reason.UNKNOWN_TOPIC, "none"),
        ({"topic_id": b"short"}, Reason.INVALID_ARGUMENT, "5 bytes"),
        ({"topic_id": id16("other")}, Reason.UNKNOWN_TOPIC, id16("other").hex()),
        ({"name": "inner"}, Reason.INVALID_ARGUMENT, "internal"),
    ],
)
def test_a_bad_deletion(world: World, how: dict[str, object], reason: Reason, text: str) -> None:
    error = refused(lambda: plan_delete(world.image, v1.DeleteTopicRequest(**how)))  # type: ignore[arg-type]
    assert error.reason is reason
    assert text in error.message
