"""What compaction may take away in a partition, and from when on.

A record goes once a later one of its key is in the log; a tombstone also without (when its time is over: not judged,
since clocks jump). A later one is one at a higher offset; or one whose place nobody knows: it was never read, for it
may have gone likewise, to an even later one. In the end, that one stays or is a tombstone.
"""

from array import array
from collections import defaultdict
from collections.abc import Sequence

from penstock.chaos.checker.writes import NEVER, UNKNOWN, Writes

_ANY_TIME = -NEVER
"""Nothing is known to have been there."""


class CompactedLog:
    """One partition. `add` all of its writes that did not fail, then `finish`."""

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """By key: offset and row of each write whose place is known; after `finish` in the order of offsets."""
        self._unplaced: dict[int, list[int]] = defaultdict(list)
        self._gone_from = array("d")
        self._stays = bytearray()
        self._writes = Writes()

    def add(self, writes: Writes, row: int) -> None:
        """Take a write."""
        self._writes = writes
        place, key = writes.place(row), writes.keys[row]
        if place == UNKNOWN:
            self._unplaced[key].append(row)
        else:
            self.rows[key].append((place, row))

    def finish(self, seen: Sequence[int]) -> None:
        """All is there. `seen`: by offset, whether somebody read it; what nobody wrote has no reason to go."""
        last = max((place for placed in self.rows.values() for place, _ in placed), default=UNKNOWN)
        self._gone_from = array("d", [NEVER if flags else _ANY_TIME for flags in seen])
        self._stays = bytearray(flags != 0 for flags in seen)
        self._gone_from.extend([_ANY_TIME] * (last + 1 - len(seen)))
        self._stays.extend(bytes(max(0, last + 1 - len(seen))))
        for key, placed in self.rows.items():
            placed.sort()
            if key == UNKNOWN:
                for place, _ in placed:
                    self._gone_from[place], self._stays[place] = NEVER, True
                continue
            self._judge(placed, self._unplaced.get(key, []))

    def _judge(self, placed: list[tuple[int, int]], unplaced: list[int]) -> None:
        """Say of all writes of a key when they may go."""
        writes = self._writes
        earliest = min((writes.invoked[row] for row in unplaced), default=NEVER)
        is_latest = True
        has_unplaced_tombstone = any(writes.tombstones[row] for row in unplaced)
        for place, row in reversed(placed):
            is_tombstone = bool(writes.tombstones[row])
            self._gone_from[place] = min(earliest, writes.invoked[row] if is_tombstone else NEVER)
            self._stays[place] = is_latest and not is_tombstone and not has_unplaced_tombstone
            earliest, is_latest = min(earliest, writes.invoked[row]), False

    def stays(self, offset: int) -> bool:
        """Say whether what was at an offset has to be there in the end."""
        return offset < len(self._stays) and bool(self._stays[offset])

    def lacking(self, first: int, end: int, ended: float) -> int | None:
        """Give an offset in [first, end) whose record could not have gone when a poll ended; None: there is none."""
        found = self._gone_from[first:end]
        if not found or max(found) <= ended:
            return None
        return next(offset for offset, gone_from in enumerate(found, first) if gone_from > ended)
