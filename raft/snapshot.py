"""Snapshots: the frame that is stored and sent, and its way to a follower in chunks. Pure.

Invariants: a frame names its place in the log and the configuration as of there. Each chunk and the whole have a CRC.
At most one chunk is under way to a follower; the answer to the latest message, and no other, moves the sender on.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.internal.v1 import raft_pb2
from penstock.raft.errors import DamagedJournalError
from penstock.raft.journal import StoredSnapshot
from penstock.raft.membership import Membership

FORMAT = 1
CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """What a snapshot holds."""

    index: int
    term: int
    membership: Membership
    state: bytes

    def encode(self) -> StoredSnapshot:
        """Return the form for the journal and for the way to a follower."""
        record = raft_pb2.SnapshotFrame(
            format=FORMAT, index=self.index, term=self.term, membership=self.membership.encode(), state=self.state
        )
        return StoredSnapshot(self.index, self.term, record.SerializeToString(deterministic=True))

    @classmethod
    def decode(cls, stored: StoredSnapshot) -> "Frame":
        """Read a snapshot; DamagedJournalError when it is not one that this version wrote or can read."""
        record = raft_pb2.SnapshotFrame()
        try:
            record.ParseFromString(stored.frame)
        except Exception as error:
            raise DamagedJournalError(f"the snapshot up to entry {stored.index} cannot be read") from error
        if record.format != FORMAT:
            raise DamagedJournalError(f"the snapshot has format {record.format}; this version reads {FORMAT}")
        if (record.index, record.term) != (stored.index, stored.term):
            raise DamagedJournalError(f"the snapshot of entry {stored.index} says that it is of entry {record.index}")
        return cls(record.index, record.term, Membership.decode(record.membership), record.state)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a frame; without data, the question how far the receiver is."""

    index: int
    term: int
    size: int
    crc: int
    position: int
    data: bytes
    data_crc: int
    sequence: int


class Sending:
    """A frame on its way to one follower.

    `sequences`: numbers of messages, shared by all that one leader sends. An answer to a former attempt, on a stream
    that outlived it, is then not taken for one to this.
    """

    def __init__(
        self, snapshot: StoredSnapshot, chunk_bytes: int = CHUNK_BYTES, sequences: Iterator[int] | None = None
    ) -> None:
        self.snapshot = snapshot
        self._chunk_bytes = chunk_bytes
        self._crc = zlib.crc32(snapshot.frame)
        self._sequences = sequences or itertools.count(1)
        self._sequence = 0  # of the latest message
        self._asked_at = 0.0
        self._awaiting = False

    def next(self, position: int | None, now: float) -> Chunk:
        """Return the chunk at this position, or with None the question for the position."""
        self._sequence = next(self._sequences)
        self._asked_at, self._awaiting = now, True
        frame = self.snapshot.frame
        data = b"" if position is None else frame[position : position + self._chunk_bytes]
        place = (self.snapshot.index, self.snapshot.term, len(frame), self._crc)
        return Chunk(*place, position or 0, data, zlib.crc32(data), self._sequence)

    def is_due(self, now: float, patience: float) -> bool:
        """Whether to ask again: nothing was sent yet, or the answer is late."""
        return not self._awaiting or now - self._asked_at >= patience

    def is_answer(self, index: int, sequence: int) -> bool:
        """Whether this is the answer that moves on. Each counts once."""
        if not self._awaiting or (index, sequence) != (self.snapshot.index, self._sequence):
            return False
        self._awaiting = False
        return True


class Receiving:
    """A frame as it comes in. Chunks that do not follow the last one are dropped; the answer says where to go on."""

    def __init__(self, sender: int, first: Chunk) -> None:
        self._key = (sender, first.index, first.term, first.size, first.crc)
        self._data = bytearray()

    def is_of(self, sender: int, chunk: Chunk) -> bool:
        """Whether the chunk belongs to this frame."""
        return self._key == (sender, chunk.index, chunk.term, chunk.size, chunk.crc)

    def add(self, chunk: Chunk) -> int:
        """Take the chunk if it is next and whole. Returns how much is here."""
        if chunk.position == len(self._data) and zlib.crc32(chunk.data) == chunk.data_crc:
            self._data += chunk.data
        return len(self._data)

    def complete(self) -> StoredSnapshot | None:
        """Return the snapshot once all of it is here; DamagedJournalError if it is not what its sender stored."""
        _, index, term, size, crc = self._key
        if len(self._data) < size:
            return None
        frame = bytes(self._data)
        if len(frame) != size or zlib.crc32(frame) != crc:
            raise DamagedJournalError(f"the snapshot received up to entry {index} does not match its CRC")
        return StoredSnapshot(index, term, frame)
