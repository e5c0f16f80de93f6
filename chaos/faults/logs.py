"""What a node has logged since a moment."""

from collections.abc import Collection
from pathlib import Path

READ_BYTES = 8 * 1024 * 1024
"""So much of the log's end is read at most."""


class LogSince:
    """The log of a node from now on. Survives that a start sets the log aside."""

    def __init__(self, path: Path | None) -> None:
        """`path`: None where the log is not at hand."""
        self.path = path
        self._from = self._size()

    def _size(self) -> int:
        try:
            return self.path.stat().st_size if self.path else 0
        except OSError:
            return 0

    def said(self, words: Collection[str]) -> int:
        """Count the lines since then that hold any of these words."""
        size = self._size()
        begin = self._from if size >= self._from else 0
        if self.path is None or size == 0:
            return 0
        with self.path.open("rb") as file:
            file.seek(max(begin, size - READ_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return sum(any(word in line for word in words) for line in lines)
