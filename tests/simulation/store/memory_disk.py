"""A disk in memory: the image that the last commit left, and the ones before it that a power loss can go back to."""

import random
from collections.abc import Callable, Sequence

from penstock.storage import (
    Append,
    CommitFailedError,
    Committer,
    ForeignStoreError,
    Outcome,
    PartitionKey,
    StoreFullError,
    StoreIdentity,
    Write,
)
from tests.simulation.store.disk import Disk, FaultyCommitter, check_format, check_open
from tests.simulation.store.group import MemoryGroup
from tests.simulation.store.memory import Image, MemoryStore, Row

MAX_UNSYNCED = 2_000
"""Images kept since the last sync. With more, every other one is let go: a power loss meets one of those left."""


class MemoryCommitter(Committer):
    """Performs groups on a store. `written` learns the image that each commit leaves, `synced` of each sync."""

    def __init__(
        self,
        store: MemoryStore,
        written: Callable[[Image], None],
        synced: Callable[[], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._memory = store
        self._written = written
        self._synced = synced
        self._is_full = is_full

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See Committer. Raises CommitFailedError where the store is closed."""
        self._check_open()
        group = MemoryGroup(self._memory, self._refusal(writes))
        outcomes = [group.perform(write) for write in writes]
        self._written(group.publish())
        return outcomes

    def _refusal(self, writes: Sequence[Write]) -> StoreFullError | None:
        appended = self._is_full() and any(
            batch.payload for write in writes if isinstance(write, Append) for batch in write.batches
        )
        return StoreFullError("the simulated disk is full") if appended else None

    def _check_open(self) -> None:
        if self._memory.closed:
            raise CommitFailedError("the store is closed")

    def sync(self) -> None:
        """See Committer."""
        self._check_open()
        self._synced()

    def sweep(self) -> bool:
        """Nothing is left to be deleted."""
        return False


class MemoryDisk(Disk[Image | None]):
    """See Disk. Commits and copies share all that did not change between them."""

    def __init__(self, durability: str = "commit") -> None:
        super().__init__(durability)
        self._unsynced: list[Image] = []  # the last durable image, and all since, the present one last
        self._store: MemoryStore | None = None

    @property
    def image(self) -> Image | None:
        """All that the disk holds; None where it is not formatted."""
        return self._unsynced[-1] if self._unsynced else None

    def format(self, cluster_id: str, node_id: int, unique: Callable[[], bytes]) -> StoreIdentity:
        """See Disk."""
        check_format(cluster_id, node_id, is_formatted=self.image is not None)
        identity = StoreIdentity(cluster_id, node_id, unique())
        self._unsynced = [Image(identity, {})]
        return identity

    def open(self, cluster_id: str | None = None, node_id: int | None = None) -> tuple[MemoryStore, FaultyCommitter]:
        """See Disk."""
        check_open(is_formatted=self.image is not None, is_open=self._store is not None and not self._store.closed)
        image = self._unsynced[-1]
        if cluster_id not in {None, image.identity.cluster_id} or node_id not in {None, image.identity.node_id}:
            raise ForeignStoreError(f"the store belongs to {image.identity}")
        store = self._store = MemoryStore(image, self.durability, lambda: self.full)
        committer = MemoryCommitter(store, self._written, self._synced, lambda: self.full)
        return store, FaultyCommitter(self, committer)

    def _written(self, image: Image) -> None:
        if self.durability == "commit":
            self._unsynced = [image]
            return
        self._unsynced.append(image)
        if len(self._unsynced) > MAX_UNSYNCED:
            del self._unsynced[1:-1:2]

    def _synced(self) -> None:
        del self._unsynced[:-1]

    def crash(self) -> None:
        """See Disk."""
        self.disarm()
        if self._store is not None:
            self._store.close()
            self._store = None

    def power_loss(self, rng: random.Random) -> None:
        """See Disk."""
        self.crash()
        if len(self._unsynced) > 1:
            self._unsynced = [self._unsynced[rng.randrange(len(self._unsynced))]]

    def row(self, key: PartitionKey) -> Row | None:
        """See Disk."""
        rows = () if self.image is None else self.image.rows.values()
        return next((row for row in rows if row.key == key), None)

    def copy(self) -> Image | None:
        """See Disk."""
        return self.image

    def restore(self, copy: Image | None) -> None:
        """See Disk."""
        self.crash()
        self._unsynced = [] if copy is None else [copy]

    def wipe(self) -> None:
        """See Disk."""
        self.restore(None)
