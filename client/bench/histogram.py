"""A histogram of latencies: bounded memory, relative error below 1 %. Pure.

Buckets as HdrHistogram's: exact below 256 us, then 128 for each doubling.
"""

from collections.abc import Iterable

_EXACT = 256
_STEP_BITS = 7


class Histogram:
    """Counts of durations in microseconds."""

    def __init__(self, rows: Iterable[tuple[int, int]] = ()) -> None:
        """`rows`: of `to_json`."""
        self.counts: dict[int, int] = {}
        self.count = 0
        self.max_us = 0
        for upper_us, count in rows:
            self.record(upper_us, count)

    def record(self, us: int, count: int = 1) -> None:
        """Count a duration; a negative one (clocks that were set) counts as 0."""
        us = max(us, 0)
        self.max_us = max(self.max_us, us)
        shift = us.bit_length() - _STEP_BITS - 1
        key = us if us < _EXACT else (shift << _STEP_BITS) + (us >> shift)
        self.counts[key] = self.counts.get(key, 0) + count
        self.count += count

    def merge(self, other: "Histogram") -> None:
        """Add what another one counted."""
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count
        self.count += other.count
        self.max_us = max(self.max_us, other.max_us)

    def percentile(self, percent: float) -> float:
        """Give the smallest duration in ms that `percent` of all do not exceed (0 when empty)."""
        wanted = max(1, -(-self.count * round(percent * 1000) // 100_000))  # whole numbers: no error of rounding
        seen = 0
        for key in sorted(self.counts):
            seen += self.counts[key]
            if seen >= wanted:
                return min(_upper(key), self.max_us) / 1000
        return 0.0

    @property
    def mean_ms(self) -> float:
        """Mean in ms (0 when empty)."""
        if not self.count:
            return 0.0
        return sum(_upper(key) * count for key, count in self.counts.items()) / self.count / 1000

    def powers(self) -> list[tuple[int, int]]:
        """Rows of a power of two in us, and the count of what is below it but not below half of it; no gaps."""
        counts: dict[int, int] = {}
        for key, count in self.counts.items():
            power = _upper(key).bit_length()
            counts[power] = counts.get(power, 0) + count
        return [(1 << power, counts.get(power, 0)) for power in range(min(counts), max(counts) + 1)] if counts else []

    def to_json(self) -> list[tuple[int, int]]:
        """Rows of an upper bound in us and its count, ascending; `Histogram(rows)` is this histogram again."""
        return [(min(_upper(key), self.max_us), self.counts[key]) for key in sorted(self.counts)]


def _upper(key: int) -> int:
    """Largest duration of a bucket."""
    if key < _EXACT:
        return key
    shift = (key >> _STEP_BITS) - 1
    return (((key & ((1 << _STEP_BITS) - 1)) + (1 << _STEP_BITS) + 1) << shift) - 1
