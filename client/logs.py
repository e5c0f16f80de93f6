"""Asks nodes, each by itself, which logs they have."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from penstock.client.descriptions import BrokerDescription, BrokerLogs, ClusterDescription, LogDescription
from penstock.client.errors import InvalidRequestError, UnknownTopicError
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import cluster_service_pb2 as pb

PAGE_SIZE = 1_000
PAGE_TIMEOUT_MS = 5_000
"""A node that takes longer for a page counts as not answering."""


@dataclass(frozen=True, slots=True)
class LogSelection:
    """Which nodes are asked for which logs."""

    brokers: tuple[BrokerDescription, ...]
    names: Mapping[bytes, str]
    """Of all topics, by id."""
    topic_ids: frozenset[bytes] | None
    """The logs of these only."""
    strays_only: bool

    @classmethod
    def of(
        cls,
        cluster: ClusterDescription,
        node_ids: Iterable[int] | None,
        topics: Iterable[str] | None,
        *,
        strays_only: bool,
    ) -> Self:
        """None: all. Raises InvalidRequestError where no node has an id, UnknownTopicError."""
        known = {broker.node_id: broker for broker in cluster.brokers}
        chosen = sorted(known) if node_ids is None else sorted(set(node_ids))
        if absent := [node_id for node_id in chosen if node_id not in known]:
            text = f"no node {absent[0]} is registered; there are {sorted(known)}"
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, text)
        names = {topic.topic_id: topic.name for topic in cluster.topics}
        wanted = None if topics is None else _ids(names, topics)
        return cls(tuple(known[node_id] for node_id in chosen), names, wanted, strays_only)


def _ids(names: Mapping[bytes, str], topics: Iterable[str]) -> frozenset[bytes]:
    ids = {name: topic_id for topic_id, name in names.items()}
    for name in (wanted := list(topics)):
        if name not in ids:
            raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {name!r} does not exist", {"topic": name})
    return frozenset(ids[name] for name in wanted)


async def list_logs(session: ClientSession, selection: LogSelection, timeout_ms: int) -> list[BrokerLogs]:
    """Ask all at once; by node."""
    if selection.topic_ids is not None and not selection.topic_ids:  # none named would mean all
        return [BrokerLogs(broker.node_id, ()) for broker in selection.brokers]
    asked = (_of_one(session, broker, selection, timeout_ms) for broker in selection.brokers)
    return list(await asyncio.gather(*asked))


async def _of_one(
    session: ClientSession, broker: BrokerDescription, selection: LogSelection, timeout_ms: int
) -> BrokerLogs:
    request = pb.ListLogsRequest(
        page_size=PAGE_SIZE, topic_ids=sorted(selection.topic_ids or ()), strays_only=selection.strays_only
    )
    logs: list[LogDescription] = []
    while True:
        try:
            answer = await session.caller.once(
                lambda c: c.cluster.ListLogs,
                request,
                pb.ListLogsResponse,
                f"{broker.host}:{broker.port}",
                min(timeout_ms, PAGE_TIMEOUT_MS),
            )
        except PenstockError as error:
            return BrokerLogs(broker.node_id, (), error)
        logs += [_described(answer.node_id, info, selection.names) for info in answer.logs]
        request.page_token = answer.next_page_token
        if not request.page_token:
            return BrokerLogs(broker.node_id, tuple(logs))


def _described(node_id: int, info: pb.LogInfo, names: Mapping[bytes, str]) -> LogDescription:
    return LogDescription(
        node_id=node_id,
        topic_id=info.topic_id,
        topic=names.get(info.topic_id),
        partition=info.partition,
        log_start_offset=info.log_start_offset,
        log_end_offset=info.log_end_offset,
        high_watermark=info.high_watermark,
        size_bytes=info.size_bytes,
        record_count=info.record_count,
        leader=info.leader,
        stray=info.stray,
        cleaned_offset=info.cleaned_offset,
        dirty_bytes=info.dirty_bytes,
    )
