"""Deletes the oldest records of partitions, each at its leader, whatever becomes of leaders meanwhile.

What is to go is an offset before anything is asked for: an attempt that is repeated deletes no more than the first one.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from penstock.client.descriptions import TrimmedPartition
from penstock.client.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    RequestTimeoutError,
    UnknownTopicError,
    error_of,
    is_retriable,
    is_unknown,
)
from penstock.client.offsets import Led, by_leader, list_offsets, refresh_leaders
from penstock.client.records import Timestamp, TopicPartition
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import topic_service_pb2 as pb

ATTEMPT_TIMEOUT_MS = 10_000
ANSWER_MS = 2_000
"""The leader is told to wait so much less than the call, that its answer arrives."""

TrimPoint: TypeAlias = int | Timestamp | Literal["everything"]
"""Where a log is to begin: an offset, the first record at or after a time, or the committed end."""


def points_of(
    topic: str, count: int, before: TrimPoint | Mapping[int, TrimPoint], partitions: Iterable[int] | None
) -> dict[TopicPartition, TrimPoint]:
    """By partition, in order: one point for all `count` partitions, or for those named; or a point for each of some."""
    if isinstance(before, Mapping):
        if partitions is not None:
            text = "name the partitions in the mapping or in `partitions`, not in both"
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, text)
        return {TopicPartition(topic, index): point for index, point in sorted(before.items())}
    chosen = range(count) if partitions is None else sorted(set(partitions))
    return {TopicPartition(topic, index): before for index in chosen}


async def offsets_of(
    session: ClientSession, wanted: Mapping[TopicPartition, TrimPoint], timeout_ms: int
) -> dict[TopicPartition, int]:
    """The offset that each point means now. Raises as `list_offsets`."""
    ask: dict[TopicPartition, Literal["latest"] | Timestamp] = {}
    for partition, point in wanted.items():
        if not isinstance(point, int):
            ask[partition] = "latest" if point == "everything" else point
    found = await list_offsets(session, ask, "read_uncommitted", timeout_ms) if ask else {}
    return {p: point if isinstance(point, int) else found[p].offset for p, point in wanted.items()}


async def trim(
    session: ClientSession, wanted: Mapping[TopicPartition, TrimPoint], timeout_ms: int
) -> dict[TopicPartition, TrimmedPartition]:
    """Trim; each partition has its own result, in the order of `wanted`. What is raised came before anything was done.

    A topic that is deleted meanwhile is UNKNOWN_TOPIC, also where there is another one of its name by then.
    """
    deadline = session.clock.monotonic_ms() + timeout_ms
    topic_ids = {}
    for topic in dict.fromkeys(partition.topic for partition in wanted):
        topic_ids[topic] = (await session.metadata.topic(topic, timeout_ms)).topic_id
    by_leader(session, wanted)  # every partition exists, or nothing is done
    trimming = _Trimming(session, topic_ids, await offsets_of(session, wanted, timeout_ms))
    backoff = Backoff(session.rng)
    while True:
        left_ms = deadline - session.clock.monotonic_ms()
        if left_ms <= 0:
            trimming.give_up(timeout_ms)
        if not trimming.missing():
            return {partition: trimming.done[partition] for partition in wanted}
        await trimming.attempt(int(left_ms))
        if trimming.missing():
            await session.clock.sleep_ms(min(max(0, deadline - session.clock.monotonic_ms()), backoff.next_ms()))
            await refresh_leaders(session, deadline - session.clock.monotonic_ms())
            trimming.end_deleted()


class _Trimming:
    """What is done and what is left."""

    def __init__(
        self, session: ClientSession, topic_ids: Mapping[str, bytes], offsets: Mapping[TopicPartition, int]
    ) -> None:
        self._session = session
        self._topic_ids = topic_ids
        self._offsets = offsets
        self._unknown: set[TopicPartition] = set()
        """Some attempt may have had its effect."""
        self._last: dict[TopicPartition, PenstockError] = {}
        self.done: dict[TopicPartition, TrimmedPartition] = {}

    def missing(self) -> list[TopicPartition]:
        """Those without a result."""
        return [partition for partition in self._offsets if partition not in self.done]

    def give_up(self, timeout_ms: int) -> None:
        """Time is up."""
        for partition in self.missing():
            last = self._last.get(partition)
            text = f"{partition.partition} of {partition.topic!r} is not trimmed within {timeout_ms} ms; last: "
            text += str(last or "no leader is known")
            if partition in self._unknown:
                error: PenstockError = OutcomeUnknownError(Reason.OUTCOME_UNKNOWN, text)
            else:
                error = RequestTimeoutError(Reason.LEADER_NOT_AVAILABLE, text)
            self.done[partition] = TrimmedPartition(*partition, None, error)

    def end_deleted(self) -> None:
        """Give up those whose topic is gone."""
        for partition in self.missing():
            if self._session.metadata.catalog.topic_of(self._topic_ids[partition.topic]) is None:
                error = UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {partition.topic!r} was deleted meanwhile")
                self.done[partition] = TrimmedPartition(*partition, None, error)

    async def attempt(self, left_ms: int) -> None:
        """Ask each leader once."""
        groups = by_leader(self._session, self.missing())
        await asyncio.gather(*(self._ask(address, group, left_ms) for address, group in groups.items()))

    async def _ask(self, address: str, group: Sequence[Led], left_ms: int) -> None:
        timeout_ms = max(1, min(left_ms, ATTEMPT_TIMEOUT_MS))
        request = pb.TrimPartitionsRequest(
            partitions=[
                pb.PartitionTrim(
                    topic_id=led.topic_id,
                    partition=led.partition.partition,
                    before_offset=self._offsets[led.partition],
                    leader_epoch=led.leader_epoch,
                )
                for led in group
            ]
        )
        request.timeout.FromMilliseconds(max(timeout_ms - ANSWER_MS, (timeout_ms + 1) // 2))
        try:
            answer = await self._session.caller.once(
                lambda c: c.topics.TrimPartitions, request, pb.TrimPartitionsResponse, address, timeout_ms, write=True
            )
        except PenstockError as error:
            for led in group:
                self._failed(led, error)
            return
        for led, result in zip(group, answer.results, strict=True):
            if result.HasField("error"):
                self._failed(led, error_of(result.error))
            else:
                self.done[led.partition] = TrimmedPartition(*led.partition, result.log_start_offset)

    def _failed(self, led: Led, error: PenstockError) -> None:
        """Take a refusal as the end of it, or try again: what is retriable, and what is unknown, for it is harmless."""
        partition, catalog = led.partition, self._session.metadata.catalog
        catalog.learn_leader(led.topic_id, partition.partition, error.metadata)
        self._last[partition] = error
        if is_unknown(error):
            self._unknown.add(partition)
        gone = error.reason in {Reason.UNKNOWN_TOPIC, Reason.UNKNOWN_PARTITION}
        if not (is_retriable(error) or is_unknown(error) or gone):  # gone: this node may be behind; see end_deleted
            self.done[partition] = TrimmedPartition(*partition, None, error)
