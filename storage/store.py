"""The store of one node: its identity, its logs, and what its writer keeps in memory of them."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from penstock.storage import layout
from penstock.storage.env import Environment, StoreOptions, check_identity, format_directory, read_identity
from penstock.storage.layout import LogRow
from penstock.storage.log import Log
from penstock.storage.producers import ProducerState
from penstock.storage.room import Room
from penstock.storage.types import PartitionKey, StoreIdentity

START_ID_BYTES = 16


class Store:
    """An open store. Reads go through its logs, from any thread; all else belongs to the one that commits."""

    def __init__(self, environment: Environment, identity: StoreIdentity) -> None:
        self.environment = environment
        self.identity = identity
        self.room = Room(environment)
        self.next_id = 0
        self.recorded_starts: tuple[bytes, ...] = ()
        self.garbage: dict[int, int] = {}  # data id -> offset below which its batches are to be deleted
        self.producer_cache: OrderedDict[tuple[int, int], ProducerState | None] = OrderedDict()
        self.expiry_position = b""
        self._logs: dict[PartitionKey, Log] = {}
        self._rows: dict[int, LogRow] = {}  # by local id
        self._locals: dict[int, int] = {}  # local id by data id
        self._live_bytes = 0
        self._load()

    @classmethod
    def format(cls, path: Path, *, cluster_id: str, node_id: int) -> StoreIdentity:
        """Make a new, empty store. Raises StorageError where the directory is not empty."""
        return format_directory(path, cluster_id, node_id)

    @classmethod
    def open(
        cls,
        path: Path,
        options: StoreOptions | None = None,
        *,
        cluster_id: str | None = None,
        node_id: int | None = None,
    ) -> "Store":
        """Open a store, which must be that of `cluster_id` and `node_id` where they are given.

        Raises NotFormattedError, StoreLockedError, NewerFormatError, ForeignStoreError, DamagedStoreError.
        """
        environment = Environment(path, options or StoreOptions())
        try:
            identity = read_identity(environment)
            check_identity(environment, identity, cluster_id, node_id)
            return cls(environment, identity)
        except BaseException:
            environment.close()
            raise

    def close(self) -> None:
        """Close the environment; no log may be used afterwards."""
        self.environment.close()

    @property
    def durability(self) -> str:
        """Level of every commit: commit, interval or os."""
        return self.environment.options.durability

    def start_ids(self) -> tuple[bytes, ...]:
        """Start ids since the last answered registration, the present one last (rule 27)."""
        return self.recorded_starts

    def log(self, key: PartitionKey) -> Log | None:
        """The log of a partition, where there is one."""
        return self._logs.get(key)

    def logs(self) -> list[Log]:
        """All logs, those included that no topic claims any more."""
        return list(self._logs.values())

    # ---- for the committer

    def _load(self) -> None:
        db = self.environment.db
        with self.environment.begin() as txn:
            next_id = txn.get(b"next_id", db=db["store"])
            self.next_id = layout.LOCAL.unpack(next_id)[0] if next_id is not None else 1
            starts = bytes(txn.get(b"start_ids", db=db["store"], default=b""))
            self.recorded_starts = tuple(
                starts[at : at + START_ID_BYTES] for at in range(0, len(starts), START_ID_BYTES)
            )
            for key, value in txn.cursor(db["partitions"]):
                local = layout.LOCAL.unpack(key)[0]
                row = layout.unpack_log(local, bytes(value))
                self.add(Log(self.environment, row.key, local, row.state))
                self.replace(local, row)
            for key, value in txn.cursor(db["garbage"]):
                self.garbage[layout.LOCAL.unpack(key)[0]] = layout.U64.unpack(value)[0]

    def row(self, local: int) -> LogRow | None:
        """The row of a log."""
        return self._rows.get(local)

    def row_of(self, local: int) -> LogRow:
        """The row of a log that exists."""
        return self._rows[local]

    def local_of(self, data: int) -> int | None:
        """Local id of the log that has this data id now."""
        return self._locals.get(data)

    def add(self, log: Log) -> None:
        """A log was created."""
        self._logs[log.key] = log

    def replace(self, local: int, row: LogRow) -> None:
        """A log's row was committed."""
        former = self._rows.get(local)
        if former is not None:
            self._live_bytes -= former.state.size_bytes
            if former.data != row.data:
                self._locals.pop(former.data, None)
        self._live_bytes += row.state.size_bytes
        self._rows[local] = row
        self._locals[row.data] = local
        self._logs[row.key].state = row.state
        self.room.count(self._live_bytes)

    def remove(self, log: Log) -> None:
        """A log was dropped."""
        if self._logs.get(log.key) is log:
            del self._logs[log.key]
        row = self._rows.pop(log.local, None)
        if row is not None:
            self._live_bytes -= row.state.size_bytes
            self._locals.pop(row.data, None)
            self.room.count(self._live_bytes)

    def remember_producers(self, changed: Mapping[tuple[int, int], ProducerState | None]) -> None:
        """Keep the latest producers in memory, within the cache's bound."""
        cache = self.producer_cache
        for key, state in changed.items():
            cache[key] = state
            cache.move_to_end(key)
        while len(cache) > self.environment.options.producer_cache:
            cache.popitem(last=False)
