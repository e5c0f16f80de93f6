"""One replica of one partition as the API sees it. Signatures first; the body follows."""

from collections.abc import Callable
from typing import NamedTuple

from penstock.protocol.batch import BatchHeader
from penstock.protocol.errors import PenstockError


class AppendRequest(NamedTuple):
    """One batch to append. `acks` is v1.Acks; `now_ms` wall time; `deadline_ms` monotonic, then OUTCOME_UNKNOWN."""

    header: BatchHeader
    payload: bytes
    acks: int
    now_ms: int
    deadline_ms: int
    expected_offset: int | None = None
    leader_epoch: int | None = None


class AppendResult(NamedTuple):
    """What is answered for an appended batch; `durability` is v1.Durability."""

    base_offset: int
    leader_epoch: int
    append_time_ms: int
    log_start_offset: int
    durability: int
    duplicate: bool


Done = Callable[[AppendResult | PenstockError], None]


class ReadRequest(NamedTuple):
    """Where a consumer reads. Epochs as in v1.ConsumePosition."""

    offset: int
    max_bytes: int
    isolation: int
    leader_epoch: int | None = None
    last_fetched_epoch: int | None = None


class FoundOffset(NamedTuple):
    """Answer of ListOffsets."""

    offset: int
    timestamp_ms: int | None
    leader_epoch: int


class Partition:
    """Loop thread only. Raises PenstockError for refusals (NOT_LEADER with `leader` and `leader_epoch` in metadata)."""

    # key: PartitionKey; role: Role; leader: int (-1 none); leader_epoch: int; is_leader: bool
    # high_watermark, last_stable_offset, log_start_offset, log_end_offset: int

    def append(self, request: AppendRequest, done: Done) -> None:
        """Append; `done` is called once, perhaps before this returns: when acks are met, or it failed."""
        raise NotImplementedError

    async def read(self, request: ReadRequest) -> "list[LogBatch]":  # noqa: F821
        """Batches below the high watermark from the one that holds `offset` on; [] where none are there yet.

        The tail cache answers without leaving the loop; a cold read runs in a thread.
        """
        raise NotImplementedError

    def earliest(self, leader_epoch: int | None) -> FoundOffset:
        """Log start."""
        raise NotImplementedError

    def latest(self, leader_epoch: int | None, isolation: int) -> FoundOffset:
        """Log end for consumers; LEADER_NOT_AVAILABLE until it is known (rule 12): wait for on_progress, ask again."""
        raise NotImplementedError

    async def find_timestamp(self, timestamp_ms: int, leader_epoch: int | None, isolation: int) -> FoundOffset:
        """First record at or after a time, else as `latest`."""
        raise NotImplementedError

    def on_progress(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` (on the loop) when HW, log start or role changed; returns the way to end it."""
        raise NotImplementedError
