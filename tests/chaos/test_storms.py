"""A member of a rebalance storm, whatever its coordinator says and when."""

import random
from collections.abc import AsyncIterator

import grpc

from penstock.chaos.faults.base import Group
from penstock.chaos.faults.storms import Storm
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc
from penstock.v1.common_pb2 import TopicPartition

REVOKED = pb.Assignment(generation=2, revoked=[TopicPartition(topic_id=bytes(16), partition=0)])


class Coordinator(group_service_pb2_grpc.GroupServiceServicer):
    """Asks who has left already to give something up."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def Join(  # noqa: N802  gRPC's name
        self, requests: AsyncIterator[pb.JoinRequest], context: object
    ) -> AsyncIterator[pb.JoinResponse]:
        async for request in requests:
            self.heard.append(str(request.WhichOneof("request")))
            if self.heard[-1] == "start":
                yield pb.JoinResponse(joined=pb.MemberJoined(generation=1))
            elif self.heard[-1] == "leave":
                yield pb.JoinResponse(assignment=REVOKED)


async def test_who_has_left_says_nothing_any_more() -> None:
    coordinator = Coordinator()  # type: ignore[abstract]  # nothing else is asked of it
    server = grpc.aio.server()
    group_service_pb2_grpc.add_GroupServiceServicer_to_server(coordinator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    storm = Storm({1: f"127.0.0.1:{port}"}, Group("g", ("t",)), random.Random(1))
    try:
        await storm._member(1, stays_s=0.0)
    finally:
        await storm.close()
        await server.stop(None)
    assert coordinator.heard == ["start", "leave"]
