"""Virtual time: events in the order of their time, then of their making; one seed for all chance; a hash of the trace.

Nothing in a world may depend on anything else: no clock, no address of an object, no order of a hash table.
"""

import heapq
import random
import zlib
from collections.abc import Callable
from typing import Any

START = 1_000.0
"""Seconds at which every world begins."""


class Scheduler:
    """Owns the present moment."""

    def __init__(self, seed: int, *, record: bool = False) -> None:
        self.now = START
        self.hash = 0
        self.lines: list[str] | None = [] if record else None
        """The trace, where it is recorded."""
        self.failure: BaseException | None = None
        """Set by `fail`: what ends the run."""
        self._seed = seed
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._numbers = 0

    @property
    def events(self) -> int:
        """How many events were made so far."""
        return self._sequence

    def number(self) -> int:
        """A number that nothing else in this world has."""
        self._numbers += 1
        return self._numbers

    def rng(self, purpose: str) -> random.Random:
        """A source of chance of its own for each purpose: a change of one does not shift the others."""
        return random.Random(f"{self._seed} {purpose}")

    def at(self, time: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function at a time, not before now."""
        self._sequence += 1
        time = max(time, self.now)
        heapq.heappush(self._events, (time, self._sequence, function, arguments))

    def after(self, delay: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function after a delay in seconds."""
        self._sequence += 1
        heapq.heappush(self._events, (self.now + max(delay, 0.0), self._sequence, function, arguments))

    def trace(self, *facts: object) -> None:
        """Note what happened. Facts must print alike in every process."""
        line = f"{self.now:.6f} {facts}"
        self.hash = zlib.crc32(line.encode(), self.hash)
        if self.lines is not None:
            self.lines.append(line)

    def fail(self, error: BaseException) -> None:
        """End the run with this error; the first one counts."""
        if self.failure is None:
            self.failure = error

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> None:
        """Run events up to a time, or until `done()`; raises what `fail` was given."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= end:
            self.now, _, function, arguments = pop(events)
            function(*arguments)
            if self.failure is not None:
                raise self.failure
            if done is not None and done():
                return
        self.now = max(self.now, end)
