"""Offsets of any partitions, asked of their leaders: what ListOffsets answers, wherever a partition is led."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc

from penstock.node.api.consumer_service import ConsumerService
from penstock.node.api.locate import Locator
from penstock.node.clock import loop_s
from penstock.protocol.calls import answer_of
from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Outcome, Reason
from penstock.raft.image import NO_LEADER
from penstock.v1 import common_pb2
from penstock.v1 import consumer_service_pb2 as pb
from penstock.v1 import consumer_service_pb2_grpc as services

RETRY_S = 0.05
QUERIES = 1_000
"""Asked in one call."""
Found = pb.FoundOffset | PenstockError


class LeaderOffsets:
    """`channel_to`: to a node's peer listener."""

    def __init__(
        self,
        node_id: int,
        locator: Locator,
        local: ConsumerService,
        channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]],
    ) -> None:
        self._node_id = node_id
        self._locator = locator
        self._local = local
        self._channel_to = channel_to

    async def find(self, queries: Sequence[pb.OffsetQuery], timeout_s: float) -> list[Found]:
        """One answer for each query, in order. What may succeed later is asked again until the time is over."""
        deadline = loop_s() + timeout_s
        answers = await self.ask(queries, timeout_s)
        while again := [at for at, answer in enumerate(answers) if _may_succeed(answer)]:
            if loop_s() + RETRY_S >= deadline:
                break
            await asyncio.sleep(RETRY_S)
            found = await self.ask([queries[at] for at in again], deadline - loop_s())
            for at, answer in zip(again, found, strict=True):
                answers[at] = answer
        return answers

    async def ask(self, queries: Sequence[pb.OffsetQuery], timeout_s: float) -> list[Found]:
        """Do as `find`, with one attempt for each."""
        answers: list[Found] = [PenstockError(Reason.LEADER_NOT_AVAILABLE, "not asked")] * len(queries)
        by_leader: dict[int, list[int]] = {}
        for at, query in enumerate(queries):
            try:
                by_leader.setdefault(self._leader_of(query), []).append(at)
            except PenstockError as error:
                answers[at] = error
        calls = [
            (leader, places[at : at + QUERIES])
            for leader, places in by_leader.items()
            for at in range(0, len(places), QUERIES)
        ]
        results = await asyncio.gather(
            *(self._ask_node(leader, [queries[at] for at in places], timeout_s) for leader, places in calls)
        )
        for (_, places), found in zip(calls, results, strict=True):
            for at, answer in zip(places, found, strict=True):
                answers[at] = answer
        return answers

    def _leader_of(self, query: pb.OffsetQuery) -> int:
        topic, info = self._locator.known(query.topic_id, query.partition)
        if info.leader == NO_LEADER:
            text = f"partition {info.partition} of {topic.name!r} has no leader now"
            raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text)
        return info.leader

    async def _ask_node(self, node_id: int, queries: list[pb.OffsetQuery], timeout_s: float) -> Sequence[Found]:
        request = pb.ListOffsetsRequest(queries=queries, isolation=common_pb2.ISOLATION_READ_UNCOMMITTED)
        try:
            response = await self._call(node_id, request, timeout_s)
        except PenstockError as error:
            return [error] * len(queries)
        return [result.found if result.HasField("found") else from_status(result.error) for result in response.results]

    async def _call(self, node_id: int, request: pb.ListOffsetsRequest, timeout_s: float) -> pb.ListOffsetsResponse:
        if node_id == self._node_id:
            return await self._local.answer(request, timeout_s)
        channel = await self._channel_to(node_id)
        if channel is None:
            raise PenstockError(Reason.LEADER_NOT_AVAILABLE, f"the address of node {node_id} is not known")
        try:
            return await answer_of(services.ConsumerServiceStub(channel).ListOffsets(request, timeout=timeout_s))
        except PenstockError as error:
            if error.reason is not Reason.OUTCOME_UNKNOWN:
                raise
            text = f"node {node_id}, the partition's leader, does not answer: {error.message}"
            raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text) from error


def query_of(topic_id: bytes, partition: int, **position: object) -> pb.OffsetQuery:
    """Ask for one place in a log: `earliest`, `latest`, `timestamp_ms` or `offset`, as in OffsetQuery."""
    return pb.OffsetQuery(topic_id=topic_id, partition=partition, **position)  # type: ignore[arg-type]  # one of these


def _may_succeed(answer: Found) -> bool:
    return isinstance(answer, PenstockError) and answer.outcome is Outcome.RETRIABLE
