"""The logs of this node as ListLogs shows them: sizes, bounds, how far they are compacted, and strays (rule 28)."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from penstock.node.api.paging import page
from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.storage import Log, LogDroppedError, PartitionKey
from penstock.v1 import cluster_service_pb2 as pb


class LogSource(Protocol):
    """Where the logs and replicas of this node are found."""

    def logs(self) -> Sequence[Log]:
        """All logs of the store."""
        ...

    def find(self, key: PartitionKey) -> Partition | None:
        """Return the replica of this node, or None."""
        ...


async def list_logs(node_id: int, source: LogSource, request: pb.ListLogsRequest) -> pb.ListLogsResponse:
    """Answer the call."""
    check_topic_ids(request.topic_ids)
    wanted = frozenset(request.topic_ids)
    logs = {
        _name(log.key): log
        for log in source.logs()
        if (not wanted or log.key.topic_id in wanted) and not (request.strays_only and source.find(log.key))
    }
    shown, token = page(sorted(logs), request.page_size, request.page_token)
    chosen = [logs[name] for name in shown]
    dirty = await asyncio.to_thread(lambda: [_dirty_bytes(log) for log in chosen])
    infos = [
        _info(log, source.find(log.key), dirty_bytes)
        for log, dirty_bytes in zip(chosen, dirty, strict=True)
        if dirty_bytes is not None
    ]
    return pb.ListLogsResponse(node_id=node_id, logs=infos, next_page_token=token)


def check_topic_ids(topic_ids: Iterable[bytes]) -> None:
    """Raise INVALID_ARGUMENT for what is no topic id."""
    for topic_id in topic_ids:
        if len(topic_id) != TOPIC_ID_BYTES:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"topic_id has {len(topic_id)} bytes, not {TOPIC_ID_BYTES}")


TOPIC_ID_BYTES = 16


def _name(key: PartitionKey) -> str:
    return f"{key.topic_id.hex()}-{key.partition:010}"


def _dirty_bytes(log: Log) -> int | None:
    """None: it was dropped meanwhile."""
    try:
        return log.dirty_bytes()
    except LogDroppedError:
        return None


def _info(log: Log, partition: Partition | None, dirty_bytes: int) -> pb.LogInfo:
    state = log.state
    return pb.LogInfo(
        topic_id=log.key.topic_id,
        partition=log.key.partition,
        log_start_offset=state.log_start_offset,
        log_end_offset=state.log_end_offset,
        high_watermark=state.high_watermark if partition is None else partition.high_watermark,
        size_bytes=state.size_bytes,
        record_count=state.record_count,
        leader=partition is not None and partition.is_leader,
        stray=partition is None,
        cleaned_offset=state.cleaned_offset,
        dirty_bytes=dirty_bytes,
    )
