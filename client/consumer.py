"""The asyncio consumer without a group (signatures first; the body follows)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self, TypedDict, Unpack

from penstock.client.records import Isolation, Position, Record, TopicPartition
from penstock.v1 import record_pb2 as pb


class ConsumerOptions(TypedDict, total=False):
    """Keyword arguments of Consumer."""

    isolation: Isolation
    auto_offset_reset: Literal["earliest", "latest", "error"]
    on_divergence: Literal["error", "continue"]
    check_crc: bool
    prefetch_bytes: int
    max_response_bytes: int
    request_timeout_ms: int


class FetchedBatch:
    """A batch as it was fetched; `records` is parsed when it is asked for."""

    topic: str
    partition: int
    base_offset: int
    last_offset: int
    leader_epoch: int
    append_time_ms: int
    record_count: int

    @property
    def records(self) -> Sequence[pb.Record]:
        """The batch's records, from the position on: offset = base_offset + offset_delta."""
        raise NotImplementedError


class Consumer:
    """Reads partitions of its own choice."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ConsumerOptions]) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    async def assign(
        self, partitions: Iterable[TopicPartition] | Mapping[TopicPartition, Position], start: Position = "latest"
    ) -> None:
        """Read these partitions and no others."""
        raise NotImplementedError

    async def assign_topics(self, topics: Iterable[str], start: Position = "latest") -> None:
        """Read all partitions of these topics and no others."""
        raise NotImplementedError

    def assignment(self) -> tuple[TopicPartition, ...]:
        """The partitions being read."""
        raise NotImplementedError

    async def seek(self, partition: TopicPartition, to: Position) -> None:
        """Read this partition from elsewhere."""
        raise NotImplementedError

    def pause(self, *partitions: TopicPartition) -> None:
        """Stop giving records of these."""
        raise NotImplementedError

    def resume(self, *partitions: TopicPartition) -> None:
        """Go on giving records of these."""
        raise NotImplementedError

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be given out."""
        raise NotImplementedError

    async def poll(self, max_records: int = 500, timeout: float = 1.0) -> list[Record]:
        """Give out what is there, at least one record if one comes within `timeout` seconds."""
        raise NotImplementedError

    async def poll_batches(self, max_batches: int = 100, timeout: float = 1.0) -> list[FetchedBatch]:
        """Like poll, by whole batches: the fastest way."""
        raise NotImplementedError

    def __aiter__(self) -> Self:
        raise NotImplementedError

    async def __anext__(self) -> Record:
        raise NotImplementedError

    async def earliest_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Log start offsets."""
        raise NotImplementedError

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset after the last record a reader of this isolation sees."""
        raise NotImplementedError

    async def lag(self) -> dict[TopicPartition, int]:
        """Records between the position and the end, asked of the leaders."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop reading."""
        raise NotImplementedError
