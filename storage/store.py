"""The store of one node: its identity, its logs, and what its writer keeps in memory of them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import lmdb

from penstock.storage import layout
from penstock.storage.env import Environment, StoreOptions, check_identity, format_directory, read_identity
from penstock.storage.errors import DamagedStoreError
from penstock.storage.group import START_ID_BYTES
from penstock.storage.layout import LogRow
from penstock.storage.log import Log
from penstock.storage.producers import ProducerState
from penstock.storage.room import Room
from penstock.storage.rows import Rows
from penstock.storage.types import PartitionKey, StoreIdentity


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
        try:
            self._load()
        except lmdb.Error as error:
            raise layout.damaged(str(error)) from error

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

        Raises NotFormattedError, StoreLockedError, NewerFormatError, OlderFormatError, ForeignStoreError,
        DamagedStoreError.
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

    def on_damage(self, callback: Callable[[DamagedStoreError], None]) -> None:
        """Call back when a read of a log finds damage, on the thread that reads: the process must end."""
        self.environment.on_damage = callback

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
        """Read all that memory holds: work for each log, not for what is in it."""
        with self.environment.begin() as txn:
            rows = Rows(txn, self.environment.db)
            next_id, starts = rows.get("store", b"next_id"), rows.get("store", b"start_ids") or b""
            self.next_id = layout.LOCAL.unpack(next_id)[0] if next_id is not None else 1
            self.recorded_starts = tuple(
                starts[at : at + START_ID_BYTES] for at in range(0, len(starts), START_ID_BYTES)
            )
            for key, body in rows.all("partitions"):
                local, row = layout.LOCAL.unpack(key)[0], layout.unpack_log(body)
                self.add(Log(self.environment, row.key, local, row.state))
                self.replace(local, row)
            for key, body in rows.all("garbage"):
                self.garbage[layout.LOCAL.unpack(key)[0]] = layout.U64.unpack(body)[0]

    def row(self, local: int) -> LogRow | None:
        """The row of a log."""
        return self._rows.get(local)

    def add(self, log: Log) -> None:
        """A log was created."""
        self._logs[log.key] = log

    def replace(self, local: int, row: LogRow) -> None:
        """A log's row was committed."""
        self._rows[local] = row
        self._logs[row.key].state = row.state

    def remove(self, log: Log) -> None:
        """A log was dropped."""
        self._rows.pop(log.local, None)
        if self._logs.get(log.key) is log:
            del self._logs[log.key]

    def remember_producers(self, changed: Mapping[tuple[int, int], ProducerState | None]) -> None:
        """Keep the latest producers in memory, within the cache's bound."""
        cache = self.producer_cache
        for key, state in changed.items():
            cache[key] = state
            cache.move_to_end(key)
        while len(cache) > self.environment.options.producer_cache:
            cache.popitem(last=False)
