"""The consensus journal of one node: entries, term, vote, commit index, snapshot, identity.

Owns: the mirror of the log in memory, and which part of it is not yet on disk. `RaftJournal` offers pysyncobj's journal
interface (hence the names in camel case) over a `JournalDisk`; `raft.disk` has the one in LMDB, the simulator its own.

Invariants: changes are buffered; `sync` makes all of them durable in one transaction. The caller syncs before a message
that depends on them leaves. A snapshot and the truncation that it allows are one transaction. The commit index never
lies outside the log. `may_vote` false (formatted to join) stays so until `admit` (DESIGN rule 27).

Never: retries a failed commit. The error goes up and the node stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, overload

from penstock.raft.errors import InvariantViolation, damaged

NO_OP = b"\x01"  # pysyncobj's command type for an entry without effect
FIRST_INDEX = 1  # every log begins with the same entry: a no-op of term 0


class Entry(NamedTuple):
    """A log entry, in pysyncobj's order of fields."""

    command: bytes
    index: int  # type: ignore[assignment]  # nobody searches an entry with tuple.index
    term: int


class Identity(NamedTuple):
    """Whose journal this is. Fixed when it is formatted."""

    cluster_id: str
    node_id: int
    journal_id: bytes


class JournalState(NamedTuple):
    """The part that is replaced as a whole."""

    term: int = 0
    voted_for: int | None = None
    commit_index: int = FIRST_INDEX  # a hint: what is committed is decided by the cluster
    may_vote: bool = True


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot's place in the log, and its frame as encoded by `raft.snapshot`."""

    index: int
    term: int
    frame: bytes


class JournalImage(NamedTuple):
    """Everything durable, as read at the start."""

    identity: Identity
    state: JournalState
    membership: bytes | None  # before the first snapshot: the founding configuration
    snapshot: StoredSnapshot | None
    entries: list[Entry]


class JournalBatch(NamedTuple):
    """What one transaction changes. Deletions come before puts."""

    state: JournalState
    delete_below: int  # entries with a lower index go
    delete_from: int  # entries with this or a higher index go
    entries: Sequence[Entry]
    snapshot: StoredSnapshot | None
    membership: bytes | None


class JournalDisk(Protocol):
    """Durable storage of a journal."""

    def load(self) -> JournalImage:
        """Read everything; DamagedJournalError if it is not what was written."""
        ...

    def commit(self, batch: JournalBatch) -> None:
        """Make the batch durable, all or nothing. Any error is final."""
        ...

    def close(self) -> None:
        """Release the place."""
        ...


class RaftJournal:
    """pysyncobj's journal over a disk: a mirror in memory, and the difference to what is durable."""

    def __init__(self, disk: JournalDisk) -> None:
        self._disk = disk
        image = disk.load()
        self.identity = image.identity
        self.membership = image.membership
        self.snapshot = image.snapshot
        self._entries = image.entries
        self._state = self._clamped(image.state)
        self._check_continuity()
        self._clean_to = self.last_index  # entries up to here are on disk as they are here
        self._disk_first = self._entries[0].index if self._entries else FIRST_INDEX
        self._dirty = self._soft = self._urgent = False
        self._new_snapshot: StoredSnapshot | None = None
        if not self._entries:
            self.add(NO_OP, FIRST_INDEX, 0)

    @staticmethod
    def format(path: Path, cluster_id: str, node_id: int, founding: bool) -> Identity:
        """Make an empty journal in LMDB. Founding: it may vote at once; else only when the cluster admits it."""
        from penstock.raft.disk import LmdbDisk  # noqa: PLC0415  disk imports the types above

        return LmdbDisk.format(path, cluster_id, node_id, founding=founding)

    @staticmethod
    def open(path: Path, node_id: int | None = None, cluster_id: str | None = None) -> "RaftJournal":
        """Open the journal in LMDB at `path`; a JournalError says why not, and what to do."""
        from penstock.raft.disk import LmdbDisk  # noqa: PLC0415  disk imports the types above

        disk = LmdbDisk.open(path, node_id, cluster_id)
        try:
            return RaftJournal(disk)
        except BaseException:
            disk.close()
            raise

    def _clamped(self, state: JournalState) -> JournalState:
        low = self.snapshot.index if self.snapshot else FIRST_INDEX
        commit_index = max(low, min(state.commit_index, self.last_index))
        return state if commit_index == state.commit_index else state._replace(commit_index=commit_index)

    def _check_continuity(self) -> None:
        entries, snapshot = self._entries, self.snapshot
        if any(entry.index != entries[0].index + place for place, entry in enumerate(entries)):
            raise damaged("its entries do not follow one another")
        if not entries:
            if snapshot:
                raise damaged(f"it has a snapshot up to {snapshot.index} but no entries")
            return
        first, last = entries[0].index, entries[-1].index
        if snapshot is None:
            if first != FIRST_INDEX:
                raise damaged(f"it begins at entry {first} without a snapshot")
        elif not first <= snapshot.index <= last or entries[snapshot.index - first].term != snapshot.term:
            place = f"entry {snapshot.index} of term {snapshot.term}"
            raise damaged(f"its entries {first} to {last} do not hold the snapshot's {place}")

    # --- pysyncobj's interface -------------------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        if self._entries and idx != self._entries[-1].index + 1:
            raise InvariantViolation(f"entry {idx} does not follow the log's last one, {self._entries[-1].index}")
        self._entries.append(Entry(command, idx, term))
        self._dirty = True

    def clear(self) -> None:
        """Drop all entries. The log is never left empty: an `add` follows."""
        self._entries = []
        self._clean_to = 0
        self._dirty = True

    def deleteEntriesFrom(self, position: int) -> None:
        """Drop the entries from this position in the mirror on."""
        del self._entries[position:]
        self._clean_to = min(self._clean_to, self.last_index)
        self._dirty = True

    def deleteEntriesTo(self, position: int) -> None:
        """Drop the entries before this position in the mirror."""
        del self._entries[:position]
        self._dirty = True

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setRaftCommitIndex(self, index: int) -> None:
        """Remember what is committed; becomes durable with whatever is next."""
        term, voted_for, commit_index, may_vote = self._state
        if index != commit_index:
            self._state = JournalState(term, voted_for, index, may_vote)
            self._soft = True

    def getRaftCommitIndex(self) -> int:
        """Return the commit index, within the log."""
        return self._clamped(self._state).commit_index

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:
        """Enter a term, with or without a vote. No message whatever leaves before it is durable."""
        if term < self._state.term:
            raise InvariantViolation(f"the term would go back from {self._state.term} to {term}")
        self._state = self._state._replace(term=term, voted_for=voted_for)
        self._dirty = self._urgent = True

    def getCurrentTerm(self) -> int:
        """Return the term."""
        return self._state.term

    def getVotedForNodeId(self) -> int | None:
        """Return whom this node voted for in the term."""
        return self._state.voted_for

    def onOneSecondTimer(self) -> None:
        """Nothing here depends on time."""

    def _destroy(self) -> None:
        """The journal is closed by its owner, after the last sync."""

    # --- ours ------------------------------------------------------------------------------------------------------

    @property
    def last_index(self) -> int:
        """Index of the last entry; 0 for none (only before the first start has finished)."""
        return self._entries[-1].index if self._entries else 0

    @property
    def dirty(self) -> bool:
        """Whether something that messages may depend on is not durable yet."""
        return self._dirty

    @property
    def urgent(self) -> bool:
        """Whether even messages that do not speak of entries must wait: term or vote are not durable yet."""
        return self._urgent

    @property
    def may_vote(self) -> bool:
        """Whether this node may vote and stand for election at all (rule 27)."""
        return self._state.may_vote

    def admit(self) -> None:
        """Let this node vote from now on, durably: a committed command named this journal."""
        if not self._state.may_vote:
            self._state = self._state._replace(may_vote=True)
            self._dirty = self._urgent = True
            self.sync()

    def found(self, membership: bytes) -> None:
        """Record the configuration that the log begins with."""
        self.membership = membership
        self._dirty = self._urgent = True

    def store_snapshot(self, snapshot: StoredSnapshot, keep_from: int) -> None:
        """Keep a snapshot of what was applied here, and of the entries only those from `keep_from` on."""
        self.snapshot = self._new_snapshot = snapshot
        self.deleteEntriesTo(max(0, min(keep_from, snapshot.index) - self._entries[0].index))

    def install_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Keep a received snapshot. Entries behind it stay if the log has its last entry, else the log is replaced."""
        place = snapshot.index - self._entries[0].index
        matches = 0 <= place < len(self._entries) and self._entries[place].term == snapshot.term
        self.snapshot = self._new_snapshot = snapshot
        if not matches:
            self.clear()
            self.add(NO_OP, snapshot.index, snapshot.term)
        self._dirty = True

    def sync(self) -> None:
        """Make everything durable, in one transaction, if anything is not."""
        if not self._dirty:
            return
        first = self._entries[0].index
        start = max(self._clean_to + 1, first)
        fresh = self._entries[start - first :]
        self._disk.commit(
            JournalBatch(self._clamped(self._state), first, start, fresh, self._new_snapshot, self.membership)
        )
        self._clean_to = self.last_index
        self._dirty = self._soft = self._urgent = False
        self._new_snapshot = None

    def close(self) -> None:
        """Make everything durable and release the disk."""
        try:
            self._dirty = self._dirty or self._soft
            self.sync()
        finally:
            self._disk.close()

    def abandon(self) -> None:
        """Release the disk as it is, after an error: what was not durable is not made so."""
        self._disk.close()
