"""The asyncio producer (signatures first; the body follows)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, Self, TypeAlias, TypedDict, Unpack

from penstock.client.records import BatchDelivery, Delivery, Headers, NewRecord
from penstock.protocol.errors import PenstockError

OnDelivery: TypeAlias = Callable[[Delivery | None, PenstockError | None], None]
OnBatch: TypeAlias = Callable[[BatchDelivery], None]


class ProducerOptions(TypedDict, total=False):
    """Keyword arguments of Producer."""

    acks: Literal["none", "leader", "all"]
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    linger_ms: float
    batch_bytes: int
    buffer_bytes: int
    max_in_flight: int
    idempotence: bool
    delivery_timeout_ms: int
    request_timeout_ms: int
    on_batch: OnBatch | None


class Producer:
    """Appends records."""

    def __init__(self, bootstrap: str | Sequence[str], **options: Unpack[ProducerOptions]) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    async def send(  # noqa: PLR0913 - the fields of a record, by keyword
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> "asyncio.Future[Delivery]":
        """Wait for memory only; the future gives the delivery, or raises PenstockError."""
        raise NotImplementedError

    def send_nowait(  # noqa: PLR0913 - the fields of a record, by keyword
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
        partition: int | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Raise BufferFullError when the memory is full; see wait_for_room."""
        raise NotImplementedError

    async def wait_for_room(self) -> None:
        """Wait until send_nowait has memory again."""
        raise NotImplementedError

    async def append(
        self,
        topic: str,
        partition: int,
        records: Sequence[NewRecord],
        *,
        expected_offset: int | None = None,
        timeout: float = 30.0,
    ) -> list[Delivery]:
        """Append at once, past the batching; ExpectedOffsetMismatchError where the log end is elsewhere."""
        raise NotImplementedError

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent before is acknowledged or failed; raises the first failure nobody was told of."""
        raise NotImplementedError

    async def close(self, timeout: float = 30.0) -> None:
        """Flush within `timeout` seconds; what is not acknowledged by then is reported to its future or callback."""
        raise NotImplementedError
