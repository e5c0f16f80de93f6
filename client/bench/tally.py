"""What became of the records of one phase of a bench. Pure; times are nanoseconds of the monotonic clock."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from penstock.client.bench.histogram import Histogram
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Outcome


@dataclass(slots=True)
class Tally:
    """Counts of one producer or reader, or of several together."""

    sent: int = 0
    """Handed to the producer; of a reader: 0."""
    done: int = 0
    """Acknowledged; of a reader: read."""
    bytes: int = 0
    """Of the values of what is done; of a reader in form batches: of the batches as they came, compressed or not."""
    failures: Counter[str] = field(default_factory=Counter)
    """By reason; those of unknown outcome are in `unknown` instead."""
    unknown: int = 0
    first_ns: int = 0
    """When the phase began; 0: it did not."""
    last_ns: int = 0
    """When the last record was done, or the phase ended without any."""
    latency: Histogram = field(default_factory=Histogram)

    @property
    def failed(self) -> int:
        """Records that were definitely not appended."""
        return self.failures.total()

    @property
    def seconds(self) -> float:
        """From the beginning to the last record."""
        return max(0, self.last_ns - self.first_ns) / 1e9

    @property
    def missing(self) -> int:
        """Records of which nothing was heard."""
        return max(0, self.sent - self.done - self.failed - self.unknown)

    def fail(self, error: PenstockError, count: int) -> None:
        """Count records that were not acknowledged."""
        if error.outcome is Outcome.UNKNOWN:
            self.unknown += count
        elif count:
            self.failures[error.reason.name] += count

    def add(self, other: "Tally") -> None:
        """Count what another one counted too."""
        self.sent += other.sent
        self.done += other.done
        self.bytes += other.bytes
        self.failures += other.failures
        self.unknown += other.unknown
        begun = [tally.first_ns for tally in (self, other) if tally.first_ns]
        self.first_ns = min(begun, default=0)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.latency.merge(other.latency)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        plain = ("sent", "done", "bytes", "unknown", "first_ns", "last_ns")
        document: dict[str, Any] = {name: getattr(self, name) for name in plain}
        return document | {"failures": dict(self.failures), "latency": self.latency.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Tally":
        """From `to_json`."""
        made = {"failures": Counter(content["failures"]), "latency": Histogram(content["latency"])}
        return cls(**{**content, **made})
