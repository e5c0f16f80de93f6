"""What a check of a history found: valid, invalid or unknown, and why; to and from JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self


class Operation(NamedTuple):
    """One operation that an anomaly concerns."""

    name: str
    """As a person finds it in the history: "op 17: send" or "line 240: poll"."""
    began: float
    ended: float | None
    """None: it never ended."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be."""

    kind: str
    message: str
    """In words, with values, offsets and processes."""
    topic: str | None = None
    partition: int | None = None
    operations: tuple[Operation, ...] = ()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Make it from what `to_json` gave."""
        operations = tuple(Operation(*one) for one in found["operations"])
        return cls(found["kind"], found["message"], found["topic"], found["partition"], operations)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds of a run."""

    valid: bool | None
    """None: unknown, for `reasons`. An anomaly makes it False, whatever else is unknown."""
    anomalies: tuple[Anomaly, ...] = ()
    """Examples: of each kind the first few (check.EXAMPLES)."""
    found: Mapping[str, int] = field(default_factory=dict)
    """How many anomalies of each kind there are, those that are not shown included."""
    allowed: Mapping[str, int] = field(default_factory=dict)
    """What is there, looks odd, and may be: how often."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Operations: function, then ok, fail, info. Without completion they count as info."""
    reasons: tuple[str, ...] = ()
    """Why not all can be known."""

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 3 unknown."""
        return 3 if self.valid is None else int(not self.valid)

    def to_json(self) -> dict[str, Any]:
        """Give what json.dumps takes."""
        return {
            "valid": self.valid,
            "reasons": list(self.reasons),
            "found": dict(self.found),
            "allowed": dict(self.allowed),
            "counts": {function: dict(kinds) for function, kinds in self.counts.items()},
            "anomalies": [_plain(anomaly) for anomaly in self.anomalies],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Make it from what `to_json` gave. Raises KeyError, TypeError for anything else."""
        anomalies = tuple(Anomaly.from_json(one) for one in found["anomalies"])
        reasons = tuple(found["reasons"])
        return cls(found["valid"], anomalies, found["found"], found["allowed"], found["counts"], reasons)


def _plain(anomaly: Anomaly) -> dict[str, Any]:
    plain = asdict(anomaly)
    plain["operations"] = [list(operation) for operation in anomaly.operations]
    return plain
