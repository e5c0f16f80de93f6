"""Whether this node's wall clock may be trusted to drop records by time (rule 30). A pure core.

It may not while it disagrees by more than the tolerance with what most nodes' clocks say (the controller tells it), or
with the monotonic clock: a step of the wall clock, or a machine that slept. After a step it is trusted again when the
two clocks have agreed on the new difference for a while and most nodes' clocks say the same. Before anything was heard
of the others' clocks it is not trusted for as long as the tolerance; after that the controller is of a version that
does not tell.
"""

TOLERANCE_MS = 60_000
"""Clocks that differ by no more agree."""
SETTLE_MS = 600_000
"""How long a wall clock that was set must have gone well."""


class ClockTrust:
    """Fed by the node's tick and by the answers to its heartbeats. Times in ms."""

    def __init__(self, tolerance_ms: int = TOLERANCE_MS, settle_ms: int = SETTLE_MS) -> None:
        self._tolerance_ms = tolerance_ms
        self._settle_ms = settle_ms
        self._trusted = False
        self._began_ms: int | None = None
        self._baseline = 0
        """Wall less monotonic time, as it was trusted last."""
        self._stepped: tuple[int, int] | None = None
        """Wall less monotonic time after a step, and the monotonic time since which it stands."""
        self._cluster: int | None = None
        """What most nodes' clocks say, less monotonic time."""

    @property
    def trusted(self) -> bool:
        """As of the last `observe`."""
        return self._trusted

    def heard(self, cluster_ms: int, monotonic_ms: int) -> None:
        """The controller says what most nodes' clocks said at this monotonic time; 0: it does not know."""
        if cluster_ms:
            self._cluster = cluster_ms - monotonic_ms

    def observe(self, wall_ms: int, monotonic_ms: int) -> bool:
        """Compare the clocks, read at one moment; whether the answer changed."""
        offset = wall_ms - monotonic_ms
        if self._began_ms is None:
            self._began_ms, self._baseline = monotonic_ms, offset
        agrees = self._agrees_with_others(offset, monotonic_ms - self._began_ms)
        self._follow(offset, monotonic_ms, agrees=agrees)
        former, self._trusted = self._trusted, agrees and self._stepped is None
        return former != self._trusted

    def _agrees_with_others(self, offset: int, age_ms: int) -> bool:
        if self._cluster is None:
            return age_ms >= self._tolerance_ms
        return abs(offset - self._cluster) <= self._tolerance_ms

    def _follow(self, offset: int, monotonic_ms: int, *, agrees: bool) -> None:
        """Note a step of the wall clock, and its end: taken back, or the new time has settled."""
        if abs(offset - self._baseline) <= self._tolerance_ms:
            self._stepped = None
        elif self._stepped is None or not agrees or abs(offset - self._stepped[0]) > self._tolerance_ms:
            self._stepped = (offset, monotonic_ms)
        elif monotonic_ms - self._stepped[1] >= self._settle_ms:
            self._baseline, self._stepped = offset, None
