"""All kinds of anomalies, and all that is allowed, in the order of the report. The one place where a kind joins."""

from penstock.chaos.checker.anomaly import Allowance, Check
from penstock.chaos.checker.changes import StaleMetadataRead
from penstock.chaos.checker.data import Duplicate, FailedButPresent, InconsistentOffsets, Invented, RepeatedSend
from penstock.chaos.checker.elections import ElectionSafety, MetadataBack, MetadataDivergence
from penstock.chaos.checker.epochs import EpochBack, EpochMismatch
from penstock.chaos.checker.group_offsets import CommitRegressed, CommitSkip, GroupLost
from penstock.chaos.checker.groups import DualOwner, GenerationBack, GroupStalled, ReleasedTooSoon, ZombieCommit
from penstock.chaos.checker.keys import LostLatest, Resurrected
from penstock.chaos.checker.missing import (
    AckedPastFinalLog,
    Compacted,
    Dropped,
    FinalReadingsDiffer,
    LostWrite,
    UnexplainedGap,
    Unseen,
)
from penstock.chaos.checker.polling import (
    BrokenRead,
    NonmonotonicPoll,
    PollSkip,
    PositionError,
    ResetOnAssignment,
)
from penstock.chaos.checker.sending import IntSendSkip, NonmonotonicSend, SendSkip
from penstock.chaos.checker.starts import DroppedUnasked, LogStartBack
from penstock.chaos.checker.torn import TornAppend
from penstock.chaos.checker.watermarks import (
    HighWatermarkBack,
    LeaderIncomplete,
    ReadPastEnd,
    StableAboveHighWatermark,
    StableOffsetBack,
)

CHECKS: tuple[type[Check], ...] = (
    LostWrite,
    Unseen,
    AckedPastFinalLog,
    InconsistentOffsets,
    Duplicate,
    FailedButPresent,
    Invented,
    TornAppend,
    FinalReadingsDiffer,
    LostLatest,
    Resurrected,
    LogStartBack,
    DroppedUnasked,
    EpochMismatch,
    EpochBack,
    BrokenRead,
    PollSkip,
    NonmonotonicPoll,
    PositionError,
    ResetOnAssignment,
    SendSkip,
    NonmonotonicSend,
    HighWatermarkBack,
    StableOffsetBack,
    StableAboveHighWatermark,
    ReadPastEnd,
    LeaderIncomplete,
    ElectionSafety,
    MetadataDivergence,
    MetadataBack,
    StaleMetadataRead,
    DualOwner,
    ReleasedTooSoon,
    ZombieCommit,
    CommitSkip,
    CommitRegressed,
    GroupLost,
    GroupStalled,
    GenerationBack,
)
ALLOWANCES: tuple[type[Allowance], ...] = (IntSendSkip, RepeatedSend, UnexplainedGap, Dropped, Compacted)
KINDS: tuple[str, ...] = tuple(check.kind for check in CHECKS)
