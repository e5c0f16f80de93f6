"""What looks for anomalies, and what counts that which only looks like one."""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from penstock.chaos.checker.facts import Facts
from penstock.chaos.checker.verdict import Anomaly, Operation


class Check(Protocol):
    """One kind of anomaly. Its class's docstring is its definition."""

    kind: ClassVar[str]

    def find(self, facts: Facts) -> Iterator[Anomaly]:
        """Give every one, each once. In O(n log n) at most."""
        ...


class Allowance(Protocol):
    """One kind of what is allowed. Its class's docstring says what, and why."""

    kind: ClassVar[str]

    def count(self, facts: Facts) -> int:
        """Say how many there are."""
        ...


def at(facts: Facts, kind: str, message: str, spot: int, *operations: Operation) -> Anomaly:
    """Make an anomaly of a partition."""
    topic, partition = facts.spots[spot]
    return Anomaly(kind, message, topic, partition, operations)
