"""What the clients of a world did and saw, in virtual time; what is in the logs in the end; the rules between the two.

Clients append to the History as they go and decide nothing. Each rule is a small class named after what it demands;
`check` raises Violation. A topic deleted and made again is another topic: everything is told apart by topic id.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol


class Violation(Exception):  # noqa: N818  what a checker finds, not what code does wrong
    """A rule between history and content does not hold."""


class Outcome(Enum):
    """What a client was told of an operation."""

    OPEN = "open"
    """Nothing: its process ended, or it is still under way."""
    ACKED = "acked"
    FAILED = "failed"
    """It had no effect and will have none."""
    UNKNOWN = "unknown"


class Spot(NamedTuple):
    """A partition of a topic by its id."""

    topic_id: bytes
    partition: int

    def __str__(self) -> str:
        return f"{self.topic_id.hex()[:8]}-{self.partition}"


class Row(NamedTuple):
    """A record in a log."""

    offset: int
    leader_epoch: int
    value: bytes


@dataclass(slots=True)
class Sent:
    """A record handed to `Producer.send`. Values are unique in a world."""

    client: str
    """The producer's incarnation: after a crash another one."""
    value: bytes
    topic: str
    partition: int | None
    """As the caller named it."""
    acks: str
    idempotent: bool
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.OPEN
    topic_id: bytes | None = None
    """Of an acknowledged record: where it is."""
    at_partition: int = -1
    offset: int = -1
    error: str = ""


@dataclass(slots=True)
class Appended:
    """A call of `Producer.append`: all of its values as one batch, or none."""

    client: str
    values: tuple[bytes, ...]
    topic: str
    partition: int
    expected_offset: int | None
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.OPEN
    offsets: tuple[int, ...] = ()
    error: str = ""


@dataclass(slots=True)
class Reading:
    """What one consumer was given of one partition, from a start or a seek to the next."""

    client: str
    spot: Spot
    topic: str
    start: int
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class EndSeen:
    """An answer of list_offsets "latest"."""

    client: str
    spot: Spot
    topic: str
    offset: int
    began: float
    ended: float


@dataclass(slots=True)
class TopicChange:
    """A creation, deletion or change of a topic."""

    client: str
    kind: str
    """ "create", "delete", "alter", "grow"."""
    name: str
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.OPEN
    topic_id: bytes | None = None
    """Of a topic whose creation was acknowledged."""
    partitions: int = 0
    error: str = ""


@dataclass(slots=True)
class TopicSeen:
    """What an admin client was told of a name: a topic, or that there is none."""

    client: str
    name: str
    topic_id: bytes | None
    partitions: int
    began: float
    ended: float


class TimeFound(NamedTuple):
    """An answer of list_offsets by time."""

    spot: Spot
    asked_ms: int
    offset: int
    timestamp_ms: int | None


@dataclass(slots=True)
class Content:
    """What can be read in the end, of all topics."""

    names: dict[str, bytes] = field(default_factory=dict)
    rows: dict[Spot, list[Row]] = field(default_factory=dict)
    times: list[TimeFound] = field(default_factory=list)
    may_skip: dict[Spot, frozenset[int]] = field(default_factory=dict)
    """Offsets that a reader need not be given, since retention, a trim or compaction may have dropped them."""

    def may_skip_at(self, spot: Spot) -> frozenset[int]:
        """Of a partition; none where nothing is known of it."""
        return self.may_skip.get(spot, frozenset())


class History:
    """See the module. Lists are in the order of the operations' beginnings."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.appended: list[Appended] = []
        self.readings: list[Reading] = []
        self.ends: list[EndSeen] = []
        self.changes: list[TopicChange] = []
        self.seen: list[TopicSeen] = []

    def is_ever_deleted(self, name: str) -> bool:
        """Say whether anybody may have deleted a topic of this name."""
        return any(
            change.kind == "delete" and change.name == name and change.outcome is not Outcome.FAILED
            for change in self.changes
        )

    def topic_of(self, name: str, content: Content) -> bytes | None:
        """Give the id of the one topic that ever had this name; None where there was none or may be several."""
        return None if self.is_ever_deleted(name) else content.names.get(name)

    def acknowledged(self, content: Content) -> Iterator[tuple[Spot, str, int, bytes]]:
        """Give spot, topic name, offset and value of what every in-sync replica was said to have."""
        for sent in self.sent:
            if sent.outcome is Outcome.ACKED and sent.acks == "all" and sent.topic_id is not None:
                yield Spot(sent.topic_id, sent.at_partition), sent.topic, sent.offset, sent.value
        for append in self.appended:
            topic_id = self.topic_of(append.topic, content)
            if append.outcome is Outcome.ACKED and topic_id is not None:
                for offset, value in zip(append.offsets, append.values, strict=True):
                    yield Spot(topic_id, append.partition), append.topic, offset, value


class Rule(Protocol):
    """What holds between a history and the final content."""

    def check(self, history: History, content: Content) -> None:
        """Raise Violation where it does not."""


class NoAcknowledgedRecordLost:
    """What was acknowledged by all in-sync replicas is at its offset in the end, unless its topic was deleted."""

    def check(self, history: History, content: Content) -> None:
        found = {spot: {row.offset: row.value for row in rows} for spot, rows in content.rows.items()}
        for spot, topic, offset, value in history.acknowledged(content):
            rows = found.get(spot)
            if rows is None:
                if not history.is_ever_deleted(topic):
                    raise Violation(f"{value!r} was acknowledged in {topic} {spot}, which is gone")
            elif rows.get(offset) != value:
                raise Violation(f"{value!r} was acknowledged at {spot}@{offset}, there is {rows.get(offset)!r}")


class NothingChanged:
    """An offset has one value and one leader epoch, over all acknowledgements, all reads and the final content."""

    def check(self, history: History, content: Content) -> None:
        values: dict[tuple[Spot, int], bytes] = {}
        epochs: dict[tuple[Spot, int], int] = {}
        for spot, row, where in _rows(history, content):
            at = spot, row.offset
            if values.setdefault(at, row.value) != row.value:
                raise Violation(f"{spot}@{row.offset} was {values[at]!r} and is {row.value!r} in {where}")
            if epochs.setdefault(at, row.leader_epoch) != row.leader_epoch:
                raise Violation(
                    f"{spot}@{row.offset} was of epoch {epochs[at]} and is of {row.leader_epoch} in {where}"
                )
        for spot, _, offset, value in history.acknowledged(content):
            if values.get((spot, offset), value) != value:
                raise Violation(f"{value!r} was acknowledged at {spot}@{offset}, read was {values[spot, offset]!r}")


class NothingInvented:
    """Every record was sent by somebody, to that topic and, where one was named, to that partition."""

    def check(self, history: History, content: Content) -> None:
        known: dict[bytes, tuple[str, int | None]] = {sent.value: (sent.topic, sent.partition) for sent in history.sent}
        known |= {value: (append.topic, append.partition) for append in history.appended for value in append.values}
        names = {topic_id: name for name, topic_id in content.names.items()}
        for spot, row, where in _rows(history, content):
            if row.value not in known:
                raise Violation(f"nobody sent {row.value!r}, at {spot}@{row.offset} in {where}")
            topic, partition = known[row.value]
            if partition not in (None, spot.partition) or names.get(spot.topic_id, topic) != topic:
                raise Violation(f"{row.value!r} was sent to {topic}-{partition}, it is at {spot}@{row.offset}")


class RecordsStayInTheirTopic:
    """What was acknowledged in a topic is in no other one, though that has its name (rule 24)."""

    def check(self, history: History, content: Content) -> None:
        spots = {sent.value: Spot(sent.topic_id, sent.at_partition) for sent in history.sent if sent.topic_id}
        for spot, row, where in _rows(history, content):
            if spots.get(row.value, spot) != spot:
                raise Violation(f"{row.value!r} was acknowledged at {spots[row.value]}, it is at {spot} in {where}")


class NoDuplicateOfIdempotentProducer:
    """A record of an idempotent producer, or of an append, is at one offset of one partition, whatever was retried.

    An append names its topic: repeated after that was deleted and made again, it is in the other topic too.
    """

    def check(self, history: History, content: Content) -> None:
        once = {sent.value for sent in history.sent if sent.idempotent}
        once_a_topic = {value for append in history.appended for value in append.values}
        places: dict[tuple[bytes, bytes], tuple[Spot, int]] = {}
        for spot, row, where in _rows(history, content):
            if row.value not in once and row.value not in once_a_topic:
                continue
            what = (row.value, b"" if row.value in once else spot.topic_id)
            if places.setdefault(what, (spot, row.offset)) != (spot, row.offset):
                first, offset = places[what]
                raise Violation(f"{row.value!r} is at {first}@{offset} and at {spot}@{row.offset} ({where})")


class OrderWithinPartition:
    """Records of one idempotent producer are in each partition in the order in which they were handed over."""

    def check(self, history: History, content: Content) -> None:
        order: dict[bytes, tuple[str, int]] = {}
        for number, sent in enumerate(history.sent):
            if sent.idempotent:
                order[sent.value] = sent.client, number
        for spot, rows in content.rows.items():
            last: dict[str, tuple[int, bytes]] = {}
            for row in rows:
                if row.value not in order:
                    continue
                client, number = order[row.value]
                former, value = last.get(client, (-1, b""))
                if number < former:
                    raise Violation(f"{row.value!r} at {spot}@{row.offset} comes after {value!r}, which was sent later")
                last[client] = number, row.value


class ReadsAreAPrefix:
    """Between seeks a consumer is given each offset in turn, and nothing that is not there in the end."""

    def check(self, history: History, content: Content) -> None:
        for reading in history.readings:
            expected = reading.start
            for row in reading.rows:
                skipped = range(expected, row.offset)
                if row.offset < expected or not all(map(content.may_skip_at(reading.spot).__contains__, skipped)):
                    raise Violation(f"{reading.client} was given {reading.spot}@{row.offset}, {expected} was next")
                expected = row.offset + 1
            rows = content.rows.get(reading.spot)
            if rows is None:
                if reading.rows and not history.is_ever_deleted(reading.topic):
                    raise Violation(f"{reading.client} read {reading.topic} {reading.spot}, which is gone")
            elif reading.rows and expected > _end(rows):
                raise Violation(f"{reading.client} read {reading.spot} up to {expected}, it ends at {_end(rows)}")


class EndNeverGoesBack:
    """Rule 12: no later answer of one client names a lower end, and no end is above the final one."""

    def check(self, history: History, content: Content) -> None:
        highest: dict[tuple[str, Spot], EndSeen] = {}
        for seen in sorted(history.ends, key=lambda seen: seen.began):
            key = seen.client, seen.spot
            former = highest.get(key)
            if former is not None and former.ended <= seen.began and seen.offset < former.offset:
                raise Violation(f"{seen.client} was told that {seen.spot} ends at {former.offset}, then {seen.offset}")
            if former is None or seen.offset >= former.offset:
                highest[key] = seen
            rows = content.rows.get(seen.spot)
            if rows is None and not history.is_ever_deleted(seen.topic):
                raise Violation(f"{seen.client} was told of an end of {seen.topic} {seen.spot}, which is gone")
            if rows is not None and seen.offset > _end(rows):
                raise Violation(f"{seen.client} was told that {seen.spot} ends at {seen.offset}, it is {_end(rows)}")


class ConditionalAppendExact:
    """An append is there whole and in a row, or not at all; with an expected offset it is exactly there."""

    def check(self, history: History, content: Content) -> None:
        places = {row.value: (spot, row.offset) for spot, rows in content.rows.items() for row in rows}
        for append in history.appended:
            found = [places[value] for value in append.values if value in places]
            if append.outcome is Outcome.ACKED:
                self._compare(append, append.offsets)
            if not found:
                continue
            offsets = [offset for _, offset in found]
            if len(found) != len(append.values) or len({spot for spot, _ in found}) != 1:
                raise Violation(f"{append.values!r} is there in part: {offsets}")
            self._compare(append, offsets)

    def _compare(self, append: Appended, offsets: Sequence[int]) -> None:
        first = offsets[0] if append.expected_offset is None else append.expected_offset
        if list(offsets) != list(range(first, first + len(append.values))):
            raise Violation(f"{append.values!r} was to be at {append.expected_offset}, it is at {list(offsets)}")


class DefinitelyFailedIsAbsent:
    """What was reported as not appended is in no log and was never read."""

    def check(self, history: History, content: Content) -> None:
        failed = {sent.value: sent.error for sent in history.sent if sent.outcome is Outcome.FAILED}
        for append in history.appended:
            if append.outcome is Outcome.FAILED:
                failed |= dict.fromkeys(append.values, append.error)
        for spot, row, where in _rows(history, content):
            if row.value in failed:
                raise Violation(f"{row.value!r} failed ({failed[row.value]}), it is at {spot}@{row.offset} in {where}")


class MetadataReadYourWrites:
    """An acknowledged creation, deletion or growth is seen by later reads of the same client, and in the end."""

    def check(self, history: History, content: Content) -> None:
        final = [TopicSeen("", name, topic_id, -1, float("inf"), float("inf")) for name, topic_id in _topics(content)]
        absent = {change.name for change in history.changes} - content.names.keys()
        final += [TopicSeen("", name, None, -1, float("inf"), float("inf")) for name in sorted(absent)]
        for change in history.changes:
            if change.outcome is Outcome.ACKED:
                for seen in (*history.seen, *final):
                    if seen.name == change.name and seen.began >= change.ended and seen.client in ("", change.client):
                        self._compare(history, change, seen)

    def _compare(self, history: History, change: TopicChange, seen: TopicSeen) -> None:
        if change.kind == "create" and seen.topic_id != change.topic_id and not self._is_gone(history, change, seen):
            raise Violation(f"{change.name} was created as {_short(change.topic_id)}, seen was {_short(seen.topic_id)}")
        if change.kind == "delete":
            for made in history.changes:
                before = made.kind == "create" and made.topic_id is not None and made.ended <= change.began
                if before and made.name == change.name and made.topic_id == seen.topic_id:
                    raise Violation(f"{change.name} {_short(seen.topic_id)} was deleted, and seen later")
        same = seen.topic_id is not None and seen.topic_id == change.topic_id
        if change.kind == "grow" and same and 0 <= seen.partitions < change.partitions:
            raise Violation(f"{change.name} grew to {change.partitions} partitions, seen were {seen.partitions}")

    def _is_gone(self, history: History, created: TopicChange, seen: TopicSeen) -> bool:
        """A deletion may have come between."""
        return any(
            change.kind == "delete"
            and change.name == created.name
            and change.outcome is not Outcome.FAILED
            and change.began <= seen.ended
            and not (change.outcome is Outcome.ACKED and change.ended <= created.began)
            for change in history.changes
        )


RULES: tuple[type[Rule], ...] = (
    NoAcknowledgedRecordLost,
    NothingChanged,
    NothingInvented,
    RecordsStayInTheirTopic,
    NoDuplicateOfIdempotentProducer,
    OrderWithinPartition,
    ReadsAreAPrefix,
    EndNeverGoesBack,
    ConditionalAppendExact,
    DefinitelyFailedIsAbsent,
    MetadataReadYourWrites,
)


def check_all(history: History, content: Content, rules: Sequence[type[Rule]] = RULES) -> None:
    """Check every rule; the first breach is raised, with the rule's name."""
    for rule in rules:
        try:
            rule().check(history, content)
        except Violation as violation:
            raise Violation(f"{rule.__name__}: {violation}") from None


def _rows(history: History, content: Content) -> Iterator[tuple[Spot, Row, str]]:
    """All that was ever read, and where."""
    for spot, rows in content.rows.items():
        for row in rows:
            yield spot, row, "the end"
    for reading in history.readings:
        for row in reading.rows:
            yield reading.spot, row, f"what {reading.client} read"


def _topics(content: Content) -> list[tuple[str, bytes]]:
    return list(content.names.items())


def _end(rows: Sequence[Row]) -> int:
    return rows[-1].offset + 1 if rows else 0


def _short(topic_id: bytes | None) -> str:
    return "nothing" if topic_id is None else topic_id.hex()[:8]
