"""What can go wrong in storage. Messages of the errors that stop a start say what to do."""


class StorageError(Exception):
    """Base of all errors of the store."""


class NotFormattedError(StorageError):
    """The directory holds no store."""


class ForeignStoreError(StorageError):
    """The store belongs to another cluster or node."""


class NewerFormatError(StorageError):
    """The store was written by a newer version."""


class OlderFormatError(StorageError):
    """The store was written by an older version, in a form that is not read any more."""


class StoreLockedError(StorageError):
    """Another process has the store open."""


class DamagedStoreError(StorageError):
    """The store's content contradicts itself or its checksums."""


class OffsetBelowStartError(StorageError):
    """The offset is below the log start."""


class OffsetAboveEndError(StorageError):
    """The offset is above the log end."""


class StaleEpochError(StorageError):
    """The write is of an earlier leader epoch than the log has acted in."""


class StaleCompactionError(StorageError):
    """The log is no longer what the compaction has read."""


class AppendFailedError(StorageError):
    """The batches do not continue the log, or writes before them failed."""


class LogDroppedError(StorageError):
    """The log was deleted."""


class CommitFailedError(StorageError):
    """The disk failed a commit: what is durable is unknown, and the process must end."""


class StoreFullError(StorageError):
    """The store has reached its limit; appends are refused until there is room."""
