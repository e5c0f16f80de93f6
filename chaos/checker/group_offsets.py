"""Anomalies of the offsets that a consumer group has committed: what was left out, what was taken back.

A committed offset is seen where a member begins to read a partition that it was given, and in the end, when the
coordinator is asked for all of them.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import ClassVar, NamedTuple

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.groups import operation_of, operation_of_holding
from penstock.chaos.checker.ingest_groups import by_share
from penstock.chaos.checker.logs import FINAL, NOTHING
from penstock.chaos.checker.memberships import NEVER_GRANTED, UNKNOWN_POSITION, Commit, Passed, Share
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import OK, UNKNOWN

_IN_THE_END = 2**62
"""A generation after all."""


class _Seen(NamedTuple):
    """A committed offset that was seen; or that a member was told to be committed."""

    offset: int
    at: float
    granted: int
    """Of who saw it."""
    who: str
    operation: Operation
    how: str = "found"


class CommitSkip:
    """An offset was committed above what the group's members had done with: records below it were left out.

    - A member asked for an offset above what it was handed, and above where it began.
    - A committed offset was seen, and some record below it had not been done with, by any member, before it was seen.
      Done with means, as the member commits: it asked for the next records (by itself: `auto`), it asked for a commit
      (`manual`), the handler had ended (`process`). Who broke off may have done with all that it was handed.
    """

    kind: ClassVar[str] = "commit-skip"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for commit in facts.groups.commits:
            if commit.most != UNKNOWN_POSITION and commit.offset > commit.most:
                who, where = facts.processes[commit.process], _name(facts, commit.share)
                text = (
                    f"{who} asked to commit {commit.offset} of {where}, and had been handed records up to {commit.most}"
                )
                yield at(facts, self.kind, text, commit.share.spot, operation_of(commit))
        for share in _shares(facts):
            yield from self._seen(facts, share)

    def _seen(self, facts: Facts, share: Share) -> Iterator[Anomaly]:
        reach = _Reach(facts.groups.passed.get(share, []), facts.start(share.spot))
        for seen in sorted(_seen_of(facts, share), key=lambda seen: seen.at):
            reached = reach.at(seen.at)
            if seen.offset > reached:
                found = f"{seen.who} found {seen.offset} of {_name(facts, share)} committed"
                text = f"{found}, when nobody had done with {reached}"
                yield at(facts, self.kind, text, share.spot, seen.operation)


class CommitRegressed:
    """A committed offset was seen below one that was committed before, in a generation before who saw it was granted.

    That one is known by its commit, which had succeeded, or was found by a former owner, however it had come there.
    Ownership passes on only when the commits of the former owner are resolved (rule 31), so the time does not matter:
    a later owner begins at or above each of them. Members never ask for a lower offset than they have committed, so in
    the end no committed offset is below any that was there.
    """

    kind: ClassVar[str] = "commit-regressed"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        commits = by_share(one for one in facts.groups.commits if one.outcome == OK and one.granted != NEVER_GRANTED)
        for share in _shares(facts):
            seen = list(_seen_of(facts, share))
            known = sorted([*seen, *(_done(facts, commit) for commit in commits.get(share, []))], key=_granted)
            granted = [one.granted for one in known]
            highest = list(accumulate(known, _higher))
            for one in seen:
                count = bisect_left(granted, one.granted)
                if count and highest[count - 1].offset > one.offset:
                    yield self._anomaly(facts, share, one, highest[count - 1])

    def _anomaly(self, facts: Facts, share: Share, seen: _Seen, former: _Seen) -> Anomaly:
        text = (
            f"{seen.who} found {seen.offset} of {_name(facts, share)} committed, though "
            f"{former.who}, granted it in generation {former.granted}, had {former.how} {former.offset}"
        )
        return at(facts, self.kind, text, share.spot, former.operation, seen.operation)


class GroupLost:
    """A record that stays was handed to no member, though the group has read everything, or committed past it.

    Of the topics that its members subscribe to; records are those acknowledged by all in-sync replicas, and those of
    the final reading. Where the oldest records may go, those are left out.
    """

    kind: ClassVar[str] = "group-lost"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        groups = facts.groups
        drained = {drain.group for drain in groups.drains if drain.drained}
        there = _records(facts)
        for group, topics in groups.topics.items():
            for spot, (topic, _) in enumerate(facts.spots.names):
                if topic in topics and not facts.is_deletable(spot):
                    share = Share(group, spot)
                    committed = groups.committed.get(share)
                    end = _IN_THE_END if group in drained else committed.offset if committed is not None else 0
                    yield from self._of(facts, share, there[spot], end)

    def _of(self, facts: Facts, share: Share, there: dict[int, int], end: int) -> Iterator[Anomaly]:
        handed = facts.groups.handed.get(share, bytearray())
        for offset in sorted(there):
            if offset >= end or (offset < len(handed) and handed[offset]) or facts.may_be_gone(share.spot, offset):
                continue
            row = there[offset]
            operations = (facts.write_operation(row),) if row != UNKNOWN else ()
            yield at(facts, self.kind, f"nobody was handed {_name(facts, share)}@{offset}", share.spot, *operations)


def _higher(one: _Seen, other: _Seen) -> _Seen:
    return other if other.offset > one.offset else one


def _granted(one: _Seen) -> int:
    return one.granted


def _done(facts: Facts, commit: Commit) -> _Seen:
    who = facts.processes[commit.process]
    return _Seen(commit.offset, commit.at, commit.granted, who, operation_of(commit), "committed")


class _Reach:
    """Up to where the members had done with everything, as time goes on. Ask in the order of time."""

    def __init__(self, passed: list[Passed], start: int) -> None:
        self._passed = sorted(passed)
        self._done = bytearray(max((one.end for one in passed), default=0) + 1)
        self._taken = 0
        self._reached = start

    def at(self, when: float) -> int:
        """Give the offset below which all was done with by then."""
        while self._taken < len(self._passed) and self._passed[self._taken].at <= when:
            _, first, end = self._passed[self._taken]
            self._done[first:end] = b"\1" * (end - first)
            self._taken += 1
        if self._reached < len(self._done) and self._done[self._reached]:
            self._reached = self._done.index(0, self._reached)
        return self._reached


def _seen_of(facts: Facts, share: Share) -> Iterator[_Seen]:
    """Give the committed offsets that were seen."""
    for holding in facts.groups.holdings.get(share, []):
        if holding.position != UNKNOWN_POSITION:
            who = facts.processes[holding.process]
            yield _Seen(holding.position, holding.began, holding.granted, who, operation_of_holding(holding))
    committed = facts.groups.committed.get(share)
    if committed is not None:
        operation = Operation(f"line {committed.line}: group_offset", committed.at, committed.at)
        yield _Seen(committed.offset, committed.at, _IN_THE_END, "the end", operation)


def _shares(facts: Facts) -> list[Share]:
    groups = facts.groups
    return list(dict.fromkeys((*groups.holdings, *groups.committed)))


def _records(facts: Facts) -> dict[int, dict[int, int]]:
    """By spot: the offsets of records that stay, with the rows in Writes where those are known."""
    there: dict[int, dict[int, int]] = {spot: {} for spot in range(len(facts.spots))}
    for spot, log in enumerate(facts.logs):
        for offset, flags in enumerate(log.seen):
            if flags & FINAL and log.values[offset] != NOTHING:
                there[spot][offset] = facts.writes.rows.get(log.values[offset], UNKNOWN)
    for row in facts.writes.acknowledged:
        there[facts.writes.spots[row]].setdefault(facts.writes.offsets[row], row)
    return there


def _name(facts: Facts, share: Share) -> str:
    return f"{facts.spots[share.spot]} in group {facts.groups.groups[share.group]}"
