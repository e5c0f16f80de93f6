"""A journal's disk in memory: keeps what was committed, loses the rest with the process.

Power can go in the middle of a commit, and a commit can fail.
"""

import dataclasses
from pathlib import Path

from penstock.raft.disk import LmdbDisk
from penstock.raft.errors import JournalWriteError
from penstock.raft.journal import Entry, Identity, JournalBatch, JournalImage, JournalState, StoredSnapshot


class PowerLoss(Exception):  # noqa: N818  an event
    """The node's power went, just before or just after a commit became durable."""


class MemoryDisk:
    """A JournalDisk. `armed`: None, or how many commits from now the power goes, and whether that one is durable.

    `failing`: None, or how many commits from now one fails.
    """

    def __init__(self, node_id: int, journal_id: bytes, *, founding: bool) -> None:
        self.identity = Identity("simulated", node_id, journal_id)
        self.founding = founding
        self.state = JournalState(may_vote=founding)
        self.membership: bytes | None = None
        self.snapshot: StoredSnapshot | None = None
        self.entries: list[Entry] = []
        self.armed: tuple[int, bool] | None = None
        self.failing: int | None = None
        self.commits = 0

    def load(self) -> JournalImage:
        return JournalImage(self.identity, self.state, self.membership, self.snapshot, list(self.entries))

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else 0

    def repair(self) -> None:
        """From now on nothing goes wrong."""
        self.armed = self.failing = None

    def commit(self, batch: JournalBatch) -> None:
        self.commits += 1
        if self.armed is None and self.failing is None:
            self._apply(batch)
        else:
            self._commit_or_not(batch)

    def _commit_or_not(self, batch: JournalBatch) -> None:
        if self.failing is not None:
            self.failing -= 1
            if self.failing < 0:
                self.failing = None
                raise JournalWriteError("the simulated disk is full")
        fires, durable = False, True
        if self.armed is not None:
            left, lasts = self.armed
            fires, durable = left == 0, left > 0 or lasts
            self.armed = None if fires else (left - 1, lasts)
        if durable:
            self._apply(batch)
        if fires:
            raise PowerLoss

    def _apply(self, batch: JournalBatch) -> None:
        entries = self.entries
        first = entries[0].index if entries else 0
        if batch.delete_from - first < len(entries):
            del entries[max(0, batch.delete_from - first) :]
        if batch.delete_below > first:
            del entries[: batch.delete_below - first]
        entries += batch.entries
        self.state = batch.state
        self.membership = batch.membership
        if batch.snapshot is not None:
            self.snapshot = dataclasses.replace(batch.snapshot)

    def close(self) -> None:
        pass


class MirroredDisk(MemoryDisk):
    """Writes to a journal in LMDB as well, and checks at each start that it holds the same."""

    def __init__(self, node_id: int, journal_id: bytes, *, founding: bool, path: Path) -> None:
        super().__init__(node_id, journal_id, founding=founding)
        self._path = path / f"{node_id}-{journal_id.hex()}"
        LmdbDisk.format(self._path, "simulated", node_id, founding=founding, reserve=0)
        self._real: LmdbDisk | None = None

    def load(self) -> JournalImage:
        self.release()
        self._real = LmdbDisk.open(self._path, self.identity.node_id, "simulated", reserve=0)
        image = super().load()
        real = self._real.load()
        assert real._replace(identity=image.identity) == image
        return image

    def _apply(self, batch: JournalBatch) -> None:
        super()._apply(batch)
        assert self._real is not None
        self._real.commit(batch)

    def release(self) -> None:
        """Let go of LMDB."""
        if self._real is not None:
            self._real.close()
            self._real = None
