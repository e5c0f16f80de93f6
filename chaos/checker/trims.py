"""What clients asked to be deleted."""

from dataclasses import dataclass

from penstock.chaos.checker.writes import NEVER, OPEN


@dataclass(slots=True)
class Trim:
    """The oldest records of a partition, all below an offset."""

    spot: int
    op: int
    process: int
    before: int
    invoked: float
    completed: float = NEVER
    outcome: int = OPEN
    log_start: int = 0
    """As acknowledged."""

    @property
    def highest(self) -> int:
        """Where the log may begin for its sake."""
        return max(self.before, self.log_start)
