"""The log of one node: batches, epochs, producers and times of all its partitions, in one LMDB environment.

`Store` opens it, `Log` reads one partition, `Writer` group-commits writes; see ARCHITECTURE.md.
"""

from penstock.storage.commit import Committer
from penstock.storage.copying import Figures, check_room, compact, figures
from penstock.storage.env import StoreOptions
from penstock.storage.errors import (
    AppendFailedError,
    CommitFailedError,
    DamagedStoreError,
    ForeignStoreError,
    LogDroppedError,
    NewerFormatError,
    NotFormattedError,
    OffsetAboveEndError,
    OffsetBelowStartError,
    OlderFormatError,
    StaleCompactionError,
    StaleEpochError,
    StorageError,
    StoreFullError,
    StoreLockedError,
)
from penstock.storage.log import Log
from penstock.storage.store import Store
from penstock.storage.types import (
    BatchSummary,
    EpochEnd,
    EpochStart,
    LogBatch,
    LogState,
    PartitionKey,
    ReplicaSeed,
    StoreIdentity,
)
from penstock.storage.writer import Writer
from penstock.storage.writes import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    Compact,
    CreateLog,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    MoveStart,
    Outcome,
    RecordStart,
    ResetLog,
    Truncate,
    Write,
)

__all__ = [
    "ActIn",
    "Append",
    "AppendFailedError",
    "BatchSummary",
    "CheckpointHighWatermark",
    "CommitFailedError",
    "Compact",
    "Committer",
    "CreateLog",
    "DamagedStoreError",
    "DropLog",
    "EpochEnd",
    "EpochStart",
    "ExpireProducers",
    "Figures",
    "ForeignStoreError",
    "ForgetStarts",
    "Log",
    "LogBatch",
    "LogDroppedError",
    "LogState",
    "MoveStart",
    "NewerFormatError",
    "NotFormattedError",
    "OffsetAboveEndError",
    "OffsetBelowStartError",
    "OlderFormatError",
    "Outcome",
    "PartitionKey",
    "RecordStart",
    "ReplicaSeed",
    "ResetLog",
    "StaleCompactionError",
    "StaleEpochError",
    "StorageError",
    "Store",
    "StoreFullError",
    "StoreIdentity",
    "StoreLockedError",
    "StoreOptions",
    "Truncate",
    "Write",
    "Writer",
    "check_room",
    "compact",
    "figures",
]
