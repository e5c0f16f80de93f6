"""What survives a simulated process: a disk that holds one store, and what can happen to it.

A store is open at most once. `crash` ends the process and keeps all that was committed: the operating system has it.
`power_loss` takes that away too: what was not durable goes back to some state since the last sync. A world injects the
failures of commits: `arm_...` and `full`. Steps are commits, and syncs where the level needs them.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from penstock.storage import (
    CommitFailedError,
    Committer,
    NotFormattedError,
    Outcome,
    PartitionKey,
    StorageError,
    Store,
    StoreIdentity,
    StoreLockedError,
    Write,
)
from tests.simulation.store.memory import Row


class PowerLoss(Exception):  # noqa: N818  an event
    """The power went in a commit; the process never hears what became of it."""


class Fault(Enum):
    """What becomes of a commit or a sync, and whether it takes effect before. After each the process must end."""

    FAILS = (False, CommitFailedError)
    FAILS_DURABLE = (True, CommitFailedError)  # reported as failed, but it is there
    POWER_BEFORE = (False, PowerLoss)
    POWER_AFTER = (True, PowerLoss)


Copy = TypeVar("Copy")


class Disk(ABC, Generic[Copy]):
    """A disk, with or without a store on it. `copy` and `restore` take and put back all that it holds."""

    def __init__(self, durability: str = "commit") -> None:
        self.durability = durability
        """Level at which it is opened."""
        self.full = False
        """Appends are refused with StoreFullError meanwhile."""
        self._armed: tuple[int, Fault] | None = None

    @abstractmethod
    def format(self, cluster_id: str, node_id: int, unique: Callable[[], bytes]) -> StoreIdentity:
        """Make a new store, whose id `unique` draws. Raises StorageError where there is one."""

    @abstractmethod
    def open(self, cluster_id: str | None = None, node_id: int | None = None) -> tuple[Store, Committer]:
        """Open the store as Store.open does. Raises NotFormattedError, StoreLockedError, ForeignStoreError."""

    @abstractmethod
    def crash(self) -> None:
        """End the process, if one runs: its store is closed, what it committed stays. Disarms."""

    @abstractmethod
    def power_loss(self, rng: random.Random) -> None:
        """Crash, and go back to a state between the last sync and now; at level `commit` there is only the last."""

    @abstractmethod
    def row(self, key: PartitionKey) -> Row | None:
        """All that the disk holds of a log, whether or not a process runs; for those who check a world."""

    @abstractmethod
    def copy(self) -> Copy:
        """All that the disk holds, as the operating system shows it."""

    @abstractmethod
    def restore(self, copy: Copy) -> None:
        """Crash, and put an earlier copy back, durably."""

    @abstractmethod
    def wipe(self) -> None:
        """Crash, and lose everything; it can be formatted again."""

    def arm_power_loss(self, *, durable: bool, after: int = 0) -> None:
        """Let the power go in the next step, or that many steps later; `durable`: when that has taken effect."""
        self._armed = after, Fault.POWER_AFTER if durable else Fault.POWER_BEFORE

    def arm_failure(self, *, durable: bool = False, after: int = 0) -> None:
        """Let a step fail with CommitFailedError; `durable`: it has taken effect none the less."""
        self._armed = after, Fault.FAILS_DURABLE if durable else Fault.FAILS

    def disarm(self) -> None:
        """Let no step fail."""
        self._armed = None

    def step(self) -> Fault | None:
        """Take one step; the fault that meets it."""
        if self._armed is None:
            return None
        left, fault = self._armed
        if left > 0:
            self._armed = (left - 1, fault)
            return None
        self._armed = None
        return fault


class FaultyCommitter(Committer):
    """A committer that fails as its disk is armed; after that nothing is written any more."""

    def __init__(self, disk: "Disk[Any]", inner: Committer) -> None:
        self._disk = disk
        self._inner = inner
        self._syncs = disk.durability != "commit"
        self._is_over = False

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See Committer. Raises PowerLoss, too."""
        fault = self._next()
        if fault is None:
            return self._inner.commit(writes)
        self._fail(fault, lambda: self._inner.commit(writes))
        return []

    def sync(self) -> None:
        """See Committer. Raises PowerLoss, too."""
        fault = self._next() if self._syncs else None
        if fault is None:
            self._inner.sync()
        else:
            self._fail(fault, self._inner.sync)

    def sweep(self) -> bool:
        """See Committer."""
        return not self._is_over and self._inner.sweep()

    def _next(self) -> Fault | None:
        if self._is_over:
            raise CommitFailedError("a commit or a sync before this one failed")
        return self._disk.step()

    def _fail(self, fault: Fault, act: Callable[[], object]) -> None:
        self._is_over = True
        takes_effect, error = fault.value
        if takes_effect:
            act()
        raise error(f"simulated: {fault.name}")


def check_format(cluster_id: str, node_id: int, *, is_formatted: bool) -> None:
    """Refuse what a format refuses."""
    if not cluster_id or not 1 <= node_id < 2**32:
        raise StorageError("a store needs a cluster id and a node id of 1 or more")
    if is_formatted:
        raise StorageError("the disk is formatted already")


def check_open(*, is_formatted: bool, is_open: bool) -> None:
    """Refuse what cannot be opened."""
    if not is_formatted:
        raise NotFormattedError("the disk holds no store")
    if is_open:
        raise StoreLockedError("the store is open already")
