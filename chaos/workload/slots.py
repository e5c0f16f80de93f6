"""One place in a crew: the lives of one member after the other, and what they tell, in the history.

A life follows when the former one is over; or before, as its twin, where that is static (see `crews`).
"""

from typing import Any

from penstock.chaos.member.plan import Commits, MemberPlan
from penstock.chaos.workload.lives import Life, Nursery
from penstock.chaos.workload.options import Access, Members
from penstock.chaos.workload.process import Common, Process

NOT_HISTORY = ("f", "began")


class Slot(Process):
    """See the module."""

    def __init__(self, common: Common, host: str, number: int, access: Access, options: Members) -> None:
        super().__init__(common, host, f"{options.group}-member", number, access)
        self.life: Life | None = None
        """The last one."""
        self.last_error = ""
        self._options = options
        self._number = number
        self._was_born = False
        self._in_hurry = False

    @property
    def is_alive(self) -> bool:
        """There is a life, though it may be frozen or leaving."""
        return self.life is not None and not self.life.is_over

    @property
    def is_static(self) -> bool:
        """Its lives have the same instance_id."""
        return self._number <= self._options.static

    async def join(self, nursery: Nursery) -> None:
        """Begin a life. Raises OSError, TimeoutError."""
        if self._was_born:
            self.next_life()
        self._was_born = True
        self.life = await nursery.birth(self._plan(), _Scribe(self, self.name).take)

    def hurry(self) -> None:
        """Let this life, and those to come, handle records as fast as they can."""
        self._in_hurry = True
        if self.life is not None:
            self.life.hurry()

    def _plan(self) -> MemberPlan:
        options = self._options
        index = self._number - 1
        commits: Commits = options.commits[index % len(options.commits)]
        return MemberPlan(
            bootstrap=self.access.bootstrap,
            group=options.group,
            topics=tuple(self.common.topic(name) for name in options.topics),
            clock_zero=self.recorder.zero,
            commits=commits,
            address_map=dict(self.access.address_map),
            instance_id=f"{options.group}-{self._number}" if self.is_static else None,
            session_timeout_ms=options.session_timeout_ms,
            rebalance_timeout_ms=options.rebalance_timeout_ms,
            max_poll_interval_ms=options.max_poll_interval_ms,
            pace_s=0.0 if self._in_hurry else options.paces_s[index % len(options.paces_s)],
            most_records=options.most_records[index % len(options.most_records)],
        )


class _Scribe:
    """Puts what one life tells into the history, under the name of that life."""

    def __init__(self, slot: Slot, name: str) -> None:
        self._slot = slot
        self._name = name
        self._ops: dict[int, int] = {}
        """By the member's number of a commit."""

    def take(self, told: dict[str, Any]) -> None:
        """Take a line; see penstock.chaos.member.voice."""
        recorder = self._slot.recorder
        if "f" in told:
            fields = {name: value for name, value in told.items() if name not in NOT_HISTORY}
            recorder.read(self._name, told["f"], told["began"], **fields)
            self._slot.progress.read += sum(
                len(read["records"]) for read in told.get("reads", [told]) if "records" in read
            )
        elif "fields" in told:
            self._ops[told["commit"]] = recorder.invoke(self._name, "group_commit", **told["fields"])
        elif "end" in told:
            why = {name: told[name] for name in ("error", "message") if name in told}
            recorder.complete(self._ops.pop(told["commit"]), self._name, told["end"], "group_commit", **why)
        else:
            self._slot.last_error = f"{told['error']}: {told['message']}"
