"""A cluster that does everything right, in a few lines, driven by a list of steps; it gives the history of its clients.

Writers hand records over in order, each lands in the log or not, and what its writer learns of that is another matter.
"""

from dataclasses import dataclass, field
from typing import Any

Entry = dict[str, Any]
Step = tuple[str, int, int, int]
"""What, and three numbers to draw from."""
PARTITIONS = 2
WRITERS = 3
NOT_IDEMPOTENT = 2
"""The writer that may append a record twice."""
READERS = 3
ISOLATIONS = ("read_uncommitted", "read_committed")
STEPS = ("send", "settle", "append", "poll", "assign", "end", "elect", "crash")
BEGINNING: tuple[Step, ...] = (
    *[("send", 0, 0, 0)] * 4,
    *[("settle", 0, 0, 0)] * 3,
    ("settle", 0, 4, 0),
    *[("end", 0, 0, 0), ("poll", 0, 0, 9)],
    *[("append", 1, 0, 2), ("append", 1, 0, 3), ("end", 0, 0, 0)],
)
"""So that there is something of each kind in every history."""


@dataclass
class Sent:
    """A record under way."""

    op: int
    process: str
    partition: int
    value: int


@dataclass
class Model:
    """See the module."""

    entries: list[Entry] = field(default_factory=list)
    logs: list[list[list[int]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    epochs: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    pending: list[list[Sent]] = field(default_factory=lambda: [[] for _ in range(WRITERS)])
    lives: list[int] = field(default_factory=lambda: [0] * WRITERS)
    positions: dict[tuple[int, int], int] = field(default_factory=dict)
    last_op: int = 0
    last_value: int = 0

    def run(self, steps: list[Step]) -> list[Entry]:
        """Take the steps, read everything in the end, give the history."""
        for name, *numbers in (*BEGINNING, *steps):
            getattr(self, name)(*numbers)
        self._final()
        return self.entries

    # ---- steps

    def send(self, writer: int, partition: int, _: int) -> None:
        writer, partition = writer % WRITERS, partition % PARTITIONS
        sent = Sent(self._next_op(), self._writer(writer), partition, self._next_value())
        fields = {"value": sent.value, "acks": "all", "idempotent": writer != NOT_IDEMPOTENT}
        self._write(sent.process, "invoke", "send", op=sent.op, **self._where(partition), **fields)
        self.pending[writer].append(sent)

    def settle(self, writer: int, how: int, _: int) -> None:
        """The oldest record lands and is acknowledged, or either not, or neither."""
        writer, how = writer % WRITERS, how % 9
        if not self.pending[writer]:
            return
        sent = self.pending[writer].pop(0)
        offset = self._land(sent.partition, [sent.value]) if how not in (5, 6) else -1
        if how == 8 and writer == NOT_IDEMPOTENT:
            self._land(sent.partition, [sent.value])
        if how in (4, 5):
            self._unknown(sent.process, "send", sent.op)
            self.lives[writer] += 1
        elif how == 6:
            self._write(sent.process, "fail", "send", op=sent.op, error="NOT_LEADER", message="moved")
        elif how != 7:
            epoch = self.epochs[sent.partition]
            self._write(sent.process, "ok", "send", op=sent.op, offset=offset, leader_epoch=epoch)

    def append(self, writer: int, partition: int, how: int) -> None:
        writer, partition = writer % WRITERS, partition % PARTITIONS
        process, op, end = self._writer(writer), self._next_op(), len(self.logs[partition])
        values = [self._next_value() for _ in range(1 + how % 3)]
        expected = None if how % 2 else end + (how % 5 == 4)
        process = process.replace("send", "append")
        self._write(process, "invoke", "append", op=op, **self._where(partition), values=values, expected=expected)
        if expected not in (None, end):
            self._write(process, "fail", "append", op=op, error="EXPECTED_OFFSET_MISMATCH", message="no")
        elif how % 7 == 6:
            self._unknown(process, "append", op)
            self.lives[writer] += 1
        else:
            offset = self._land(partition, values)
            self._write(process, "ok", "append", op=op, offset=offset)

    def poll(self, reader: int, partition: int, most: int) -> None:
        reader, partition = reader % READERS, partition % PARTITIONS
        start = self.positions.get((reader, partition), 0)
        records = [list(record) for record in self.logs[partition][start : start + most]]
        self.positions[reader, partition] = start + len(records)
        self._read(f"c1/read{reader}.0", ISOLATIONS[reader % 2], partition, start, records)

    def assign(self, reader: int, partition: int, position: int) -> None:
        reader, partition = reader % READERS, partition % PARTITIONS
        position = min(position, len(self.logs[partition]))
        self.positions[reader, partition] = position
        self._write(f"c1/read{reader}.0", "ok", "assign", **self._where(partition), position=position)

    def end(self, reader: int, partition: int, isolation: int) -> None:
        partition = partition % PARTITIONS
        told = {"offset": len(self.logs[partition]), "leader_epoch": self.epochs[partition]}
        began, isolation = self._now() - 0.05, isolation % 2
        fields = {**self._where(partition), **told, "isolation": ISOLATIONS[isolation], "began": began}
        self._write(f"c1/read{reader % READERS}.0", "ok", "end_offset", **fields)

    def elect(self, partition: int, _: int, __: int) -> None:
        self.epochs[partition % PARTITIONS] += 1

    def crash(self, writer: int, landed: int, _: int) -> None:
        """A client is gone, with records under way, the first of which have landed."""
        writer = writer % WRITERS
        for number, sent in enumerate(self.pending[writer]):
            if number < landed:
                self._land(sent.partition, [sent.value])
        self.pending[writer].clear()
        self.lives[writer] += 1

    # ---- inside

    def _final(self) -> None:
        for partition, log in enumerate(self.logs):
            for isolation in ISOLATIONS:
                records = [list(record) for record in log]
                self._read(f"final/{isolation}.0", isolation, partition, 0, records, final=True)
            self._write("runner", "info", "end_of_log", **self._where(partition), offset=len(log))

    def _land(self, partition: int, values: list[int]) -> int:
        log = self.logs[partition]
        first = len(log)
        log += [[first + index, value, self.epochs[partition]] for index, value in enumerate(values)]
        return first

    def _read(self, process: str, isolation: str, partition: int, start: int, records: list[Any], **more: Any) -> None:
        read = {**self._where(partition), "from": start, "to": start + len(records), "records": records}
        self._write(process, "ok", "poll", began=self._now() - 0.05, isolation=isolation, reads=[read], **more)

    def _unknown(self, process: str, f: str, op: int) -> None:
        self._write(process, "info", f, op=op, error="OUTCOME_UNKNOWN", message="cut")

    def _write(self, process: str, kind: str, f: str, **fields: Any) -> None:
        self.entries.append({"time": self._now(), "process": process, "type": kind, "f": f, **fields})

    def _now(self) -> float:
        return round(0.1 * (len(self.entries) + 1), 6)

    def _where(self, partition: int) -> dict[str, Any]:
        return {"topic": "t", "partition": partition}

    def _writer(self, writer: int) -> str:
        return f"c1/send{writer}.{self.lives[writer]}"

    def _next_op(self) -> int:
        self.last_op += 1
        return self.last_op

    def _next_value(self) -> int:
        self.last_value += 1
        return self.last_value
