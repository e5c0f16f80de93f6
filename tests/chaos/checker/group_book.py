"""Builds histories of consumer groups by hand; see `build`. Members are a, b, …; their group is g, their topic t."""

from collections.abc import Sequence
from typing import Any

from penstock.chaos.checker import Verdict
from tests.chaos.checker.build import RC, Book


class GroupBook(Book):
    """A history in the making. `began` may be named where it is not the time of the line before."""

    def join(self, member: str, commits: str = "manual", topics: Sequence[str] = ("t",)) -> None:
        """A life begins."""
        self._did(member, "group_joined", instance=None, topics=list(topics), commits=commits)

    def assign_to(
        self, member: str, generation: int, position: int | None = 0, granted: int | None = None, partition: int = 0
    ) -> None:
        """A member is told that it has the partition."""
        row = ["t", partition, generation if granted is None else granted, position]
        self._did(member, "group_assigned", generation=generation, partitions=[row])

    def release(self, member: str, began: float | None = None) -> None:
        """A member gives the partition up."""
        self._did(member, "group_released", began, partitions=[["t", 0]])

    def lose(self, member: str) -> None:
        """A member has it no more."""
        self._did(member, "group_lost", partitions=[["t", 0]])

    def leave(self, member: str) -> None:
        """A life ends in order."""
        self._did(member, "group_left")

    def hand(self, member: str, first: int, end: int, began: float | None = None) -> None:
        """A poll of a member, of the records [first, end); of none where that is empty."""
        rows = [[offset, offset + 1, 0] for offset in range(first, end)]
        read = {"topic": "t", "partition": 0, "from": first, "to": end, "records": rows}
        reads = [read] if rows else []
        self._did(member, "poll", began, isolation=RC, reads=reads)

    def handle(self, member: str, *offsets: int, began: float | None = None, at: float | None = None) -> None:
        """A member's handlers have ended with these."""
        rows = [[offset, offset + 1, 0] for offset in offsets]
        self._did(member, "handed", began, topic="t", partition=0, records=rows, at=self.now if at is None else at)

    def commit(self, member: str, offset: int, kind: str = "ok", at: float | None = None) -> None:
        """A commit by a call."""
        process = _process(member)
        fields = {"group": "g", "member": member, "offsets": [["t", 0, offset]]}
        op = self.recorder.invoke(process, "group_commit", at=self.now if at is None else at, **fields)
        self.end(op, kind, "group_commit", process)

    def committed(self, offset: int) -> None:
        """What the coordinator says in the end."""
        where = {"group": "g", "topic": "t", "partition": 0}
        self.recorder.read("final/ends1.0", "group_offset", self.now, offset=offset, **where)

    def drained(self, *unread: Sequence[object]) -> None:
        """The group has read everything, but for what is named."""
        fields = {"group": "g", "drained": not unread, "waited_s": 30.0, "unread": [list(one) for one in unread]}
        self.recorder.note("runner", "group_drained", **fields)

    def write(self, count: int) -> None:
        """Records 0 to count - 1, which are acknowledged."""
        for offset in range(count):
            self.send(offset + 1, offset)

    def judge(self, count: int) -> Verdict:
        """Read everything in the end, so many records, and judge."""
        self.final([(offset, offset + 1) for offset in range(count)])
        return self.check()

    def _did(self, member: str, f: str, began: float | None = None, **fields: Any) -> None:
        began = self._now() if began is None else began
        self.recorder.read(_process(member), f, began, group="g", member=member, **fields)


def _process(member: str) -> str:
    return f"c1/member-{member}.0"
