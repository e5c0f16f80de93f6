"""What a member tells the runner: a line of JSON each, in the kernel's hands before the member goes on.

So a line is there though the member be killed right after it. Kinds of lines:

- `{"f": …, …}`: an entry of the history, as penstock.chaos.history has it, without time, process and type.
- `{"commit": number, "fields": {…}}`, `{"commit": number, "end": ok, fail or info, …}`: both ends of a `group_commit`.
- `{"error": class, "message": …}`: what went wrong; for people only.
"""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

MESSAGE_CHARS = 240
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Voice:
    """See the module. Use from one thread."""

    def __init__(self, connection: socket.socket, clock_zero: float) -> None:
        self._connection = connection
        self._zero = clock_zero
        self._commits = 0

    def now(self) -> float:
        """Give the history's time."""
        return round(time.monotonic() - self._zero, 6)

    def did(self, f: str, began: float, **fields: Any) -> None:
        """Tell of what is complete."""
        self._say({"f": f, "began": began, **fields})

    def commits(self, fields: Mapping[str, Any]) -> int:
        """Tell of a commit that begins; its number."""
        self._commits += 1
        self._say({"commit": self._commits, "fields": {"at": self.now(), **fields}})
        return self._commits

    def committed(self, number: int) -> None:
        """A commit has succeeded, all of it."""
        self._say({"commit": number, "end": "ok"})

    def not_committed(self, number: int, kind: str, error: Exception) -> None:
        """A commit has failed, or nobody knows."""
        self._say({"commit": number, "end": kind, **_told(error)})

    def failed(self, error: Exception) -> None:
        """Something went wrong."""
        self._say(_told(error))

    def _say(self, line: Mapping[str, Any]) -> None:
        self._connection.sendall(_encode(line).encode() + b"\n")


def _told(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)[:MESSAGE_CHARS]}
