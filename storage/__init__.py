"""The log of one node: batches, epochs, producers and times of all its partitions, in one LMDB environment.

`Store` opens it, `Log` reads one partition, `Writer` group-commits writes; see ARCHITECTURE.md.
"""

from penstock.storage.errors import (
    AppendFailedError,
    DamagedStoreError,
    ForeignStoreError,
    NewerFormatError,
    NotFormattedError,
    OffsetAboveEndError,
    OffsetBelowStartError,
    StaleEpochError,
    StorageError,
    StoreFullError,
    StoreLockedError,
)
from penstock.storage.types import EpochEnd, LogBatch, LogState, PartitionKey, ReplicaSeed, StoreIdentity

__all__ = [
    "AppendFailedError",
    "DamagedStoreError",
    "EpochEnd",
    "ForeignStoreError",
    "LogBatch",
    "LogState",
    "NewerFormatError",
    "NotFormattedError",
    "OffsetAboveEndError",
    "OffsetBelowStartError",
    "PartitionKey",
    "ReplicaSeed",
    "StaleEpochError",
    "StorageError",
    "StoreFullError",
    "StoreIdentity",
    "StoreLockedError",
]
