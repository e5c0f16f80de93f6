"""Whether the starts before this one ended with all appends durable (rule 9).

At durability `commit` they always did. At `interval` and `os` an orderly stop leaves a mark, which the next start takes
away; a start without it may have lost appends, and so its places in the ISRs.
"""

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

MARK = "clean-stop"


class CleanMark:
    """Read at start, recorded at an orderly stop after the writer has drained and synced."""

    def __init__(self, data_dir: Path, durability: str, start_ids: tuple[bytes, ...]) -> None:
        self._path = data_dir / MARK
        self._always = durability == "commit"
        marked = self._path.read_text() if self._path.exists() else ""
        self._path.unlink(missing_ok=True)
        never_started = not start_ids
        self.all_clean = self._always or never_started or marked == start_ids[-1].hex()

    def registered(self) -> None:
        """A registration was answered: what came before it is settled, and this start is clean so far."""
        self.all_clean = True

    def record(self, start_id: bytes) -> None:
        """All is durable: leave the mark, unless an unclean start before this one is still to be told."""
        if self._always or not self.all_clean:
            return
        try:
            with self._path.open("w") as file:
                file.write(start_id.hex())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # a full disk: the next start then counts as one after an unclean end
            _log.warning("%s cannot be written: %s", self._path, error)
