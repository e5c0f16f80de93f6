"""When which group has to be looked at: a heap whose entries may be out of date. Pure.

Heartbeats move a group's time without touching the heap; an entry that comes too early is put in again. So a heartbeat
costs nothing here, and each group is looked at about once in a session.
"""

import heapq


class DueTimes:
    """At most one entry of each group counts: the earliest."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._entries: dict[str, int] = {}

    def put(self, group_id: str, due_ms: int | None) -> None:
        """Look at the group at that time, if not earlier."""
        present = self._entries.get(group_id)
        if due_ms is not None and (present is None or due_ms < present):
            self._entries[group_id] = due_ms
            heapq.heappush(self._heap, (due_ms, group_id))

    def forget(self, group_id: str) -> None:
        """The group is no more."""
        self._entries.pop(group_id, None)

    def next_ms(self) -> int | None:
        """Return the earliest time."""
        while self._heap and self._entries.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now_ms: int) -> list[str]:
        """Return the groups whose time has come; each is to be put in again."""
        due = []
        while (next_ms := self.next_ms()) is not None and next_ms <= now_ms:
            _, group_id = heapq.heappop(self._heap)
            del self._entries[group_id]
            due.append(group_id)
        return due
