"""Anomalies of what clients are told of topics after they changed them."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import ClassVar

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.metadata import Change, Description
from penstock.chaos.checker.verdict import Anomaly, Operation
from penstock.chaos.checker.writes import FAIL, NEVER, OK


class StaleMetadataRead:
    """A process was told of a topic as it had been before a change of its own that was acknowledged before it asked.

    Read-your-writes, which "an acknowledged metadata change is visible to the next read that names it" (DESIGN §5)
    promises to one client:

    - after its creation a topic is there, with the id that was acknowledged and no fewer partitions;
    - after partitions were added, it is there, and has as many;
    - after its deletion, no topic is there whose id was known before the deletion was invoked.

    The first two unless a deletion, of anybody, that did not fail may have come between: it was invoked before the
    answer came, and was not acknowledged before the change was invoked. (One of unknown outcome may take effect at any
    time.) A topic with another id needs a deletion, too.
    """

    kind: ClassVar[str] = "stale-metadata-read"

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """See Check."""
        names = _by_name(facts)
        told: dict[str, list[Description]] = defaultdict(list)
        for description in facts.metadata.descriptions:
            told[description.topic].append(description)
        for name, descriptions in told.items():
            if name in names:
                yield from self._of_topic(facts, names[name], descriptions)

    def _of_topic(self, facts: Facts, topic: "_Topic", told: list[Description]) -> Iterator[Anomaly]:
        """In the order of asking, with the last changes of each process that were acknowledged before."""
        topic.learn(told)
        last: dict[tuple[int, str], Change] = {}
        acknowledged = sorted((one for one in topic.changes if one.outcome == OK), key=lambda one: one.completed)
        done = 0
        for description in sorted(told, key=lambda one: one.began):
            while done < len(acknowledged) and acknowledged[done].completed < description.began:
                last[acknowledged[done].process, acknowledged[done].f] = acknowledged[done]
                done += 1
            for f, missing in _JUDGES.items():
                change = last.get((description.process, f))
                what = None if change is None else missing(topic, change, description)
                if change is not None and what is not None:
                    yield self._anomaly(facts, change, description, what)

    def _anomaly(self, facts: Facts, change: Change, told: Description, what: str) -> Anomaly:
        shown = f"{told.topic_id} with {told.partitions} partitions" if told.topic_id else "no topic"
        message = f"{facts.processes[told.process]} {what}, and was later shown {shown}"
        operations = (
            Operation(f"op {change.op}: {change.f}", change.invoked, change.completed),
            Operation(f"line {told.line}: describe_topic", told.began, told.ended),
        )
        return Anomaly(self.kind, message, told.topic, None, operations)


class _Topic:
    """Changes of one name."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._deletions: list[float] = []
        """When they were invoked, in order."""
        self._latest: list[float] = []
        """Until when one of them up to here may take effect."""
        self.known: dict[str, float] = {}
        """Topic ids, and when each was first known."""

    def add(self, change: Change) -> None:
        """Add a change, in the order of invocation."""
        self.changes.append(change)
        if change.f == "delete_topic" and change.outcome != FAIL:
            self._deletions.append(change.invoked)
            self._latest.append(max(change.latest, self._latest[-1] if self._latest else 0.0))
        if change.f == "create_topic" and change.topic_id is not None:
            self.known.setdefault(change.topic_id, change.completed)

    def learn(self, told: list[Description]) -> None:
        """Know the ids that clients were told, too."""
        for description in told:
            if description.topic_id is not None:
                earlier = self.known.get(description.topic_id, NEVER)
                self.known[description.topic_id] = min(earlier, description.ended)

    def may_be_deleted(self, change: Change, told: Description) -> bool:
        """Say whether a deletion may have come between a change and an answer."""
        count = bisect_right(self._deletions, told.ended)
        return count > 0 and self._latest[count - 1] >= change.invoked


def _by_name(facts: Facts) -> dict[str, _Topic]:
    topics: dict[str, _Topic] = defaultdict(_Topic)
    for change in facts.metadata.changes:
        topics[change.topic].add(change)
    return dict(topics)


def _not_created(topic: _Topic, created: Change, told: Description) -> str | None:
    if topic.may_be_deleted(created, told):
        return None
    if told.topic_id == created.topic_id and told.partitions >= created.partitions:
        return None
    return f"had created {created.topic} as {created.topic_id} with {created.partitions} partitions"


def _not_grown(topic: _Topic, grown: Change, told: Description) -> str | None:
    if topic.may_be_deleted(grown, told) or (told.topic_id is not None and told.partitions >= grown.partitions):
        return None
    return f"had grown {grown.topic} to {grown.partitions} partitions"


def _not_deleted(topic: _Topic, deleted: Change, told: Description) -> str | None:
    if told.topic_id is None or topic.known.get(told.topic_id, NEVER) >= deleted.invoked:
        return None
    return f"had deleted {deleted.topic}"


_JUDGES = {"create_topic": _not_created, "add_partitions": _not_grown, "delete_topic": _not_deleted}
