"""Anomalies of who owns what in a consumer group. Those of committed offsets are in `group_offsets`."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.ingest_groups import by_share
from penstock.chaos.checker.memberships import NEVER_GRANTED, Commit, Drain, Holding, Share
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import NEVER, OK


class DualOwner:
    """Two members of a group had one partition at one time, or were granted it in one generation (rules 20, 21).

    A member had it from when it had been told so to the beginning of the last poll that handed it records of it, or in
    which it gave it up in order: it stood by it then. Between telling and that beginning nothing has taken it away, by
    the client's own account, so two such times that have a moment in common are two owners.
    """

    kind: ClassVar[str] = "dual-owner"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for holdings in facts.groups.holdings.values():
            yield from self._at_one_time(facts, holdings)
            yield from self._in_one_generation(facts, holdings)

    def _at_one_time(self, facts: Facts, holdings: list[Holding]) -> Iterator[Anomaly]:
        furthest: list[Holding] = []
        """The one that is proved for longest, and the longest one of any other member."""
        for holding in holdings:
            if holding.proved <= holding.began:
                continue
            for former in furthest:
                if former.member != holding.member and former.proved > holding.began:
                    text = (
                        f"{_who(facts, former)} had {_what(facts, former)} up to {former.proved:.3f} s, and "
                        f"{_who(facts, holding)} from {holding.began:.3f} s on"
                    )
                    yield _anomaly(facts, self.kind, text, former, holding)
                    break
            furthest = _two_furthest([*furthest, holding])

    def _in_one_generation(self, facts: Facts, holdings: list[Holding]) -> Iterator[Anomaly]:
        granted: dict[int, Holding] = {}
        for holding in holdings:
            former = granted.setdefault(holding.granted, holding)
            if former.member != holding.member:
                text = (
                    f"{_what(facts, holding)} was granted to {_who(facts, former)} and to {_who(facts, holding)} in "
                    f"generation {holding.granted}"
                )
                yield _anomaly(facts, self.kind, text, former, holding)


class ZombieCommit:
    """A commit succeeded of a member that did not have the partition (rules 20, 31).

    It was never given it; or had released or lost it before; or another member that was granted it in a later
    generation had been told so before the commit began.
    """

    kind: ClassVar[str] = "zombie-commit"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for share, commits in by_share(facts.groups.commits).items():
            later = _Later(facts.groups.holdings.get(share, []))
            for commit in commits:
                if commit.outcome != OK:
                    continue
                if (why := self._why(facts, commit, later)) is not None:
                    who = facts.processes[commit.process]
                    text = f"{who} committed {commit.offset} of {_share(facts, share)}: {why}"
                    yield at(facts, self.kind, text, share.spot, operation_of(commit))

    def _why(self, facts: Facts, commit: Commit, later: "_Later") -> str | None:
        if commit.granted == NEVER_GRANTED:
            return "it never had it"
        if not commit.is_held:
            return "it had it no more"
        owner = later.owner(commit.granted, commit.at)
        if owner is None:
            return None
        return (
            f"it had been granted it in generation {commit.granted}, and {_who(facts, owner)} in {owner.granted}, "
            f"who knew that since {owner.began:.3f} s"
        )


class ReleasedTooSoon:
    """A member gave a partition up while a handler still had a record of it: whoever has it next handles that too."""

    kind: ClassVar[str] = "released-too-soon"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for found in facts.groups.ran_on:
            who, where = facts.processes[found.process], _share(facts, found.share)
            text = f"{who} gave {where} up, and a handler of it ended with {found.offset} after that"
            yield at(
                facts, self.kind, text, found.share.spot, Operation(f"line {found.line}: handed", found.began, found.at)
            )


class GenerationBack:
    """The generations that a member was told are out of order.

    A later assignment of one member is of a lower generation, or names a partition as granted in a later generation
    than its own.
    """

    kind: ClassVar[str] = "generation-back"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for found in facts.groups.backward:
            operation = Operation(f"line {found.line}: group_assigned", found.at, found.at)
            group = facts.groups.groups[found.group]
            yield Anomaly(self.kind, f"{found.message}, in group {group}", operations=(operation,))


class GroupStalled:
    """A group stood still for the time named in a partition that it had not read to its end, though all was well.

    The runner says so at the end of a run, when all faults are healed and every partition is served.
    """

    kind: ClassVar[str] = "group-stalled"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for drain in facts.groups.drains:
            if not drain.drained:
                yield self._anomaly(facts, drain)

    def _anomaly(self, facts: Facts, drain: Drain) -> Anomaly:
        group = facts.groups.groups[drain.group]
        unread = ", ".join(drain.unread) or "nobody says what is committed"
        text = f"group {group} had not read everything after {drain.waited_s:.0f} s in health: {unread}"
        operation = Operation(f"line {drain.line}: group_drained", drain.at - drain.waited_s, drain.at)
        return Anomaly(self.kind, text, operations=(operation,))


class _Later:
    """Holdings of a share by generation: who was granted it later, and knew first."""

    def __init__(self, holdings: list[Holding]) -> None:
        ordered = sorted(holdings, key=lambda holding: holding.granted)
        self._granted = [holding.granted for holding in ordered]
        self._first = list(accumulate(reversed(ordered), _earlier))[::-1]
        """Of each and those granted later: the one that knew first."""

    def owner(self, granted: int, before: float) -> Holding | None:
        """Give the first that was granted it in a later generation and had been told so before this time."""
        index = bisect_left(self._granted, granted + 1)
        found = self._first[index] if index < len(self._first) else None
        return found if found is not None and found.began < before else None


def _earlier(one: Holding, other: Holding) -> Holding:
    return other if other.began < one.began else one


def operation_of(commit: Commit) -> Operation:
    """Name a commit."""
    ended = None if commit.completed == NEVER else commit.completed
    return Operation(f"op {commit.op}: group_commit", commit.at, ended)


def operation_of_holding(holding: Holding) -> Operation:
    """Name the assignment that a holding began with."""
    return Operation(f"line {holding.line}: group_assigned", holding.began, holding.began)


def _two_furthest(holdings: list[Holding]) -> list[Holding]:
    """Give the one that is proved for longest, and the longest one of another member."""
    ordered = sorted(holdings, key=lambda holding: -holding.proved)
    others = [holding for holding in ordered if holding.member != ordered[0].member]
    return [ordered[0], *others[:1]]


def _anomaly(facts: Facts, kind: str, text: str, *holdings: Holding) -> Anomaly:
    return at(facts, kind, text, holdings[0].share.spot, *(operation_of_holding(holding) for holding in holdings))


def _who(facts: Facts, holding: Holding) -> str:
    return f"{facts.processes[holding.process]} ({holding.member})"


def _what(facts: Facts, holding: Holding) -> str:
    return _share(facts, holding.share)


def _share(facts: Facts, share: Share) -> str:
    return f"{facts.spots[share.spot]} in group {facts.groups.groups[share.group]}"
