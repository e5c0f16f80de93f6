"""The history of a run: what clients asked, were told and read, and what was done to the cluster, as JSON lines.

Owns the form of the file and its writing. Nothing is judged here. One line an entry, in the order of `time`:

- `time`: seconds since the run began, by the runner's monotonic clock.
- `process`: who; `<host>/<role><number>.<incarnation>`, as in `c1/send2.0`. A client's host is what its links are named
  after. After an outcome that is not known a process goes on as its next incarnation.
- `type`: `invoke`, `ok`, `fail`, `info`. `fail` only where the operation provably had no effect and will have none;
  a time-out, a cut, a "not leader" after sending is `info`. An invoke without a completion counts as `info`.
- `f`: what; and its own fields, below. A partition is always named by `topic` and `partition`. Names of topics that are
  written to are never used again in a run.

Writes have two lines, joined by `op`, a number unique in the run (completions repeat `process`, `f` and `op` only):

| f | invoke | ok |
| --- | --- | --- |
| `send` | topic, partition, value, acks, idempotent; where its topic drops records also size | offset, leader_epoch |
| | (bytes of key and value), key if it has one, and tombstone: true if it has no value | (-1: not said) |
| `append` | topic, partition, values, expected (an offset, or null) | offset (of the first value; the others follow) |
| `create_topic` | topic, partitions, replication; config, where there is one | topic_id |
| `delete_topic` | topic | |
| `add_partitions` | topic, partitions | |
| `alter_topic` | topic, config | |
| `trim` | topic, partition, before (an offset: all below is to go) | log_start |
| `group_commit` | group, at, offsets: [[topic, partition, offset], …] | |

`fail` and `info` carry `error` (a Reason's name, or the error's class) and `message`.

Reads have one line, of type `ok`, when they are complete, with `began`, the time of their beginning:

| f | fields |
| --- | --- |
| `assign` | topic, partition, position: reading goes on there, by the client's own will (start, seek) |
| `poll` | isolation, reads: [{topic, partition, from, to, records: [[offset, value, leader_epoch], …]}], with the |
| | positions before and after; `final`: true in the reading of everything at the end. Of type `fail`, with `error` |
| | and `message` and without reads: the log has lost or damaged what was read |
| `end_offset` | topic, partition, isolation, offset, leader_epoch: the answer of a leader to "latest" |
| `start_offset` | topic, partition, offset, leader_epoch: the answer of a leader to "earliest" |
| `describe_topic` | topic, exists, topic_id, partitions (their number), as a client of the API was told |
| `view` | node, version, hash, controller, partitions: [[topic, topic_id, partition, leader, leader_epoch, |
| | partition_epoch, isr, elr, replicas], …]: the metadata that this node itself shows; leader null where none leads |

Members of consumer groups are processes of their own, which send their lines to the runner: `time` is when a line came
there, `began` and `at` are of the member's own clock, which is the same. A life of a member is a process; it begins
with `group_joined`, and goes on as itself after a commit of unknown outcome. Its polls are as above, with group; there
is one after each poll that was handed records, though it be empty or have failed, for it says that the member has asked
past those. One line each, of type `ok`, with `began`:

| f | fields |
| --- | --- |
| `group_joined` | group, instance (or null), topics; commits: `auto` (the client commits what was asked past), |
| | `manual` (`group_commit`), `process` (it commits what handlers have ended with) |
| `group_assigned` | group, member (its present id), generation, partitions: [[topic, partition, granted_generation, |
| | position], …]: given to it just now; position: where it begins, which is what was committed, or null |
| `group_released` | group, partitions: [[topic, partition], …]: given up as it was asked to, or for it leaves; it |
| | had them at `began`, when its present or latest poll did |
| `group_lost` | group, partitions: it has them no more, by the session's end or since it was told so |
| `group_left` | group: it has left in order; nothing that it was handed last was committed by itself |
| `handed` | group, topic, partition, at, records (as in `poll`, in any order): handlers that were given these from |
| | `began` on have ended by `at` |
| `group_offset` | group, topic, partition, offset: what the coordinator says is committed, when all has ended |

What the runner did, of type `info`, process `nemesis` or `runner`:

| f | fields |
| --- | --- |
| `phase` | name: `warm-up` (load and faults begin), `healing`, `stopping` (no more operations begin), `final`, |
| | `end`; healthy, in the last two |
| `fault` | id, fault, phase (`inject`, `injected`, `heal`, `healed`, `failed`, `skipped`), params, detail, hit, |
| | evidence; in `injected`: nodes, majority (do a majority and min_insync replicas of each partition go on and |
| | reach each other?), cut_hosts (clients' hosts that do not reach them) |
| `end_of_log` | topic, partition, offset: the end that the final reading went to, after everything healed |
| `group_drained` | group, drained: it has committed everything, after `waited_s`; else it has stood still somewhere |
| | for so long, in health; unread: [[topic, partition, committed, end], …] |

Values are whole numbers, unique in a run; what a record holds is the number's decimal digits, perhaps a space, and
filling. A tombstone holds nothing, and has the digits in its header `value`.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TextIO

Entry = dict[str, Any]
"""One line."""
FLUSH_BYTES = 1 << 16
HEADER = "value"
"""Of a tombstone."""

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Recorder:
    """Writes the history of one run. Use from one event loop; an entry is in the file at the latest by `close`."""

    def __init__(self, path: Path, now: Callable[[], float] | None = None) -> None:
        started = time.monotonic()
        self.now = now or (lambda: time.monotonic() - started)
        """Seconds since the beginning."""
        self.zero = started
        """CLOCK_MONOTONIC at the beginning: other processes of this machine have the same clock."""
        self._file: TextIO = path.open("w", buffering=FLUSH_BYTES, encoding="utf-8")
        self._op = 0
        self._value = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def flush(self) -> None:
        """Let others read what there is."""
        self._file.flush()

    def next_value(self) -> int:
        """Give a value that nobody else has."""
        self._value += 1
        return self._value

    def invoke(self, process: str, f: str, **fields: Any) -> int:
        """Record the beginning of a write; its number."""
        self._op += 1
        self._write({"process": process, "type": "invoke", "f": f, "op": self._op, **fields})
        return self._op

    def complete(self, op: int, process: str, kind: str, f: str, **fields: Any) -> None:
        """Record the end of a write. `kind`: ok, fail, info."""
        self._write({"process": process, "type": kind, "f": f, "op": op, **fields})

    def read(self, process: str, f: str, began: float, **fields: Any) -> None:
        """Record a read that is complete."""
        self._write({"process": process, "type": "ok", "f": f, "began": round(began, 6), **fields})

    def failed_read(self, process: str, f: str, error: str, message: str, **fields: Any) -> None:
        """Record a read that found what a sound cluster never shows."""
        self._write({"process": process, "type": "fail", "f": f, **fields, "error": error, "message": message})

    def note(self, process: str, f: str, **fields: Any) -> None:
        """Record what the runner did."""
        self._write({"process": process, "type": "info", "f": f, **fields})

    def _write(self, entry: Entry) -> None:
        self._file.write(_encode({"time": round(self.now(), 6), **entry}))
        self._file.write("\n")


class HistoryError(Exception):
    """The file is no history; the message names the line."""


def entries(path: Path) -> Iterator[Entry]:
    """Read a history. A last line that was cut off is left out. Raises HistoryError, OSError."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                if not line.endswith("\n"):
                    return
                raise HistoryError(f"{path}:{number}: no JSON: {error}") from error
            if not isinstance(entry, dict) or "f" not in entry:
                raise HistoryError(f"{path}:{number}: no entry of a history")
            yield entry


def host_of(process: str) -> str:
    """Give the host of a client's process."""
    return process.partition("/")[0]


def payload(value: int, size: int = 0) -> bytes:
    """Give the record that stands for a value, at least `size` bytes long."""
    digits = b"%d" % value
    return digits if size <= len(digits) else digits + b" " + b"." * (size - len(digits) - 1)


def value_of(record: bytes | None, headers: Iterable[tuple[str, bytes | None]] = ()) -> int:
    """Give the value that a record stands for; -1 for a record that no run has written."""
    if record is None:
        record = dict(headers).get(HEADER)
    digits = (record or b"").partition(b" ")[0]
    return int(digits) if digits.isdigit() else -1
