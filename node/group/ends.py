"""How far the partitions that groups read are known to go: what a commit may not exceed.

A log's end only grows (but by an unclean election), so what was heard once stays true. Loop thread only.
"""

from collections.abc import Awaitable, Callable, Sequence

from penstock.node.clock import monotonic_ms
from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupPartition
from penstock.v1 import consumer_service_pb2

ASK_TIMEOUT_S = 1.0
"""A leader that does not answer by then is not waited for: the commit is taken as it is."""
SILENT_MS = 5_000
"""So long one whose leader did not answer is not asked about again."""
REMEMBERED = 100_000
"""Partitions whose end is remembered."""

Found = consumer_service_pb2.FoundOffset | PenstockError
Find = Callable[[Sequence[consumer_service_pb2.OffsetQuery], float], Awaitable[list[Found]]]


class KnownEnds:
    """`local`: the high watermark of this node's replica, 0 where it has none. `find`: asks the leaders."""

    def __init__(self, local: Callable[[GroupPartition], int], find: Find) -> None:
        self._local = local
        self._find = find
        self._heard: dict[GroupPartition, int] = {}
        self._silent: dict[GroupPartition, int] = {}

    def known(self, partition: GroupPartition) -> int:
        """An offset that the high watermark has reached."""
        return max(self._local(partition), self._heard.get(partition, 0))

    async def ask(self, partitions: Sequence[GroupPartition]) -> dict[GroupPartition, int]:
        """The high watermarks of those whose leader answers."""
        now_ms = monotonic_ms()
        asked = [partition for partition in partitions if self._silent.get(partition, 0) <= now_ms]
        if not asked:
            return {}
        found = await self._find([end_query(partition) for partition in asked], ASK_TIMEOUT_S)
        answered = {}
        for partition, answer in zip(asked, found, strict=True):
            if isinstance(answer, PenstockError):
                _remember(self._silent, partition, now_ms + SILENT_MS)
                continue
            self._silent.pop(partition, None)
            answered[partition] = answer.offset
            _remember(self._heard, partition, answer.offset)
        return answered


def end_query(partition: GroupPartition) -> consumer_service_pb2.OffsetQuery:
    """Ask for the high watermark."""
    latest = consumer_service_pb2.LatestOffset()
    return consumer_service_pb2.OffsetQuery(topic_id=partition.topic_id, partition=partition.partition, latest=latest)


def _remember(known: dict[GroupPartition, int], partition: GroupPartition, number: int) -> None:
    known.pop(partition, None)
    known[partition] = number
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
