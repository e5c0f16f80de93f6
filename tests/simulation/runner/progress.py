"""Progress, for someone who waits: a line that is kept up to date on a terminal, elsewhere a line a minute."""

from collections.abc import Callable
from typing import TextIO

EVERY_S = 60.0
TERMINAL_EVERY_S = 0.5


class Progress:
    """Owns a stream's last line while a run goes on."""

    def __init__(self, name: str, total: int, stream: TextIO, clock: Callable[[], float]) -> None:
        self._name = name
        self._total = total
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._started = self._shown = clock()
        self._width = 0

    def show(self, done: int, before: int, rate: float, failed: int) -> None:
        """Say how far the run is, if it is time; `before` of those done were done by an earlier run."""
        now = self._clock()
        if now - self._shown < (TERMINAL_EVERY_S if self._terminal else EVERY_S):
            return
        self._shown = now
        left = (now - self._started) * (self._total - done) / (done - before) if done > before else None
        line = (
            f"{self._name}: {done}/{self._total} worlds, {rate:.0f} a minute and core, {failed} failed, "
            f"{'?' if left is None else duration(left)} left"
        )
        if self._terminal:
            self._width = max(self._width, len(line))
            self._stream.write(f"\r{line:<{self._width}}")
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output."""
        if self._terminal and self._width:
            self._stream.write(f"\r{'':<{self._width}}\r")
            self._stream.flush()


def duration(seconds: float) -> str:
    """Say how long, roughly."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
