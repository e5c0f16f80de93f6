"""The writes of a history and what became of them, in columns: a million fit into some tens of megabytes.

Owns what counts as acknowledged, refused, failed and unknown. Rows are in the order of their invocation. Pure.
"""

from array import array
from dataclasses import dataclass, field
from enum import IntEnum
from math import nan

from penstock.chaos.history import Entry, host_of

RECORD_WRITES = ("send", "append")
METADATA_WRITES = ("create_topic", "delete_topic", "add_partitions", "alter_topic")
WRITES = RECORD_WRITES + METADATA_WRITES

REFUSALS: dict[str, frozenset[str]] = {
    "EXPECTED_OFFSET_MISMATCH": frozenset({"append"}),
    "TOPIC_EXISTS": frozenset({"create_topic"}),
    "INVALID_ARGUMENT": frozenset({"add_partitions"}),  # an earlier one, whose outcome was not known, has done it
    "ClientClosedError": frozenset({"send"}),  # its producer was given up on purpose before it was sent
}
"""Failures that say what a cluster in best health would have said: no lack of availability. By reason, of what."""
REFUSALS_AFTER_DELETION = frozenset({"UNKNOWN_TOPIC", "UNKNOWN_PARTITION"})
"""The same, once somebody has begun to delete the topic, until it is created anew."""


class Outcome(IntEnum):
    """What became of a write."""

    ACKED = 0
    """Acknowledged: type `ok`."""
    REFUSED = 1
    """`fail`, for one of REFUSALS."""
    FAILED = 2
    """`fail`, for another reason: it had no effect, for nobody could serve it."""
    UNKNOWN = 3
    """`info`, or no completion."""


@dataclass(slots=True)
class Share:
    """How many writes were acknowledged."""

    acked: int = 0
    failed: int = 0
    unknown: int = 0
    refused: int = 0
    """Not among those asked for the share."""

    @property
    def asked(self) -> int:
        """The writes that a healthy cluster would have acknowledged."""
        return self.acked + self.failed + self.unknown

    @property
    def share(self) -> float | None:
        """0 to 1; None where nothing was asked."""
        return self.acked / self.asked if self.asked else None

    def count(self, outcome: int) -> None:
        """Add a write."""
        if outcome == Outcome.ACKED:
            self.acked += 1
        elif outcome == Outcome.UNKNOWN:
            self.unknown += 1
        elif outcome == Outcome.FAILED:
            self.failed += 1
        else:
            self.refused += 1

    def to_json(self) -> dict[str, float | None]:
        """Give it with its sums."""
        counts = {"acked": self.acked, "failed": self.failed, "unknown": self.unknown, "refused": self.refused}
        return {"share": self.share, "asked": self.asked, **counts}


@dataclass(slots=True)
class _Open:
    """A write without its completion."""

    row: int
    f: str
    topic: str


@dataclass(slots=True)
class Writes:
    """The columns. `f`, `host`: indices of WRITES and `hosts`; `completed`: NaN where there is no completion."""

    f: "array[int]" = field(default_factory=lambda: array("B"))
    host: "array[int]" = field(default_factory=lambda: array("H"))
    invoked: "array[float]" = field(default_factory=lambda: array("d"))
    completed: "array[float]" = field(default_factory=lambda: array("d"))
    outcome: "array[int]" = field(default_factory=lambda: array("B"))
    hosts: list[str] = field(default_factory=list)
    _open: dict[int, _Open] = field(default_factory=dict)
    _host_index: dict[str, int] = field(default_factory=dict)
    _deleted: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.invoked)

    def feed(self, entry: Entry) -> None:
        """Take an entry whose `f` is one of WRITES, in the history's order."""
        if entry["type"] == "invoke":
            self._invoke(entry)
        else:
            self._complete(entry)

    def _invoke(self, entry: Entry) -> None:
        f, topic = entry["f"], entry["topic"]
        self._open[entry["op"]] = _Open(len(self), f, topic)
        self.f.append(WRITES.index(f))
        self.host.append(self._host(host_of(entry["process"])))
        self.invoked.append(entry["time"])
        self.completed.append(nan)
        self.outcome.append(Outcome.UNKNOWN)
        if f == "delete_topic":
            self._deleted.add(topic)

    def _complete(self, entry: Entry) -> None:
        begun = self._open.pop(entry["op"], None)
        if begun is None:
            return  # the checker says what is wrong with such a history
        self.completed[begun.row] = entry["time"]
        if entry["type"] == "ok":
            self.outcome[begun.row] = Outcome.ACKED
            if begun.f == "create_topic":
                self._deleted.discard(begun.topic)
        elif entry["type"] == "fail":
            refused = self._is_refusal(begun, entry.get("error", ""))
            self.outcome[begun.row] = Outcome.REFUSED if refused else Outcome.FAILED

    def _is_refusal(self, begun: _Open, error: str) -> bool:
        if error in REFUSALS_AFTER_DELETION:
            return begun.topic in self._deleted
        return begun.f in REFUSALS.get(error, ())

    def _host(self, name: str) -> int:
        index = self._host_index.setdefault(name, len(self.hosts))
        if index == len(self.hosts):
            self.hosts.append(name)
        return index
