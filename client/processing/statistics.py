"""What process() has done so far. Pure."""

from dataclasses import dataclass
from typing import NamedTuple


class ProcessingStatistics(NamedTuple):
    """Counts since process() began."""

    processed: int
    """Records whose handler returned."""
    failed: int
    """Times that a handler or `parse` raised."""
    retried: int
    """Times that a handler was, or will be, called again."""
    skipped: int
    dead_lettered: int
    lost: int
    """Records whose handler was running when their partition was lost: they come again elsewhere."""
    running: int
    """Handlers that run now."""
    in_flight: int
    """Records taken and not below their partition's commit position."""


@dataclass(slots=True)
class Counters:
    """The same, while it changes."""

    processed: int = 0
    failed: int = 0
    retried: int = 0
    skipped: int = 0
    dead_lettered: int = 0
    lost: int = 0

    def snapshot(self, running: int, in_flight: int) -> ProcessingStatistics:
        """Give the counts as they are now."""
        return ProcessingStatistics(
            self.processed, self.failed, self.retried, self.skipped, self.dead_lettered, self.lost, running, in_flight
        )
