"""A program: compacts a store again and again, killed by SIGKILL one line of code later each time.

python -m tests.storage.compact_run PATH

The lines are those of `copying` and of what `env` does for it. Prints one JSON object: how often it was killed, how
often the store was then still the former file, and what was wrong.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from penstock.storage import copying, env, heads
from penstock.storage.env import COPY, DATA_FILE
from tests.storage.damage_run import answers
from tests.storage.support import options

FILES = {copying.__file__, heads.__file__}
NAMES = {"adopt", "remove_copy", "_sync_directory"}
"""Of `env`, which has much else."""
MOST = 1_000


def compact_until(path: Path, lines: int) -> int:
    """In a process of its own, killed before its line of this number; its exit code."""
    child = os.fork()
    if child == 0:
        left = lines

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            code = frame.f_code
            if code.co_filename not in FILES and not (code.co_filename == env.__file__ and code.co_name in NAMES):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        code = 1
        try:
            sys.settrace(trace)
            copying.compact(path, options())
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(path: Path) -> None:
    expected = answers(path)
    kills = former = 0
    wrong: list[str] = []
    while kills < MOST:
        before = (path / DATA_FILE).stat().st_ino
        code = compact_until(path, kills)
        former += (path / DATA_FILE).stat().st_ino == before
        try:
            if answers(path) != expected:
                wrong.append(f"after {kills} lines: other data")
        except Exception as error:  # noqa: BLE001  whatever it is, the test must hear of it
            wrong.append(f"after {kills} lines: {error!r}")
        if (path / COPY).exists():
            wrong.append(f"after {kills} lines: the unfinished copy is still there")
        if code != -signal.SIGKILL:
            wrong += [] if code == 0 else [f"it ended with {code}"]
            break
        kills += 1
    print(json.dumps({"kills": kills, "former": former, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
