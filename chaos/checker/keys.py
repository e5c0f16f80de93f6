"""Anomalies of compacted topics: what a reader learns of a key."""

from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.anomaly import at
from penstock.chaos.checker.compacted import CompactedLog
from penstock.chaos.checker.facts import Facts, final_flag
from penstock.chaos.checker.polls import ISOLATIONS
from penstock.chaos.checker.verdict import Anomaly
from penstock.chaos.checker.writes import UNKNOWN

DAY_MS = 86_400_000
"""A topic's delete_retention_ms where it does not say."""


class LostLatest:
    """A poll went past a record of a compacted topic without giving it, and no later one of its key had been invoked.

    The record was acknowledged or read, so it was committed at its offset; compaction leaves the latest record of each
    key in the log, a tombstone for a while. What the final reading lacks is of `missing`.
    """

    kind: ClassVar[str] = "lost-latest"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        polls = facts.polls
        for gap in facts.polls.gaps:
            spot = polls.spots[gap.poll]
            log = facts.compacted(spot)
            if log is None or polls.finals[gap.poll]:
                continue
            offset = log.lacking(max(gap.first, facts.start(spot)), gap.end, polls.ended[gap.poll])
            if offset is not None:
                message = (
                    f"{facts.reader(gap.poll)} read past {facts.spots[spot]}@{offset} and was not given it, though it "
                    "was the latest record of its key"
                )
                yield at(facts, self.kind, message, spot, facts.poll_operation(gap.poll))


class Resurrected:
    """A final reading has an older record of a key, and not its last one, which is an acknowledged or read tombstone.

    So a reader takes a deleted key for a live one. A replica takes the older records away at the latest when it finds
    the tombstone for the first time, and the tombstone itself not before its delete_retention_ms are over (and never
    before all replicas have passed it: DESIGN rule 19). So a reader that is faster than that, and reads from one
    leader, finds both, or neither, or the tombstone alone. Judged where that is known: a leader was asked before and
    after the reading, and both times its epoch was the last one that the history knows.
    """

    kind: ClassVar[str] = "resurrected"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        for spot in facts.final_spots():
            log = facts.compacted(spot)
            if log is None:
                continue
            for isolation in range(len(ISOLATIONS)):
                polls = _one_leader(facts, spot, isolation)
                if polls:
                    yield from self._of(facts, log, spot, isolation, polls)

    def _of(self, facts: Facts, log: CompactedLog, spot: int, isolation: int, polls: list[int]) -> Iterator[Anomaly]:
        writes, seen, flag = facts.writes, facts.logs[spot].seen, final_flag(isolation)
        for key, placed in log.rows.items():
            top, last = placed[-1]
            shown = [(place, row) for place, row in placed if place < len(seen) and seen[place] & flag]
            if key == UNKNOWN or not writes.tombstones[last] or not shown or shown[-1][0] == top:
                continue
            place, row = shown[-1]
            message = (
                f"the final reading of {ISOLATIONS[isolation]} has {writes.values[row]} at {facts.spots[spot]}@{place} "
                f"as the last of key {facts.keys[key]}, which was deleted by {writes.values[last]} at @{top}"
            )
            operations = [facts.poll_operation(poll) for poll in polls if facts.polls.starts[poll] <= place][-1:]
            yield at(facts, self.kind, message, spot, facts.write_operation(last), *operations)


def _one_leader(facts: Facts, spot: int, isolation: int) -> list[int]:
    """The polls of the final reading, if they were of one leader and fast; else none."""
    polls = facts.polls
    found = [
        poll
        for poll, final in enumerate(polls.finals)
        if final and polls.spots[poll] == spot and polls.isolations[poll] == isolation
    ]
    if not found:
        return []
    began, ended = min(polls.began[poll] for poll in found), max(polls.ended[poll] for poll in found)
    retention = min(
        (int(value) for _, value in facts.metadata.settings(facts.spots[spot].topic, "delete_retention_ms")),
        default=DAY_MS,
    )
    last = facts.last_epochs()[spot]
    answers = [one for one in (*facts.starts, *facts.ends) if one.spot == spot and one.epoch == last != UNKNOWN]
    is_one = any(one.ended <= began for one in answers) and any(one.began >= ended for one in answers)
    return found if is_one and (ended - began) * 1000 < retention else []
