"""The way to the controller over real gRPC: routing, what is repeated, what is told as unknown."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import controller_pb2_grpc as services
from penstock.internal.v1 import metadata_pb2
from penstock.node.api.server import new_server
from penstock.node.controller import ControllerClient, ControllerService
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import topic_service_pb2 as v1

WAIT_S = 60.0
NO_CONTROLLER = PenstockError(Reason.NO_CONTROLLER, "not here")
UNKNOWN = PenstockError(Reason.OUTCOME_UNKNOWN, "lost")
EXISTS = PenstockError(Reason.TOPIC_EXISTS, "there is one", {"topic": "t"})


class Answers:
    """A controller that answers everything, except for what it was told to do first; remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.first: deque[Exception | asyncio.Event] = deque()
        self.arrived = asyncio.Event()

    def __getattr__(self, method: str) -> Any:
        answers = {
            "register": pb.RegisterResponse(node_epoch=5),
            "heartbeat": pb.HeartbeatResponse(status=pb.HEARTBEAT_STATUS_OK),
            "leave": pb.LeaveResponse(),
            "report_unreachable": pb.ReportUnreachableResponse(),
            "alter_partitions": pb.AlterPartitionsResponse(metadata_version=9),
            "reassign_partitions": pb.ReassignPartitionsResponse(metadata_version=8),
            "allocate_producer_ids": pb.AllocateProducerIdsResponse(first_producer_id=40, count=10),
            "alter_groups": pb.AlterGroupsResponse(metadata_version=7),
            "ensure_internal_topic": pb.EnsureInternalTopicResponse(topic_id=b"t" * 16, metadata_version=6),
            "create_topic": pb.CreateTopicResponse(response=v1.CreateTopicResponse(metadata_version=1)),
            "alter_topic": pb.AlterTopicResponse(response=v1.AlterTopicResponse(metadata_version=2)),
            "add_partitions": pb.AddPartitionsResponse(response=v1.AddPartitionsResponse(metadata_version=3)),
            "delete_topic": pb.DeleteTopicResponse(response=v1.DeleteTopicResponse(metadata_version=4)),
        }
        answer = answers[method]

        async def call(request: Any, timeout_s: float) -> Any:
            self.requests.append(request)
            self.arrived.set()
            if self.first:
                first = self.first.popleft()
                if isinstance(first, Exception):
                    raise first
                await first.wait()
            return answer

        return call


class Cluster:
    """Nodes 1 (the client's own), 2 and 3, any of which may be the controller."""

    def __init__(self) -> None:
        self.answers = {node_id: Answers() for node_id in (1, 2, 3)}
        self.leader: int | None = 2
        self.servers: dict[int, grpc.aio.Server] = {}
        self.channels: dict[int, grpc.aio.Channel] = {}
        self.client = ControllerClient(1, self.answers[1], lambda: self.leader, self.channel_to, lambda: "drawn")

    async def start(self) -> None:
        for node_id in (2, 3):
            server = new_server()
            services.add_ControllerServiceServicer_to_server(ControllerService(self.answers[node_id]), server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            self.servers[node_id] = server
            options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.use_local_subchannel_pool", 1))
            self.channels[node_id] = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)

    async def stop(self) -> None:
        for channel in self.channels.values():
            await channel.close()
        for server in self.servers.values():
            await server.stop(None)

    async def channel_to(self, node_id: int) -> grpc.aio.Channel | None:
        return self.channels.get(node_id)

    def move(self, leader: int | None) -> None:
        self.leader = leader
        self.client.on_leadership(leader, 0)

    def asked(self) -> dict[int, int]:
        return {node_id: len(answers.requests) for node_id, answers in self.answers.items()}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    await cluster.start()
    yield cluster
    await cluster.stop()


async def reason(work: Any) -> Reason:
    with pytest.raises(PenstockError) as raised:
        await work
    return raised.value.reason


def create(name: str = "t") -> v1.CreateTopicRequest:
    return v1.CreateTopicRequest(name=name)


def delete() -> v1.DeleteTopicRequest:
    return v1.DeleteTopicRequest(name="t")


async def test_every_call_reaches_another_nodes_controller_and_the_local_one(cluster: Cluster) -> None:
    client = cluster.client
    for leader in (1, 2):
        cluster.move(leader)
        assert (await client.create_topic(create(), WAIT_S)).metadata_version == 1
        assert (await client.alter_topic(v1.AlterTopicRequest(), WAIT_S)).metadata_version == 2
        assert (await client.add_partitions(v1.AddPartitionsRequest(), WAIT_S)).metadata_version == 3
        assert (await client.delete_topic(delete(), WAIT_S)).metadata_version == 4
        assert (await client.alter_partitions(pb.AlterPartitionsRequest(), WAIT_S)).metadata_version == 9
        assert (await client.reassign_partitions(pb.ReassignPartitionsRequest(), WAIT_S)).metadata_version == 8
        assert await client.allocate_producer_ids(10, WAIT_S) == range(40, 50)
        assert (await client.register(metadata_pb2.Registration(), WAIT_S)).node_epoch == 5
        assert (await client.heartbeat(pb.HeartbeatRequest(), WAIT_S)).status == pb.HEARTBEAT_STATUS_OK
        assert (await client.alter_groups(pb.AlterGroupsRequest(), WAIT_S)).metadata_version == 7
        assert (await client.ensure_internal_topic("__offsets", WAIT_S)).metadata_version == 6
        assert cluster.answers[leader].requests[-1].name == "__offsets"
        await client.leave(1, 5, WAIT_S)
        await client.report_unreachable(3, WAIT_S)
        assert cluster.asked()[leader] == 13
    assert cluster.asked() == {1: 13, 2: 13, 3: 0}


async def test_an_error_arrives_with_its_reason_and_details(cluster: Cluster) -> None:
    for leader in (1, 2):
        cluster.move(leader)
        cluster.answers[leader].first.append(EXISTS)
        with pytest.raises(PenstockError) as raised:
            await cluster.client.create_topic(create(), WAIT_S)
        assert (raised.value.reason, raised.value.metadata) == (Reason.TOPIC_EXISTS, {"topic": "t"})


async def test_who_is_not_the_controller_is_asked_again_until_it_is_or_another(cluster: Cluster) -> None:
    cluster.answers[2].first.extend([NO_CONTROLLER, NO_CONTROLLER])
    await cluster.client.delete_topic(delete(), WAIT_S)
    assert cluster.asked()[2] == 3


async def test_without_a_controller_the_call_waits_for_one(cluster: Cluster) -> None:
    cluster.move(None)
    call = asyncio.ensure_future(cluster.client.delete_topic(delete(), WAIT_S))
    await asyncio.sleep(0)
    cluster.move(3)
    assert (await call).metadata_version == 4


async def test_without_a_controller_within_the_time_it_says_so(cluster: Cluster) -> None:
    cluster.move(None)
    assert await reason(cluster.client.delete_topic(delete(), 0.05)) is Reason.NO_CONTROLLER
    cluster.move(9)  # nobody knows its address
    assert await reason(cluster.client.delete_topic(delete(), 0.05)) is Reason.NO_CONTROLLER


async def test_a_controller_that_cannot_be_reached_was_surely_not_asked(cluster: Cluster) -> None:
    await cluster.servers[2].stop(None)
    assert await reason(cluster.client.delete_topic(delete(), 0.2)) is Reason.NO_CONTROLLER
    assert cluster.asked() == {1: 0, 2: 0, 3: 0}


async def test_while_one_cannot_be_reached_its_successor_is_asked_as_soon_as_it_is_known(cluster: Cluster) -> None:
    await cluster.servers[2].stop(None)
    call = asyncio.ensure_future(cluster.client.delete_topic(delete(), WAIT_S))
    await asyncio.sleep(0)
    cluster.move(3)
    await call
    assert cluster.asked() == {1: 0, 2: 0, 3: 1}


async def test_what_may_have_happened_is_not_repeated_but_told(cluster: Cluster) -> None:
    for leader in (1, 2):
        cluster.move(leader)
        cluster.answers[leader].first.append(UNKNOWN)
        assert await reason(cluster.client.delete_topic(delete(), WAIT_S)) is Reason.OUTCOME_UNKNOWN
        cluster.answers[leader].first.append(UNKNOWN)
        assert (
            await reason(cluster.client.reassign_partitions(pb.ReassignPartitionsRequest(), WAIT_S))
            is Reason.OUTCOME_UNKNOWN
        )
        assert cluster.asked()[leader] == 2


async def test_a_controller_that_dies_during_a_call_leaves_its_outcome_unknown(cluster: Cluster) -> None:
    cluster.answers[2].first.append(asyncio.Event())
    call = asyncio.ensure_future(cluster.client.delete_topic(delete(), WAIT_S))
    await cluster.answers[2].arrived.wait()
    await cluster.servers[2].stop(None)
    assert await reason(call) is Reason.OUTCOME_UNKNOWN


async def test_creating_a_topic_is_repeated_under_one_request_id(cluster: Cluster) -> None:
    cluster.answers[2].first.append(UNKNOWN)
    await cluster.client.create_topic(create(), WAIT_S)
    first, second = cluster.answers[2].requests
    assert first.request == second.request
    assert first.request.request_id == "drawn"
    own = create()
    own.request_id = "own"
    await cluster.client.create_topic(own, WAIT_S)
    assert cluster.answers[2].requests[-1].request.request_id == "own"


async def test_changes_of_groups_and_the_internal_topic_are_repeated(cluster: Cluster) -> None:
    """Each change is compared with the group that it was decided on: one of two is refused."""
    for leader in (1, 2):
        cluster.move(leader)
        asked = pb.AlterGroupsRequest(changes=[metadata_pb2.GroupChange(group_id="g", group_epoch=3)])
        cluster.answers[leader].first.append(UNKNOWN)
        await cluster.client.alter_groups(asked, WAIT_S)
        cluster.answers[leader].first.append(UNKNOWN)
        await cluster.client.ensure_internal_topic("__offsets", WAIT_S)
        assert cluster.answers[leader].requests[:2] == [asked, asked]
        assert cluster.asked()[leader] == 4


async def test_a_controller_that_hangs_does_not_hold_up_what_may_be_repeated(cluster: Cluster) -> None:
    cluster.answers[2].first.append(asyncio.Event())
    call = asyncio.ensure_future(cluster.client.allocate_producer_ids(10, WAIT_S))
    await cluster.answers[2].arrived.wait()
    cluster.move(3)
    assert await call == range(40, 50)
    assert cluster.asked()[3] == 1


async def test_what_may_not_be_repeated_waits_for_its_answer_though_the_controller_changed(cluster: Cluster) -> None:
    held = asyncio.Event()
    cluster.answers[2].first.append(held)
    call = asyncio.ensure_future(cluster.client.delete_topic(delete(), WAIT_S))
    await cluster.answers[2].arrived.wait()
    cluster.move(3)
    await asyncio.sleep(0)
    held.set()
    assert (await call).metadata_version == 4
    assert cluster.asked()[3] == 0


async def test_a_call_that_hangs_ends_by_its_deadline_as_unknown(cluster: Cluster) -> None:
    for leader in (1, 2):
        cluster.move(leader)
        cluster.answers[leader].first.append(asyncio.Event())
        while not cluster.asked()[leader]:  # on a slow machine the time may be up before it is sent
            told = await reason(cluster.client.delete_topic(delete(), 0.1))
            assert told in {Reason.OUTCOME_UNKNOWN, Reason.NO_CONTROLLER}
        assert told is Reason.OUTCOME_UNKNOWN


async def test_the_sessions_calls_are_one_attempt_each(cluster: Cluster) -> None:
    cluster.answers[2].first.extend([NO_CONTROLLER, UNKNOWN])
    await cluster.channels[2].channel_ready()
    assert await reason(cluster.client.heartbeat(pb.HeartbeatRequest(), WAIT_S)) is Reason.NO_CONTROLLER
    assert await reason(cluster.client.register(metadata_pb2.Registration(), WAIT_S)) is Reason.OUTCOME_UNKNOWN
    assert cluster.asked()[2] == 2


async def test_a_channel_that_is_closed_under_a_call_does_not_cancel_the_caller(cluster: Cluster) -> None:
    cluster.answers[2].first.append(asyncio.Event())
    call = asyncio.ensure_future(cluster.client.delete_topic(delete(), WAIT_S))
    await cluster.answers[2].arrived.wait()
    await cluster.channels.pop(2).close()
    assert await reason(call) is Reason.OUTCOME_UNKNOWN
