"""The writes that a store performs, in order, group-committed; and their outcomes."""

from dataclasses import dataclass
from typing import NamedTuple

from penstock.storage.errors import StorageError
from penstock.storage.log import Log
from penstock.storage.types import LogBatch, PartitionKey, ReplicaSeed


@dataclass(frozen=True, slots=True)
class CreateLog:
    """Create the log of a partition, empty; its Log is in the outcome. An existing one is left as it is."""

    key: PartitionKey


class Append(NamedTuple):  # not a dataclass: the hot path makes many
    """Append batches that continue the log, none of an epoch above `leader_epoch`. Fails as a whole.

    Like Truncate and ResetLog it fails, too, where a write to the log before it in the same commit failed.
    """

    log: Log
    leader_epoch: int
    batches: tuple[LogBatch, ...]


@dataclass(frozen=True, slots=True)
class Truncate:
    """Drop everything from `end_offset` on, which must be a batch boundary, and all that it changed (rule 13)."""

    log: Log
    leader_epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class ResetLog:
    """Drop the log's content and start anew at the seed's offset."""

    log: Log
    leader_epoch: int
    seed: ReplicaSeed


@dataclass(frozen=True, slots=True)
class MoveStart:
    """Let the log begin at `log_start_offset`; what is below is refused now, and whole batches of it deleted later."""

    log: Log
    leader_epoch: int
    log_start_offset: int


@dataclass(frozen=True, slots=True)
class Compact:
    """Put `rows` in the place of the batches of [start, end), as compaction has read them; see storage.compaction.

    Fails with StaleCompactionError, and changes nothing, where the log is no longer what was read: begun later, reset,
    cut below the high watermark, or compacted by another. It may be far behind and be applied at any time.
    """

    log: Log
    content: tuple[int, int]
    """Data id and cuts of the log that was read (LogRow)."""
    start: int
    end: int
    replaced: tuple[tuple[int, int], ...]
    """Base offset and payload CRC of each batch that was read."""
    rows: tuple[tuple[int, bytes], ...]
    """Base offset and finished row of each batch that takes their place; they tile [start, end)."""
    tombstones_below: int = 0
    """Some of the tombstones that are left out are just below this."""
    cleaned_offset: int = 0
    """The log is compacted up to here once this is done; 0: not yet."""


@dataclass(frozen=True, slots=True)
class CheckpointHighWatermark:
    """Remember the high watermark. Never goes back."""

    log: Log
    high_watermark: int


@dataclass(frozen=True, slots=True)
class ActIn:
    """From now on the log acts in this leader epoch; writes of a lower one fail (rule 26). Other writes imply it."""

    log: Log
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class DropLog:
    """Delete a log; its data goes in the background."""

    key: PartitionKey


@dataclass(frozen=True, slots=True)
class RecordStart:
    """Make a start id durable, before it is sent (rule 27)."""

    start_id: bytes


@dataclass(frozen=True, slots=True)
class ForgetStarts:
    """A registration that carried `start_id` was answered: forget the ones before it."""

    start_id: bytes


@dataclass(frozen=True, slots=True)
class ExpireProducers:
    """Look at the next few producers of the store and forget those that were idle since `before_ms` (wall time)."""

    before_ms: int


Write = (
    CreateLog
    | Append
    | Truncate
    | ResetLog
    | MoveStart
    | Compact
    | CheckpointHighWatermark
    | ActIn
    | DropLog
    | RecordStart
    | ForgetStarts
    | ExpireProducers
)


class Outcome(NamedTuple):  # not a dataclass: the hot path makes many
    """What became of a write: durable as the store's level says, or failed without any effect."""

    write: Write
    log: Log | None
    error: StorageError | None
