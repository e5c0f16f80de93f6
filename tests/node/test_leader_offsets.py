"""Offsets asked of partitions' leaders, over real gRPC."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc

from penstock.node.api.consumer_service import SERVICE
from penstock.node.api.leader_offsets import LeaderOffsets, query_of
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import consumer_service_pb2 as pb


async def test_a_connection_that_is_closed_under_a_question_cancels_nobody() -> None:
    asked = asyncio.Event()

    async def silent(request: pb.ListOffsetsRequest, context: Any) -> None:
        del request, context
        asked.set()
        await asyncio.Event().wait()

    handler: Any = grpc.unary_unary_rpc_method_handler(silent, pb.ListOffsetsRequest.FromString)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ListOffsets": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def channel_to(node_id: int) -> grpc.aio.Channel:
        assert node_id == 2
        return channel

    locator: Any = SimpleNamespace(known=lambda topic_id, index: (None, SimpleNamespace(leader=2)))
    local: Any = None
    leaders = LeaderOffsets(1, locator, local, channel_to)
    asking = asyncio.create_task(leaders.ask([query_of(bytes(16), 0, latest=pb.LatestOffset())], 60.0))
    try:
        await asked.wait()
        await channel.close()  # the node has registered with another address
        (answer,) = await asking
    finally:
        await channel.close()
        await server.stop(None)
    assert isinstance(answer, PenstockError)
    assert answer.reason is Reason.LEADER_NOT_AVAILABLE
