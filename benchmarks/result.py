"""What one run of a workload on a system gave."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Load:
    """What the client process measured."""

    records: int
    """Acknowledged (or read) in the measured time."""
    bytes: int
    """Of their values."""
    seconds: float
    latency: list[tuple[int, int]] = field(default_factory=list)
    """Histogram, Histogram.to_json(): upper bound of a bucket in microseconds, count. Empty where the kind has none."""
    client_cpu_s: float = 0.0
    """User and system time of the client process in the measured time."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Load":
        """From `to_json`."""
        return cls(**{**content, "latency": [(int(upper), int(count)) for upper, count in content["latency"]]})
