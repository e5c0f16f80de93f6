"""What a member is to be. Pure; the runner makes it and sends it as a line of JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

Commits = Literal["auto", "manual", "process"]
Stall = Literal["block", "wait"]
"""How a handler takes too long: it blocks its event loop; it waits, and the loop goes on."""


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One life of a member."""

    bootstrap: str
    group: str
    topics: tuple[str, ...]
    clock_zero: float
    """CLOCK_MONOTONIC at the beginning of the history: the same in all processes of a machine."""
    commits: Commits = "auto"
    address_map: Mapping[str, str] = field(default_factory=dict)
    instance_id: str | None = None
    session_timeout_ms: int = 6_000
    rebalance_timeout_ms: int = 8_000
    max_poll_interval_ms: int = 6_000
    auto_commit_interval_ms: int = 500
    pace_s: float = 0.05
    """Between being handed records and being done with them."""
    most_records: int = 200
    """Of one poll."""
    concurrency: int = 4
    """Handlers at once, with `process`."""

    def to_line(self) -> bytes:
        """Give what `from_line` reads."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read a plan."""
        found = json.loads(line)
        return cls(**{**found, "topics": tuple(found["topics"])})
