"""Finds offsets by position or time, each at the leader of its partition."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from penstock.client.descriptions import PartitionOffset
from penstock.client.errors import (
    RequestTimeoutError,
    UnknownPartitionError,
    error_of,
    is_retriable,
)
from penstock.client.options import ISOLATIONS
from penstock.client.records import Timestamp, TopicPartition
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import consumer_service_pb2 as pb

ATTEMPT_TIMEOUT_MS = 5_000


class Led(NamedTuple):
    """A partition, and the leadership of it that is known."""

    partition: TopicPartition
    topic_id: bytes
    leader_epoch: int


class Answer(NamedTuple):
    """What leaders said."""

    found: dict[TopicPartition, PartitionOffset]
    passing: PenstockError | None
    """Why something was not found that may be found later; the last reason."""
    final: PenstockError | None
    """Why something will not be found."""


async def list_offsets(
    session: ClientSession,
    wanted: Mapping[TopicPartition, Literal["earliest", "latest"] | Timestamp],
    isolation: str,
    timeout_ms: int,
) -> dict[TopicPartition, PartitionOffset]:
    """Answer all of `wanted`, following leaders, or raise: RequestTimeoutError, UnknownTopicError, ..."""
    deadline = session.clock.monotonic_ms() + timeout_ms
    for topic in dict.fromkeys(partition.topic for partition in wanted):
        await session.metadata.topic(topic, timeout_ms)
    found: dict[TopicPartition, PartitionOffset] = {}
    backoff = Backoff(session.rng)
    last: PenstockError | None = None
    while True:
        missing = {partition: position for partition, position in wanted.items() if partition not in found}
        answer = await ask_leaders(session, missing, isolation)
        if answer.final is not None:
            raise answer.final
        found |= answer.found
        last = answer.passing or last
        if len(found) == len(wanted):
            return found
        left_ms = deadline - session.clock.monotonic_ms()
        if left_ms <= 0:
            message = f"offsets not found within {timeout_ms} ms; last: {last or 'no leader is known'}"
            raise RequestTimeoutError(Reason.LEADER_NOT_AVAILABLE, message)
        await session.clock.sleep_ms(min(left_ms, backoff.next_ms()))
        if not by_leader(session, missing) or last is not None:
            await refresh_leaders(session, left_ms)


async def ask_leaders(
    session: ClientSession, wanted: Mapping[TopicPartition, Literal["earliest", "latest"] | Timestamp], isolation: str
) -> Answer:
    """Ask all leaders that are known, each once. Topics that are not known are left out. Raises UnknownPartitionError.

    No partition, and no leader, keeps the answers of others from being given.
    """
    rounds = [
        _ask(session, address, [(led.partition, _query(led, wanted[led.partition])) for led in group], isolation)
        for address, group in by_leader(session, wanted).items()
    ]
    whole = Answer({}, None, None)
    for answer in await asyncio.gather(*rounds):
        whole = Answer(whole.found | answer.found, answer.passing or whole.passing, whole.final or answer.final)
    return whole


async def refresh_leaders(session: ClientSession, left_ms: float) -> None:
    """Ask for the metadata anew, if a broker answers."""
    try:
        await session.metadata.refresh(max(1, int(left_ms)))
    except PenstockError as error:
        if not is_retriable(error):
            raise


def by_leader(session: ClientSession, partitions: Iterable[TopicPartition]) -> dict[str, list[Led]]:
    """Group by the leaders' addresses, as far as they are known. Raises UnknownPartitionError."""
    catalog = session.metadata.catalog
    groups: dict[str, list[Led]] = {}
    for partition in partitions:
        topic = catalog.topics.get(partition.topic)
        if topic is None:
            continue
        if not 0 <= partition.partition < len(topic.partitions):
            raise UnknownPartitionError(
                Reason.UNKNOWN_PARTITION,
                f"topic {topic.name!r} has {len(topic.partitions)} partitions, not {partition.partition}",
                {"topic": topic.name, "partition": str(partition.partition)},
            )
        leadership = topic.partitions[partition.partition]
        address = catalog.leader_address(leadership)
        if address is not None:
            groups.setdefault(address, []).append(Led(partition, topic.topic_id, leadership.leader_epoch))
    return groups


def _query(led: Led, position: Literal["earliest", "latest"] | Timestamp) -> pb.OffsetQuery:
    query = pb.OffsetQuery(topic_id=led.topic_id, partition=led.partition.partition, leader_epoch=led.leader_epoch)
    if isinstance(position, Timestamp):
        query.timestamp_ms = position.ms
    elif position == "earliest":
        query.earliest.SetInParent()
    else:
        query.latest.SetInParent()
    return query


async def _ask(
    session: ClientSession, address: str, group: list[tuple[TopicPartition, pb.OffsetQuery]], isolation: str
) -> Answer:
    """Ask one leader."""
    request = pb.ListOffsetsRequest(queries=[query for _, query in group], isolation=ISOLATIONS[isolation])
    try:
        answer = await session.caller.once(
            lambda c: c.consumer.ListOffsets, request, pb.ListOffsetsResponse, address, ATTEMPT_TIMEOUT_MS
        )
    except PenstockError as error:
        return Answer({}, error, None) if is_retriable(error) else Answer({}, None, error)
    found: dict[TopicPartition, PartitionOffset] = {}
    passing: PenstockError | None = None
    final: PenstockError | None = None
    for (partition, query), result in zip(group, answer.results, strict=True):
        if result.HasField("found"):
            stamp = result.found.timestamp_ms if result.found.HasField("timestamp_ms") else None
            found[partition] = PartitionOffset(*partition, result.found.offset, stamp, result.found.leader_epoch)
            continue
        why = error_of(result.error)
        session.metadata.catalog.learn_leader(query.topic_id, query.partition, why.metadata)
        gone = why.reason in {Reason.UNKNOWN_TOPIC, Reason.UNKNOWN_PARTITION}
        if is_retriable(why) or (gone and session.metadata.catalog.topic_of(query.topic_id) is not None):
            passing = why
        else:
            final = why
    return Answer(found, passing, final)
