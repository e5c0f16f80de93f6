"""Processes that outlive the program that started them, known by pid and start time so that a reused pid is no match.

Owns starting, finding and signalling them. Never signals a process whose start time is not the recorded one.
"""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Children of this very process, which must be reaped before they count as gone."""


@dataclass(frozen=True, slots=True)
class DetachedProcess:
    """A process by pid and start time. `started` compares for equality only."""

    pid: int
    started: str

    @classmethod
    def spawn(cls, command: Sequence[str], log: Path) -> Self:
        """Start `command` in a session of its own, its output appended to `log`."""
        with log.open("ab") as out:
            child = subprocess.Popen(  # noqa: S603  the caller's own command line, no shell
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        _children[child.pid] = child
        return cls(child.pid, _started(child.pid) or "")

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None where there is nothing usable."""
        try:
            fields = json.loads(path.read_text())
            return cls(int(fields["pid"]), str(fields["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Write pid and start time to `path`, at once or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"pid": self.pid, "started": self.started}))
        part.replace(path)

    def is_alive(self) -> bool:
        """Say whether this very process still runs."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            del _children[self.pid]
        return self.started != "" and _started(self.pid) == self.started

    def send(self, number: signal.Signals) -> bool:
        """Signal the process; False where it is gone. Where the system has pidfds, no pid can be reused in between."""
        if not hasattr(os, "pidfd_open"):
            return self._send_by_pid(number)
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except OSError:  # a kernel or sandbox without pidfds
            return self._send_by_pid(number)
        try:
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def _send_by_pid(self, number: signal.Signals) -> bool:
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def _started(pid: int) -> str | None:
    """Text that tells this process from any other that has or had its pid; None where none runs.

    A zombie does not run, unless threads of it do: killed in a call that waits for a disk, they still hold its files.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    # The name, in parentheses, may hold spaces; behind it come the state (field 3), the number of threads (20) and, in
    # ticks, the start (22).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} and int(fields[17]) <= 1 else f"{boot}:{fields[19]}"


def _started_by_ps(pid: int) -> str | None:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  fixed command
    state, _, started = answer.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
