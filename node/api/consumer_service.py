"""ConsumerService: the Consume stream and ListOffsets."""

import asyncio
import contextlib
from typing import Any

import grpc

from penstock.node.api.consume import ConsumeStream, check_isolation
from penstock.node.api.locate import Locator
from penstock.node.api.status import Context
from penstock.node.clock import loop_s
from penstock.node.config import Limits
from penstock.node.partition import FoundOffset, Partition
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.v1 import consumer_service_pb2 as pb

SERVICE = "penstock.v1.ConsumerService"
KNOWN_END_WAIT_S = 5.0


class ConsumerService:
    """Handlers of the service."""

    def __init__(self, locator: Locator, limits: Limits) -> None:
        self._locator = locator
        self._limits = limits

    async def consume(self, request_iterator: Any, context: Context) -> None:
        """Serve one stream until the client ends it."""
        del request_iterator
        await ConsumeStream(context, self._locator, self._limits).run()

    async def list_offsets(self, request: pb.ListOffsetsRequest, context: Context) -> pb.ListOffsetsResponse:
        """Answer each query by itself; one that fails does not fail the others."""
        check_isolation(request.isolation)
        return await self.answer(request, min(KNOWN_END_WAIT_S, context.time_remaining() or KNOWN_END_WAIT_S))

    async def answer(self, request: pb.ListOffsetsRequest, timeout_s: float) -> pb.ListOffsetsResponse:
        """Do as `list_offsets`, for callers in this node too."""
        deadline = loop_s() + timeout_s
        response = pb.ListOffsetsResponse()
        for query in request.queries:
            try:
                found = await self._find(query, request.isolation, deadline)
            except PenstockError as error:
                explained = self._locator.explain(error, query.topic_id, query.partition)
                response.results.add(error=to_status(explained))
                continue
            response.results.add(
                found=pb.FoundOffset(
                    offset=found.offset, timestamp_ms=found.timestamp_ms, leader_epoch=found.leader_epoch
                )
            )
        return response

    async def _find(self, query: pb.OffsetQuery, isolation: int, deadline: float) -> FoundOffset:
        """Find one offset, waiting while a new leader does not know its log end yet (rule 12)."""
        while True:
            partition = self._locator.leader_of(query.topic_id, query.partition)
            progress = asyncio.Event()
            unsubscribe = partition.on_progress(progress.set)
            try:
                return await _find_in(partition, query, isolation)
            except PenstockError as error:
                if error.reason is not Reason.LEADER_NOT_AVAILABLE or loop_s() >= deadline:
                    raise
                await _wait(progress, deadline - loop_s())
            finally:
                unsubscribe()

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a server; Consume's responses are serialized already."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Consume": grpc.stream_stream_rpc_method_handler(self.consume, pb.ConsumeRequest.FromString, None),
                "ListOffsets": self._list_offsets_handler(),
            },
        )

    def peer_handler(self) -> grpc.GenericRpcHandler:
        """What other nodes ask: offsets, for the groups that they coordinate."""
        return grpc.method_handlers_generic_handler(SERVICE, {"ListOffsets": self._list_offsets_handler()})

    def _list_offsets_handler(self) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            self.list_offsets, pb.ListOffsetsRequest.FromString, pb.ListOffsetsResponse.SerializeToString
        )


async def _find_in(partition: Partition, query: pb.OffsetQuery, isolation: int) -> FoundOffset:
    leader_epoch = query.leader_epoch if query.HasField("leader_epoch") else None
    position = query.WhichOneof("position")
    if position == "earliest":
        return partition.earliest(leader_epoch)
    if position == "latest":
        return partition.latest(leader_epoch, isolation)
    if position == "timestamp_ms":
        return await partition.find_timestamp(query.timestamp_ms, leader_epoch, isolation)
    if position == "offset":
        return await partition.find_offset(query.offset, leader_epoch, isolation)
    raise PenstockError(Reason.INVALID_ARGUMENT, "position is missing: one of earliest, latest, timestamp_ms, offset")


async def _wait(progress: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, timeout_s)):
            await progress.wait()
