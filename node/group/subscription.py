"""Which topics a subscription selects, and what is wrong with one. Pure.

By name, by a pattern that matches the whole name (RE2: its time is linear, whatever clients send), or both. Internal
topics are never selected.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from penstock.protocol.errors import PenstockError
from penstock.protocol.limits import MAX_PATTERN, MAX_SUBSCRIBED_TOPICS, topic_name_problem
from penstock.protocol.reasons import Reason
from penstock.raft.image import TopicInfo

PATTERN_BYTES = 1 << 20
"""Memory that a compiled pattern may take."""
COMPILED_PATTERNS = 1_024


@dataclass(frozen=True, slots=True)
class Catalog:
    """The topics that groups may read: all but the internal ones."""

    ids: Mapping[str, bytes] = field(default_factory=dict)
    """By name."""
    names: Mapping[bytes, str] = field(default_factory=dict)
    counts: Mapping[bytes, int] = field(default_factory=dict)
    """Numbers of partitions."""

    @classmethod
    def of(cls, topics: Iterable[TopicInfo]) -> "Catalog":
        """Return what these topics are."""
        readable = [topic for topic in topics if not topic.internal]
        return cls(
            ids={topic.name: topic.topic_id for topic in readable},
            names={topic.topic_id: topic.name for topic in readable},
            counts={topic.topic_id: len(topic.partitions) for topic in readable},
        )


class Catalogs:
    """The catalog of the newest topics, for all coordinators of a node: the same object while it says the same.

    Topics change with every leader and ISR; what groups may read, seldom.
    """

    def __init__(self) -> None:
        self._topics: Mapping[bytes, TopicInfo] = {}
        self._catalog = Catalog()

    def of(self, topics: Mapping[bytes, TopicInfo]) -> Catalog:
        """Return the catalog of these topics."""
        if topics is not self._topics:
            self._topics = topics
            made = Catalog.of(topics.values())
            self._catalog = self._catalog if made == self._catalog else made
        return self._catalog


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription: names in order, each once, and a pattern or ""."""

    topics: tuple[str, ...] = ()
    pattern: str = ""

    def selected(self, catalog: Catalog) -> frozenset[bytes]:
        """Return the ids of the topics that it selects now."""
        ids = {catalog.ids[name] for name in self.topics if name in catalog.ids}
        if self.pattern:
            matches = _compiled(self.pattern).fullmatch
            ids.update(topic_id for name, topic_id in catalog.ids.items() if matches(name))
        return frozenset(ids)


def check_subscription(topics: Iterable[str], pattern: str) -> Subscribed:
    """Return the subscription. Raises INVALID_SUBSCRIPTION."""
    names = tuple(sorted(set(topics)))
    if not names and not pattern:
        raise _invalid("the subscription names no topic and has no pattern")
    if len(names) > MAX_SUBSCRIBED_TOPICS:
        raise _invalid(f"the subscription names {len(names)} topics, {MAX_SUBSCRIBED_TOPICS} may be: use a pattern")
    for name in names:
        problem = topic_name_problem(name)
        if problem is not None:
            raise _invalid(problem)
    if len(pattern) > MAX_PATTERN:
        raise _invalid(f"the pattern has {len(pattern)} characters, {MAX_PATTERN} may be")
    if pattern:
        _compiled(pattern)
    return Subscribed(names, pattern)


def missing_topic(wanted: Subscribed, known: Collection[str], catalog: Catalog) -> PenstockError | None:
    """Return UNKNOWN_TOPIC for a name that is not `known`, newly subscribed that is, and no topic has; or None."""
    missing = [name for name in wanted.topics if name not in catalog.ids and name not in known]
    if not missing:
        return None
    text = ", ".join(repr(name) for name in missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
    return PenstockError(Reason.UNKNOWN_TOPIC, f"no topic has the name {text}", {"topic": missing[0]})


@lru_cache(COMPILED_PATTERNS)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0] if error.args else ""
        why = detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
        raise _invalid(f"the pattern {pattern!r} is no RE2 expression: {why}") from None


def _invalid(detail: str) -> PenstockError:
    return PenstockError(Reason.INVALID_SUBSCRIPTION, detail)
