"""What clients changed and were told of topics, and what nodes showed of the metadata.

Views are compared as they come, so that only what differs is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstock.chaos.checker.writes import FAIL, NEVER, OK, OPEN


@dataclass(slots=True)
class Change:
    """A creation, deletion or change of a topic."""

    f: str
    topic: str
    op: int
    process: int
    invoked: float
    partitions: int = 0
    completed: float = NEVER
    outcome: int = OPEN
    topic_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings that it makes."""

    @property
    def latest(self) -> float:
        """When it has taken effect at the latest, if it ever does."""
        return self.completed if self.outcome == OK else NEVER


class Description(NamedTuple):
    """What a client was told of a topic."""

    topic: str
    process: int
    topic_id: str | None
    """None: there is no such topic."""
    partitions: int
    began: float
    ended: float
    line: int


class View(NamedTuple):
    """A node's metadata, as it showed them."""

    node: int
    version: int
    began: float
    ended: float
    line: int


class Disagreement(NamedTuple):
    """Two views that do not fit each other; what of is in words."""

    former: View
    later: View
    what: str
    topic: str | None = None
    partition: int | None = None


PartitionKey = tuple[str, int]
"""Topic id and partition."""


@dataclass(slots=True)
class Window:
    """A fault, from its beginning to the end of its healing."""

    began: float
    ended: float = NEVER
    nodes: frozenset[int] = frozenset()


@dataclass(slots=True)
class Metadata:
    """See the module."""

    changes: list[Change] = field(default_factory=list)
    """In the order of invocation."""
    descriptions: list[Description] = field(default_factory=list)
    faults: dict[Any, Window] = field(default_factory=dict)
    """By the fault's id."""
    last_epochs: dict[tuple[str, int], int] = field(default_factory=dict)
    """The highest leader epoch in any view, by topic name and partition."""
    two_leaders: list[Disagreement] = field(default_factory=list)
    epochs_back: list[Disagreement] = field(default_factory=list)
    """A partition's leader epoch is lower in a node's later view, though that is not an older one."""
    versions_back: list[Disagreement] = field(default_factory=list)
    diverged: list[Disagreement] = field(default_factory=list)
    """One version, two contents."""

    def settings(self, topic: str, name: str) -> list[tuple[float, Any]]:
        """Give the values that a topic's setting may have had, each with when it was asked for, in that order."""
        return [
            (change.invoked, change.config[name])
            for change in self.changes
            if change.topic == topic and name in change.config and change.outcome != FAIL
        ]

    def compacted(self) -> set[str]:
        """Topics whose cleanup policy may have been one that compacts."""
        return {
            change.topic
            for change in self.changes
            if "compact" in str(change.config.get("cleanup_policy", "")).lower() and change.outcome != FAIL
        }

    def deletable(self) -> set[str]:
        """Topics that somebody may have deleted."""
        return {change.topic for change in self.changes if change.f == "delete_topic" and change.outcome != FAIL}

    def may_have_restarted(self, node: int, after: float, before: float) -> bool:
        """Say whether a fault that hit the node was there at some time in between."""
        return any(
            node in window.nodes and window.began <= before and window.ended >= after for window in self.faults.values()
        )
