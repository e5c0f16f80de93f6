"""What is asked of the controller: bad input is refused with its reason, overtaken plans are made again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import metadata_pb2 as metadata
from penstock.node.controller import shell
from penstock.node.controller.core import Decision
from penstock.protocol.limits import MAX_PARTITIONS_PER_TOPIC
from penstock.protocol.reasons import Reason
from penstock.raft.command import encode
from penstock.raft.image import MetadataImage
from penstock.v1 import common_pb2 as common
from penstock.v1 import topic_service_pb2 as v1
from tests.node.fake_consensus import REFUSED, UNKNOWN
from tests.node.seat import Seat, T, refusal
from tests.raft.metadata_world import CLUSTER, id16


@pytest.fixture
async def seat() -> AsyncIterator[Seat]:
    seat = Seat()
    await seat.rule()
    yield seat
    await seat.controller.stop()


# ---- creating topics


async def test_a_topic_is_created_with_its_defaults(seat: Seat) -> None:
    response = await seat.create()
    topic = response.topic
    assert (topic.name, topic.replication_factor, len(topic.partitions)) == ("orders", 3, 1)
    assert topic.config.min_insync_replicas == 2
    assert topic.partitions[0].leader == topic.partitions[0].replicas[0]
    assert sorted(topic.partitions[0].isr) == [1, 2, 3]
    assert len(topic.topic_id) == 16
    assert response.metadata_version == seat.view.image.version


async def test_fewer_nodes_than_three_are_the_default_replication_factor() -> None:
    seat = Seat()
    await seat.rule(nodes=2)
    topic = (await seat.create()).topic
    assert (topic.replication_factor, topic.config.min_insync_replicas) == (2, 1)
    await seat.controller.stop()


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "x" * 250, "ümlaut", "__offsets", "a/b"])
async def test_an_invalid_name_is_refused(seat: Seat, name: str) -> None:
    error = await refusal(seat.create(name))
    assert error.reason is Reason.INVALID_TOPIC_NAME
    assert not seat.view.image.topics


async def test_a_replication_factor_above_the_live_nodes_is_refused_naming_both(seat: Seat) -> None:
    error = await refusal(seat.create(replication_factor=4))
    assert error.reason is Reason.INVALID_REPLICATION_FACTOR
    assert error.metadata == {"replication_factor": "4", "live_nodes": "3"}
    assert "4" in error.message
    assert "3" in error.message


async def test_with_a_node_down_the_message_says_so(seat: Seat) -> None:
    await seat.controller.leave(pb.LeaveRequest(node_id=2, node_epoch=seat.view.image.nodes[2].node_epoch), T)
    error = await refusal(seat.create())
    assert error.reason is Reason.INVALID_REPLICATION_FACTOR
    assert "1 of 3 nodes are down" in error.message


async def test_min_insync_above_the_replication_factor_is_refused(seat: Seat) -> None:
    error = await refusal(seat.create(replication_factor=2, config=v1.TopicConfig(min_insync_replicas=3)))
    assert error.reason is Reason.INVALID_CONFIG
    assert error.metadata == {"setting": "min_insync_replicas"}
    assert "3 is above the replication factor 2" in error.message


async def test_an_existing_topic_is_not_created_again(seat: Seat) -> None:
    await seat.create()
    assert (await refusal(seat.create())).reason is Reason.TOPIC_EXISTS


async def test_too_many_partitions_are_refused(seat: Seat) -> None:
    error = await refusal(seat.create(partitions=MAX_PARTITIONS_PER_TOPIC + 1))
    assert error.reason is Reason.INVALID_ARGUMENT


async def test_the_same_request_id_answers_with_the_first_topic(seat: Seat) -> None:
    first = await seat.create(partitions=2, request_id="r1")
    again = await seat.create(partitions=2, request_id="r1")
    assert again.topic == first.topic
    assert len(seat.view.image.topics) == 1
    error = await refusal(seat.create("other", request_id="r1"))
    assert error.reason is Reason.INVALID_ARGUMENT
    assert "orders" in error.message
    await seat.delete(name="orders")
    assert (await refusal(seat.create(request_id="r1"))).reason is Reason.UNKNOWN_TOPIC


async def test_the_same_request_id_racing_with_itself_makes_one_topic(seat: Seat) -> None:
    one, two = await asyncio.gather(seat.create(request_id="r"), seat.create(request_id="r"))
    assert one.topic.topic_id == two.topic.topic_id


async def test_a_request_id_that_is_too_long_is_refused(seat: Seat) -> None:
    assert (await refusal(seat.create(request_id="x" * 256))).reason is Reason.INVALID_ARGUMENT


async def test_validating_only_says_what_would_be_and_changes_nothing(seat: Seat) -> None:
    before = seat.view.image
    topic = (await seat.create(partitions=2, validate_only=True)).topic
    assert len(topic.partitions) == 2
    assert seat.view.image is before
    error = await refusal(seat.create("a b", validate_only=True))
    assert error.reason is Reason.INVALID_TOPIC_NAME


def assigned(*replicas: list[int]) -> list[v1.ReplicaAssignment]:
    return [v1.ReplicaAssignment(replicas=nodes) for nodes in replicas]


async def test_explicit_assignments_are_taken_as_they_are(seat: Seat) -> None:
    topic = (await seat.create(assignments=assigned([3, 1], [2, 3]))).topic
    assert [list(partition.replicas) for partition in topic.partitions] == [[3, 1], [2, 3]]
    assert [partition.leader for partition in topic.partitions] == [3, 2]
    assert topic.replication_factor == 2


@pytest.mark.parametrize(
    ("replicas", "reason"),
    [
        ([[]], Reason.INVALID_ARGUMENT),
        ([[1, 1]], Reason.INVALID_ARGUMENT),
        ([[1, 9]], Reason.INVALID_ARGUMENT),
        ([[1, 2], [3]], Reason.INVALID_REPLICATION_FACTOR),
    ],
)
async def test_bad_assignments_are_refused(seat: Seat, replicas: list[list[int]], reason: Reason) -> None:
    assert (await refusal(seat.create(assignments=assigned(*replicas)))).reason is reason


async def test_assignments_and_a_number_of_partitions_are_one_too_many(seat: Seat) -> None:
    error = await refusal(seat.create(partitions=1, assignments=assigned([1])))
    assert error.reason is Reason.INVALID_ARGUMENT


async def test_an_assigned_node_that_is_down_is_not_in_sync(seat: Seat) -> None:
    await seat.controller.leave(pb.LeaveRequest(node_id=2, node_epoch=seat.view.image.nodes[2].node_epoch), T)
    topic = (await seat.create(assignments=assigned([2, 1]))).topic
    assert list(topic.partitions[0].isr) == [1]
    assert topic.partitions[0].leader == 1
    error = await refusal(seat.create("other", assignments=assigned([2])))
    assert error.reason is Reason.INVALID_REPLICATION_FACTOR


async def test_a_plan_that_was_overtaken_is_made_again(seat: Seat) -> None:
    def fence() -> None:
        node_epoch = seat.raft.image.nodes[1].node_epoch
        seat.raft.apply(
            encode(metadata.MetadataCommand(fence_node=metadata.FenceNode(node_id=1, node_epoch=node_epoch)))
        )

    seat.raft.before_apply.append(fence)
    topic = (await seat.create(replication_factor=2)).topic
    assert 1 not in topic.partitions[0].replicas


# ---- altering, adding, deleting


async def test_settings_are_altered_and_reset(seat: Seat) -> None:
    await seat.create()
    changed = await seat.alter(config=v1.TopicConfig(retention_bytes=1000))
    assert changed.topic.config.retention_bytes == 1000
    assert changed.topic.config.min_insync_replicas == 2
    assert (await seat.alter(reset=["retention_bytes"])).topic.config.retention_bytes == 0
    unchanged = await seat.alter(reset=["retention_bytes"])
    assert unchanged.metadata_version == seat.view.image.version


async def test_invalid_settings_are_refused_by_name(seat: Seat) -> None:
    await seat.create()
    for fields, setting in (
        ({"reset": ["retention_byte"]}, "retention_byte"),
        ({"config": v1.TopicConfig(max_batch_bytes=1)}, "max_batch_bytes"),
        ({"config": v1.TopicConfig(min_insync_replicas=4)}, "min_insync_replicas"),
        ({"config": v1.TopicConfig(min_dirty_ratio=2)}, "min_dirty_ratio"),
    ):
        error = await refusal(seat.alter(**fields))
        assert (error.reason, error.metadata["setting"]) == (Reason.INVALID_CONFIG, setting)


async def test_settings_of_compaction_raise_the_feature_level_once_every_node_knows_it() -> None:
    seat = Seat()
    genesis = metadata.Genesis(cluster_id=CLUSTER, feature_level=2)
    seat.raft.apply(encode(metadata.MetadataCommand(genesis=genesis)))
    await seat.rule(nodes=0)
    for node_id in (1, 2, 3):
        await seat.register(node_id, supported_level=3 if node_id > 1 else 2)
    await seat.create("former", config=v1.TopicConfig(retention_bytes=5))
    compacted = v1.TopicConfig(cleanup_policy=common.CLEANUP_POLICY_COMPACT)
    for work in (
        seat.create(config=compacted),
        seat.create(config=compacted, validate_only=True),
        seat.alter("former", config=v1.TopicConfig(min_dirty_ratio=0.1)),
        seat.alter("former", config=v1.TopicConfig(min_dirty_ratio=0.1), validate_only=True),
    ):
        error = await refusal(work)
        assert error.reason is Reason.UNSUPPORTED
        assert "[1] do not know level 3" in error.message
    assert (await seat.alter("former", config=v1.TopicConfig(min_dirty_ratio=0.5))).topic.config.min_dirty_ratio == 0.5
    assert seat.view.image.feature_level == 2
    await seat.register(1, supported_level=3)
    await seat.create(config=compacted, validate_only=True)
    assert seat.view.image.feature_level == 2
    created = (await seat.create(config=compacted)).topic
    assert created.config.cleanup_policy == common.CLEANUP_POLICY_COMPACT
    assert seat.view.image.feature_level == 3
    altered = (await seat.alter("former", config=v1.TopicConfig(min_dirty_ratio=0.1))).topic
    assert altered.config.min_dirty_ratio == 0.1
    await seat.controller.stop()


async def test_an_unknown_topic_is_neither_altered_nor_deleted(seat: Seat) -> None:
    assert (await refusal(seat.alter("nix"))).reason is Reason.UNKNOWN_TOPIC
    assert (await refusal(seat.add("nix", partitions=2))).reason is Reason.UNKNOWN_TOPIC
    assert (await refusal(seat.delete(name="nix"))).reason is Reason.UNKNOWN_TOPIC
    assert (await refusal(seat.delete(topic_id=id16("nix")))).reason is Reason.UNKNOWN_TOPIC
    assert (await refusal(seat.delete(topic_id=b"short"))).reason is Reason.INVALID_ARGUMENT
    assert (await refusal(seat.delete())).reason is Reason.INVALID_ARGUMENT


async def test_partitions_are_added_behind_the_present_ones(seat: Seat) -> None:
    first = (await seat.create(partitions=2)).topic
    more = (await seat.add(partitions=5)).topic
    assert list(more.partitions)[:2] == list(first.partitions)
    assert [partition.partition for partition in more.partitions] == [0, 1, 2, 3, 4]
    error = await refusal(seat.add(partitions=5))
    assert (error.reason, error.metadata["partitions"]) == (Reason.INVALID_ARGUMENT, "5")
    preview = (await seat.add(partitions=6, validate_only=True)).topic
    assert len(preview.partitions) == 6
    assert len(next(iter(seat.view.image.topics.values())).partitions) == 5


async def test_a_topic_is_deleted_by_name_or_id_and_its_successor_is_another(seat: Seat) -> None:
    first = (await seat.create()).topic
    assert (await seat.delete(name="orders", validate_only=True)).topic_id == first.topic_id
    assert first.topic_id in seat.view.image.topics
    assert (await seat.delete(topic_id=first.topic_id)).topic_id == first.topic_id
    assert not seat.view.image.topics
    assert (await seat.create()).topic.topic_id != first.topic_id


# ---- nodes, partitions, producers


async def test_registering_gives_the_commands_index_as_node_epoch(seat: Seat) -> None:
    before = seat.view.image.nodes[1]
    response = await seat.register(1)
    assert response.kept_places
    assert response.node_epoch == seat.view.image.nodes[1].node_epoch > before.node_epoch
    assert seat.view.image.nodes[1].voter


async def test_a_node_of_another_cluster_is_refused(seat: Seat) -> None:
    error = await refusal(seat.register(4, cluster_id="other"))
    assert error.reason is Reason.INVALID_ARGUMENT
    assert "'other'" in error.message


async def test_a_node_whose_software_is_too_old_is_refused(seat: Seat) -> None:
    assert (await refusal(seat.register(4, supported_level=0))).reason is Reason.UNSUPPORTED


async def test_a_second_store_of_a_live_node_is_refused_and_accepted_when_the_first_is_silent(seat: Seat) -> None:
    assert (await refusal(seat.register(1, store_id=id16("other")))).reason is Reason.NOT_SERVING
    seat.now_ms += 1_500
    assert not (await seat.register(1, store_id=id16("other"))).kept_places


async def test_registrations_that_race_are_decided_again(seat: Seat) -> None:
    one, two = await asyncio.gather(seat.register(1), seat.register(1))
    assert one.node_epoch != two.node_epoch
    assert seat.view.image.nodes[1].node_epoch == max(one.node_epoch, two.node_epoch)


async def test_a_node_that_leaves_is_fenced_and_followed_at_once(seat: Seat) -> None:
    topic_id = (await seat.create(assignments=assigned([1, 2, 3]))).topic.topic_id
    node_epoch = seat.view.image.nodes[1].node_epoch
    await seat.controller.leave(pb.LeaveRequest(node_id=1, node_epoch=node_epoch), T)
    assert seat.view.image.nodes[1].fenced
    await seat.until(lambda: seat.view.image.topics[topic_id].partitions[0].leader in {2, 3})


async def test_a_node_reported_unreachable_is_fenced_if_the_controller_finds_so_too(seat: Seat) -> None:
    await seat.controller.report_unreachable(pb.ReportUnreachableRequest(node_id=2), T)
    seat.refusing = {3}
    await seat.controller.report_unreachable(pb.ReportUnreachableRequest(node_id=3), T)
    seat.now_ms += 451  # its next heartbeat is late
    heartbeat = pb.HeartbeatRequest(node_id=2, node_epoch=seat.view.image.nodes[2].node_epoch)
    assert (await seat.controller.heartbeat(heartbeat, T)).status == pb.HEARTBEAT_STATUS_OK
    await seat.until(lambda: seat.view.image.nodes[3].fenced)
    assert not seat.view.image.nodes[2].fenced


async def test_isr_changes_have_each_their_own_result(seat: Seat) -> None:
    topic = (await seat.create(assignments=assigned([1, 2, 3], [2, 3, 1]))).topic
    change = metadata.IsrChange(topic_id=topic.topic_id, partition=0, leader=1, isr=[1, 2])
    wrong = metadata.IsrChange(topic_id=topic.topic_id, partition=1, leader=3, isr=[3])
    response = await seat.controller.alter_partitions(pb.AlterPartitionsRequest(changes=[change, wrong]), T)
    assert [result.refusal for result in response.changes] == [0, metadata.REFUSAL_NOT_LEADER]
    assert seat.view.image.topics[topic.topic_id].partitions[0].isr == (1, 2)
    assert response.metadata_version >= seat.view.image.version


async def test_resignations_are_answered_in_order_and_decided_again_when_overtaken(seat: Seat) -> None:
    topic = (await seat.create(assignments=assigned([1, 2, 3]))).topic

    def shrink() -> None:
        change = metadata.IsrChange(topic_id=topic.topic_id, leader=1, isr=[1, 3])
        seat.raft.apply(encode(metadata.MetadataCommand(alter_isr=metadata.AlterIsr(changes=[change]))))

    seat.raft.before_apply.append(shrink)
    former = pb.Resignation(topic_id=topic.topic_id, leader=2, leader_epoch=0)
    present = pb.Resignation(topic_id=topic.topic_id, leader=1, leader_epoch=0)
    response = await seat.controller.alter_partitions(pb.AlterPartitionsRequest(resignations=[former, present]), T)
    assert [result.refusal for result in response.resignations] == [metadata.REFUSAL_NOT_LEADER, 0]
    assert seat.view.image.topics[topic.topic_id].partitions[0].leader == 3


async def test_producer_ids_are_given_out_once(seat: Seat) -> None:
    blocks = [await seat.controller.allocate_producer_ids(pb.AllocateProducerIdsRequest(count=10), T) for _ in range(3)]
    assert [block.first_producer_id for block in blocks] == [0, 10, 20]
    for count in (0, 100_001):
        request = pb.AllocateProducerIdsRequest(count=count)
        assert (await refusal(seat.controller.allocate_producer_ids(request, T))).reason is Reason.INVALID_ARGUMENT


# ---- who rules


async def test_who_does_not_lead_consensus_refuses_everything(seat: Seat) -> None:
    seat.raft.lead(2, leader=False)
    for work in (
        seat.create(),
        seat.delete(name="orders"),
        seat.register(1),
        seat.controller.heartbeat(pb.HeartbeatRequest(node_id=1), T),
        seat.controller.leave(pb.LeaveRequest(node_id=1), T),
        seat.controller.alter_partitions(pb.AlterPartitionsRequest(), T),
        seat.controller.allocate_producer_ids(pb.AllocateProducerIdsRequest(count=1), T),
        seat.controller.report_unreachable(pb.ReportUnreachableRequest(node_id=1), T),
    ):
        assert (await refusal(work)).reason is Reason.NO_CONTROLLER


async def test_a_leadership_that_ended_unannounced_is_no_controllership_either(seat: Seat) -> None:
    seat.raft.is_leader = False
    assert (await refusal(seat.create())).reason is Reason.NO_CONTROLLER


async def test_a_reign_begins_with_a_barrier_that_is_tried_until_it_holds() -> None:
    seat = Seat()
    seat.raft.failures.extend([REFUSED, UNKNOWN])
    await seat.controller.start()
    seat.raft.lead(1)
    assert not seat.controller.is_active
    await seat.until(lambda: seat.controller.is_active)
    assert seat.raft.barriers == 3
    await seat.controller.stop()


async def test_a_controller_that_stops_hands_over_if_it_can(seat: Seat) -> None:
    await seat.controller.stop()
    assert not seat.raft.is_leader
    await seat.controller.start()
    seat.raft.lead(9)
    seat.raft.failures.append(REFUSED)
    await seat.controller.stop()
    assert seat.raft.is_leader


async def test_each_term_is_a_reign_of_its_own_with_fresh_sessions(seat: Seat) -> None:
    seat.now_ms += 1_400
    seat.raft.lead(2, leader=False)
    seat.raft.lead(3)
    assert (await refusal(seat.create())).reason is Reason.NO_CONTROLLER  # not before the barrier
    await seat.until(lambda: seat.controller.is_active)
    assert seat.raft.barriers == 2
    seat.now_ms += 1_400
    heartbeat = pb.HeartbeatRequest(node_id=1, node_epoch=seat.view.image.nodes[1].node_epoch)
    assert (await seat.controller.heartbeat(heartbeat, T)).status == pb.HEARTBEAT_STATUS_OK


async def test_what_consensus_refused_and_what_it_lost_are_told_apart(seat: Seat) -> None:
    seat.raft.failures.append(REFUSED)
    assert (await refusal(seat.create())).reason is Reason.NO_CONTROLLER
    seat.raft.lost.append(UNKNOWN)
    assert (await refusal(seat.create())).reason is Reason.OUTCOME_UNKNOWN
    assert (await refusal(seat.create())).reason is Reason.TOPIC_EXISTS


async def test_a_command_lost_by_the_controllers_own_loop_is_decided_again(seat: Seat) -> None:
    seat.raft.failures.append(REFUSED)
    seat.now_ms += 1_500
    seat.controller.wake()
    await seat.until(lambda: all(node.fenced for node in seat.view.image.nodes.values()))


async def test_a_controller_that_stood_still_reads_the_waiting_heartbeats_before_it_fences(
    seat: Seat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    core, reign = seat.controller.active(), seat.controller._reign
    assert reign is not None
    decide, decided = core.decide, 0

    def counting(image: MetadataImage, now_ms: int) -> Decision:
        nonlocal decided
        decided += 1
        return decide(image, now_ms)

    monkeypatch.setattr(core, "decide", counting)
    seat.now_ms += 60_000
    seat.loop_ms += 60_000
    reign.wake.set()
    await seat.until(lambda: "stood still" in caplog.text)
    seen = decided
    await seat.until(lambda: decided >= seen + 2)
    assert not any(node.fenced for node in seat.view.image.nodes.values())
    seat.now_ms += 1_500
    await seat.until(lambda: all(node.fenced for node in seat.view.image.nodes.values()))


async def test_a_fault_in_deciding_is_logged_and_does_not_end_the_reign(
    seat: Seat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shell, "FAULT_PAUSE_S", 0.001)
    core = seat.controller.active()
    decide = core.decide
    monkeypatch.setattr(core, "decide", lambda image, now_ms: 1 // 0)
    seat.controller.wake()
    await seat.until(lambda: "could not decide" in caplog.text)
    monkeypatch.setattr(core, "decide", decide)
    seat.now_ms += 1_500
    await seat.until(lambda: all(node.fenced for node in seat.view.image.nodes.values()))


async def test_a_look_at_a_node_that_fails_may_be_had_again(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    async def fails(node_id: int) -> bool:
        nonlocal looks
        looks += 1
        raise OSError("no more sockets")

    monkeypatch.setattr(seat.controller, "_refuses", fails)
    for wanted in (1, 2):
        seat.controller.probe(1)
        await seat.until(lambda wanted=wanted: looks == wanted)  # type: ignore[misc]
        await asyncio.sleep(0)


# ---- voters


async def test_rule_27_a_voter_with_a_new_journal_is_removed_and_added_before_it_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shell, "ADMISSION_INTERVAL_S", 0.001)
    seat = Seat()
    await seat.rule()
    seat.now_ms += 1_500
    for node_id in (1, 2):
        heartbeat = pb.HeartbeatRequest(node_id=node_id, node_epoch=seat.view.image.nodes[node_id].node_epoch)
        await seat.controller.heartbeat(heartbeat, T)
    blank = {"store_id": id16("blank"), "start_ids": [id16("s")], "journal_id": id16("new"), "may_vote": False}
    await seat.register(3, **blank)
    await seat.until(lambda: seat.view.image.nodes[3].may_vote)
    assert seat.raft.changes == [("remove", 3), ("add", 3)]
    assert seat.view.image.nodes[3].voter
    await seat.controller.stop()


@pytest.mark.parametrize("committed", [True, False])
async def test_rule_27_an_admission_is_noted_again_only_where_its_change_is_committed(
    monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The configuration in a log that is not committed goes with its leader; a note would have stayed."""
    monkeypatch.setattr(shell, "ADMISSION_INTERVAL_S", 0.001)
    seat = Seat()
    await seat.rule()
    seat.raft.voter_journals[3] = id16("new")
    barrier = seat.raft.barrier

    async def settled(timeout_s: float) -> int:
        if not committed and seat.raft.voter_journals.get(3) == id16("new") and not seat.raft.changes:
            del seat.raft.voter_journals[3]
        return await barrier(timeout_s)

    monkeypatch.setattr(seat.raft, "barrier", settled)
    seat.now_ms += 1_500
    for node_id in (1, 2):
        heartbeat = pb.HeartbeatRequest(node_id=node_id, node_epoch=seat.view.image.nodes[node_id].node_epoch)
        await seat.controller.heartbeat(heartbeat, T)
    blank = {"store_id": id16("blank"), "start_ids": [id16("s")], "journal_id": id16("new"), "may_vote": False}
    await seat.register(3, **blank)
    await seat.until(lambda: seat.view.image.nodes[3].may_vote)
    assert seat.raft.changes == ([] if committed else [("add", 3)])
    await seat.controller.stop()


# ---- reassignments


async def reassigned(seat: Seat, *targets: tuple[bytes, int, list[int]]) -> list[int]:
    """The refusals."""
    request = pb.ReassignPartitionsRequest(
        targets=[
            pb.PartitionTarget(topic_id=topic_id, partition=index, replicas=ids) for topic_id, index, ids in targets
        ]
    )
    response = await seat.controller.reassign_partitions(request, T)
    assert response.metadata_version == seat.view.image.version
    return [change.refusal for change in response.changes]


def apply_first(seat: Seat, command: metadata.MetadataCommand) -> None:
    seat.raft.apply(encode(command))


async def test_reassignments_have_each_their_own_result(seat: Seat) -> None:
    await seat.register(4)
    topic_id = (await seat.create(assignments=assigned([1, 2, 3], [2, 3, 1]))).topic.topic_id
    refusals = await reassigned(
        seat,
        (topic_id, 0, [2, 3, 4]),
        (id16("gone"), 0, [2, 3, 4]),
        (topic_id, 1, []),
        (topic_id, 1, [4]),
        (topic_id, 1, [9, 1]),
    )
    assert refusals == [
        metadata.REFUSAL_UNSPECIFIED,
        metadata.REFUSAL_UNKNOWN_TOPIC,
        metadata.REFUSAL_INVALID,
        metadata.REFUSAL_INVALID,
        metadata.REFUSAL_UNKNOWN_NODE,
    ]
    first, second = seat.view.image.topics[topic_id].partitions
    assert (first.adding, first.removing, first.target) == ((4,), (1,), (2, 3, 4))
    assert second.target == ()


async def test_a_reassignment_ends_by_itself_when_its_new_replica_is_in_sync(seat: Seat) -> None:
    epoch = (await seat.register(4)).node_epoch
    topic_id = (await seat.create(assignments=assigned([1, 2, 3]))).topic.topic_id
    await reassigned(seat, (topic_id, 0, [2, 3, 4]))
    change = metadata.IsrChange(
        topic_id=topic_id,
        leader=1,
        partition_epoch=1,
        isr=[1, 2, 3, 4],
        node_epochs=[metadata.NodeEpoch(node_id=4, node_epoch=epoch)],
    )
    await seat.controller.alter_partitions(pb.AlterPartitionsRequest(changes=[change]), T)
    await seat.until(lambda: seat.view.image.topics[topic_id].partitions[0].replicas == (2, 3, 4))
    assert seat.view.image.topics[topic_id].partitions[0].leader == 2


async def test_a_reassignment_that_was_overtaken_is_decided_again_and_the_others_are_not(seat: Seat) -> None:
    await seat.register(4)
    topic_id = (await seat.create(assignments=assigned([1, 2, 3], [1, 2, 3]))).topic.topic_id
    assert await reassigned(seat, (topic_id, 1, [2, 3, 4])) == [0]
    shrink = metadata.AlterIsr(changes=[metadata.IsrChange(topic_id=topic_id, leader=1, isr=[1, 2])])
    command = metadata.MetadataCommand(alter_isr=shrink)
    seat.raft.before_apply.append(lambda: apply_first(seat, command))
    # Turned back twice, the second partition would be told that there is nothing to turn back.
    assert await reassigned(seat, (topic_id, 0, [2, 3, 4]), (topic_id, 1, [])) == [0, 0]
    first, second = seat.view.image.topics[topic_id].partitions
    assert (first.target, first.isr) == ((2, 3, 4), (1, 2))
    assert second.replicas == (1, 2, 3)


async def test_the_first_reassignment_raises_the_feature_level_once_every_node_knows_it() -> None:
    seat = Seat()
    genesis = metadata.Genesis(cluster_id=CLUSTER, feature_level=1)
    seat.raft.apply(encode(metadata.MetadataCommand(genesis=genesis)))  # a cluster that an earlier version founded
    await seat.rule(3)
    await seat.register(4, supported_level=1)
    topic_id = (await seat.create(assignments=assigned([1, 2, 3]))).topic.topic_id
    request = pb.ReassignPartitionsRequest(targets=[pb.PartitionTarget(topic_id=topic_id, replicas=[2, 3, 4])])
    assert (await refusal(seat.controller.reassign_partitions(request, T))).reason is Reason.UNSUPPORTED
    assert seat.view.image.feature_level == 1
    await seat.register(4)
    assert await reassigned(seat, (topic_id, 0, [2, 3, 4])) == [0]
    assert seat.view.image.feature_level == 2
    await seat.controller.stop()


async def test_too_many_reassignments_are_refused(seat: Seat) -> None:
    request = pb.ReassignPartitionsRequest(targets=[pb.PartitionTarget()] * 10_001)
    assert (await refusal(seat.controller.reassign_partitions(request, T))).reason is Reason.INVALID_ARGUMENT


async def test_what_is_decided_about_a_topic_meanwhile_counts_the_replicas_that_will_be(seat: Seat) -> None:
    await seat.register(4)
    topic_id = (await seat.create(assignments=assigned([1, 2, 3]))).topic.topic_id
    await reassigned(seat, (topic_id, 0, [4, 3]))
    assert (await seat.add(partitions=2)).topic.replication_factor == 2
    assert len(seat.view.image.topics[topic_id].partitions[1].replicas) == 2
    config = v1.TopicConfig(min_insync_replicas=3)
    assert (await refusal(seat.alter(config=config))).reason is Reason.INVALID_CONFIG


async def test_only_the_controller_reassigns(seat: Seat) -> None:
    seat.raft.lead(2, leader=False)
    failed = await refusal(seat.controller.reassign_partitions(pb.ReassignPartitionsRequest(), T))
    assert failed.reason is Reason.NO_CONTROLLER
