"""Hand-made histories for the measures and the report: a clock that is set, and a steady load."""

from pathlib import Path
from typing import Any

from penstock.chaos.history import Recorder


class Script:
    """Writes a history at the times that it is told; entries are written in the order of the calls."""

    def __init__(self, path: Path) -> None:
        self.time = 0.0
        self.path = path
        self.recorder = Recorder(path, lambda: self.time)
        self._names: dict[int, str] = {}

    def write(self, at: float, took: float | None = 0.1, kind: str = "ok", host: str = "c1", **fields: Any) -> None:
        """One write, by default an acknowledged send; `took` None: never completed. `f`, `topic`, `error` as fields."""
        f, topic = fields.pop("f", "send"), fields.pop("topic", "t")
        self.time = at
        op = self.recorder.invoke(f"{host}/{f}1.0", f, topic=topic)
        if took is not None:
            self.time = at + took
            self.recorder.complete(op, f"{host}/{f}1.0", kind, f, **fields)

    def load(self, start: float, end: float, every: float = 0.1, **fields: Any) -> None:
        """Writes at a steady rate, each complete before the next begins."""
        for index in range(round((end - start) / every)):
            self.write(start + index * every, took=every / 2, **fields)

    def fault(self, at: float, phase: str, number: int = 1, **fields: Any) -> None:
        """An entry of a fault."""
        self.time = at
        name = self._names.setdefault(number, fields.pop("fault", "kill"))
        self.recorder.note("nemesis", "fault", id=number, fault=name, phase=phase, **fields)

    def injected(self, at: float, number: int = 1, **fields: Any) -> None:
        """A fault's injection, complete at once."""
        self.fault(at, "inject", number, params={"who": "leader"}, fault=fields.pop("fault", "kill"))
        effect = {"nodes": [1], "majority": True, "cut_hosts": [], "detail": "node 1 killed", **fields}
        self.fault(at, "injected", number, **effect)

    def healed(self, at: float, number: int = 1, **fields: Any) -> None:
        """A fault's heal, complete at once."""
        self.fault(at, "heal", number)
        self.fault(at, "healed", number, **{"hit": True, "evidence": "the process is gone", **fields})

    def poll(self, at: float, records: int, final: bool = False) -> None:
        """A poll that read so many records."""
        self.time = at
        read = {"topic": "t", "partition": 0, "from": 0, "to": records, "records": [[i, i, 0] for i in range(records)]}
        self.recorder.read("c1/read1.0", "poll", at - 0.01, isolation="read_committed", reads=[read], final=final)

    def done(self) -> Path:
        """End the file."""
        self.recorder.close()
        return self.path
