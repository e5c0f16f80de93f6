"""ProducerService: the Produce stream, producer ids, and Publish.

A Produce stream is a reader, which hands each batch to its partition, and a writer, which sends whatever results have
gathered while its last message was under way as one response. Batches are opaque: only their header is read, except
those for compacted topics (`admission`).
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from penstock.internal.v1 import data_pb2 as twin
from penstock.node.api.admission import admit
from penstock.node.api.locate import Locator
from penstock.node.api.publish import Publisher
from penstock.node.api.status import Context
from penstock.node.clock import monotonic_ms, wall_ms
from penstock.node.config import Limits
from penstock.node.partition import AppendRequest, AppendResult, Done
from penstock.node.producer_ids import ProducerIds
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.v1 import common_pb2
from penstock.v1 import producer_service_pb2 as pb

SERVICE = "penstock.v1.ProducerService"
RESULTS_PER_RESPONSE = 10_000


_ACKS = frozenset({common_pb2.ACKS_NONE, common_pb2.ACKS_LEADER, common_pb2.ACKS_ALL})


class _Shared(NamedTuple):
    """What the batches of a request have in common, in the order of AppendRequest."""

    acks: int
    now_ms: int
    deadline_ms: int


class Budget:
    """Bytes of batches that are not answered yet, over all streams of the node."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class ProducerService:
    """Handlers of the service."""

    def __init__(self, locator: Locator, publisher: Publisher, producer_ids: ProducerIds, limits: Limits) -> None:
        self._locator = locator
        self._publisher = publisher
        self._producer_ids = producer_ids
        self._limits = limits
        self._budget = Budget(limits.produce_node_bytes)

    async def init_producer(self, request: pb.InitProducerRequest, context: Context) -> pb.InitProducerResponse:
        """Allocate a producer id that was never given before."""
        del request
        return pb.InitProducerResponse(producer_id=await self._producer_ids.next(context.time_remaining()))

    async def produce(self, request_iterator: Any, context: Context) -> None:
        """Serve one stream until the client ends it."""
        del request_iterator
        await ProduceStream(context, self._locator, self._budget, self._limits).run()

    async def publish(self, request: pb.PublishRequest, context: Context) -> pb.PublishResponse:
        """Append plain records, here or on their leaders."""
        return await self._publisher.publish(request, context.time_remaining())

    def handler(self) -> grpc.GenericRpcHandler:
        """The service for a server; Produce moves batches as bytes, by the messages' twins."""
        respond: Callable[[Message], bytes] = lambda message: message.SerializeToString()  # noqa: E731
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "InitProducer": grpc.unary_unary_rpc_method_handler(
                    self.init_producer, pb.InitProducerRequest.FromString, respond
                ),
                "Produce": grpc.stream_stream_rpc_method_handler(self.produce, twin.ProduceRequest.FromString, respond),
                "Publish": grpc.unary_unary_rpc_method_handler(self.publish, pb.PublishRequest.FromString, respond),
            },
        )


class ProduceStream:
    """One Produce stream: its unanswered bytes, and the results that wait to be sent."""

    def __init__(self, context: Context, locator: Locator, budget: Budget, limits: Limits) -> None:
        self._context = context
        self._locator = locator
        self._budget = budget
        self._limits = limits
        self._results: list[pb.BatchResult] = []
        self._changed = asyncio.Event()
        self._in_flight = 0  # batches
        self._in_flight_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False

    async def run(self) -> None:
        """Read and append until the client half-closes, then answer what is still under way."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
            self._ended = True
            self._changed.set()
            await writer
        finally:
            self._ended = True
            writer.cancel()

    async def _read(self) -> None:
        while True:
            request = await self._context.read()
            if request is grpc.aio.EOF:
                return
            self._take(request)
            if self._in_flight_bytes > self._limits.produce_stream_bytes:
                self._room.clear()
                await self._room.wait()

    def _take(self, request: twin.ProduceRequest) -> None:
        """Append the batches of a request; what they have in common is looked at once."""
        answered = request.acks != common_pb2.ACKS_NONE
        refusal, timeout_ms = None, 0
        try:
            timeout_ms = self._check(request)
        except PenstockError as error:
            refusal = error
        shared = _Shared(request.acks, wall_ms(), monotonic_ms() + timeout_ms)
        for item in request.batches:
            payload = item.batch
            size = len(payload)
            done = partial(self._done, item.batch_number, size, answered)
            self._in_flight += 1
            self._in_flight_bytes += size
            self._budget.used += size
            try:
                if refusal is not None:
                    raise refusal
                self._append(shared, item, payload, done)
            except PenstockError as error:
                done(self._locator.explain(error, item.topic_id, item.partition))

    def _check(self, request: twin.ProduceRequest) -> int:
        """Milliseconds that the batches of a request have. Raises what refuses all of them."""
        if request.acks not in _ACKS:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"acks is {request.acks}, not one of NONE, LEADER, ALL")
        self._locator.check_serving()
        limit = self._limits.produce_timeout_max_ms
        if not request.HasField("timeout"):
            return limit
        asked = request.timeout.ToMilliseconds()
        if asked <= 0:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"timeout is {asked} ms; it must be above 0")
        return min(limit, asked)

    def _append(self, shared: "_Shared", item: twin.PartitionBatch, payload: bytes, done: Done) -> None:
        if self._budget.used > self._budget.limit:
            text = (
                f"{self._budget.used} bytes of batches are unanswered on this node, the limit is {self._budget.limit}"
            )
            raise PenstockError(Reason.OVERLOADED, text)
        partition = self._locator.leading(item.topic_id, item.partition)
        topic = self._locator.topic_of(item.topic_id)
        header = admit(payload, topic, shared.now_ms)
        expected_offset = item.expected_offset if item.HasField("expected_offset") else None
        leader_epoch = item.leader_epoch if item.HasField("leader_epoch") else None
        partition.append(
            AppendRequest(header, payload, *shared, expected_offset, leader_epoch, topic.config.timestamp_type), done
        )

    def _done(self, batch_number: int, size: int, answered: bool, outcome: "AppendResult | PenstockError") -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= size
        self._budget.used -= size
        if self._in_flight_bytes <= self._limits.produce_stream_bytes:
            self._room.set()
        if answered:
            self._results.append(_result(batch_number, outcome))
        self._changed.set()

    async def _write(self) -> None:
        """Send results as they gather; end when the client has ended and everything is answered."""
        while not (self._ended and self._in_flight == 0 and not self._results):
            await self._changed.wait()
            self._changed.clear()
            while self._results:
                sending = self._results[:RESULTS_PER_RESPONSE]
                del self._results[:RESULTS_PER_RESPONSE]
                await self._context.write(pb.ProduceResponse(results=sending))


def _result(batch_number: int, outcome: "AppendResult | PenstockError") -> pb.BatchResult:
    if isinstance(outcome, PenstockError):
        return pb.BatchResult(batch_number=batch_number, error=to_status(outcome))
    return pb.BatchResult(batch_number=batch_number, appended=appended(outcome))


def appended(outcome: AppendResult) -> pb.BatchAppended:
    """The wire form of an acknowledgement."""
    return pb.BatchAppended(
        base_offset=outcome.base_offset,
        leader_epoch=outcome.leader_epoch,
        append_time_ms=outcome.append_time_ms,
        log_start_offset=outcome.log_start_offset,
        durability=outcome.durability,  # type: ignore[arg-type]  # a plain int of the enum
        duplicate=outcome.duplicate,
    )
