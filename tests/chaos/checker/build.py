"""Builds histories by hand: short calls, each of which is one operation, a tenth of a second after the one before."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.chaos.checker import Verdict, check
from penstock.chaos.history import Recorder

STEP = 0.1
"""Seconds from line to line."""
RU, RC = "read_uncommitted", "read_committed"
Records = Sequence[tuple[int, int] | tuple[int, int, int]]
"""Offset, value, and the leader epoch where it is not 0."""


class Book:
    """A history in the making, in a file."""

    def __init__(self, folder: Path, name: str = "history.jsonl") -> None:
        self.path = folder / name
        self._at = 0.0
        self.recorder = Recorder(self.path, self._now)

    def _now(self) -> float:
        self._at += STEP
        return self._at

    @property
    def now(self) -> float:
        """The time of the last line."""
        return self._at

    def invoke(
        self, value: int, topic: str = "t", partition: int = 0, process: str = "c1/send1.0", **fields: Any
    ) -> int:
        """Begin a send."""
        where = {"topic": topic, "partition": partition, "value": value, "acks": "all", "idempotent": True}
        return self.recorder.invoke(process, "send", **where | fields)

    def end(self, op: int, kind: str, f: str = "send", process: str = "c1/send1.0", **fields: Any) -> None:
        """End an operation."""
        if kind != "ok":
            fields = {"error": "OUTCOME_UNKNOWN", "message": "cut"} | fields
        self.recorder.complete(op, process, kind, f, **fields)

    def send(self, value: int, offset: int, process: str = "c1/send1.0", epoch: int = 0, **fields: Any) -> int:
        """A send that is acknowledged."""
        op = self.invoke(value, process=process, **fields)
        self.end(op, "ok", process=process, offset=offset, leader_epoch=epoch)
        return op

    def info(self, value: int, process: str = "c1/send1.0", **fields: Any) -> int:
        """A send of unknown outcome."""
        op = self.invoke(value, process=process, **fields)
        self.end(op, "info", process=process)
        return op

    def trim(
        self,
        before: int,
        log_start: int | None = None,
        kind: str = "ok",
        process: str = "c1/trim1.0",
    ) -> None:
        """A trim."""
        op = self.recorder.invoke(process, "trim", topic="t", partition=0, before=before)
        fields = {"log_start": before if log_start is None else log_start} if kind == "ok" else {}
        self.end(op, kind, "trim", process, **fields)

    def append(
        self,
        values: Sequence[int],
        offset: int | None,
        expected: int | None = None,
        kind: str = "ok",
        process: str = "c1/append1.0",
    ) -> None:
        """An append; without an offset as `kind` says."""
        where = {"topic": "t", "partition": 0, "values": list(values), "expected": expected}
        op = self.recorder.invoke(process, "append", **where)
        fields = {"offset": offset} if kind == "ok" else {}
        self.end(op, kind, "append", process, **fields)

    def poll(
        self,
        records: Records,
        start: int | None = None,
        end: int | None = None,
        *,
        process: str = "c1/read1.0",
        isolation: str = RU,
        partition: int = 0,
        **fields: Any,
    ) -> None:
        """A poll of one partition; positions from its records where they are not named."""
        rows = [[record[0], record[1], record[2] if len(record) > 2 else 0] for record in records]
        first = start if start is not None else rows[0][0]
        after = end if end is not None else rows[-1][0] + 1
        read = {"topic": "t", "partition": partition, "from": first, "to": after, "records": rows}
        began = self._now()
        self.recorder.read(process, "poll", began, isolation=isolation, reads=[read], **fields)

    def final(
        self,
        records: Records,
        end: int | None = None,
        committed: Records | None = None,
        *,
        partition: int = 0,
        start: int = 0,
    ) -> None:
        """The final reading of a partition in both isolations, to the end."""
        after = end if end is not None else len(records)
        self.recorder.note("runner", "end_of_log", topic="t", partition=partition, offset=after)
        second = records if committed is None else committed
        for isolation, rows in ((RU, records), (RC, second)):
            name = f"observer/final-{isolation}.0"
            self.poll(rows, start, after, process=name, isolation=isolation, partition=partition, final=True)

    def assign(self, position: int, process: str = "c1/read1.0") -> None:
        """Reading goes on there."""
        self.recorder.read(process, "assign", self.now, topic="t", partition=0, position=position)

    def end_offset(
        self,
        offset: int,
        epoch: int = 0,
        process: str = "c1/read1.0",
        isolation: str = RU,
        began: float | None = None,
    ) -> None:
        """A leader's answer to "latest"."""
        began = self._now() if began is None else began
        fields = {"topic": "t", "partition": 0, "isolation": isolation, "offset": offset, "leader_epoch": epoch}
        self.recorder.read(process, "end_offset", began, **fields)

    def start_offset(
        self, offset: int, epoch: int = 0, process: str = "c1/trim1.0", began: float | None = None
    ) -> None:
        """A leader's answer to "earliest"."""
        began = self._now() if began is None else began
        fields = {"topic": "t", "partition": 0, "offset": offset, "leader_epoch": epoch}
        self.recorder.read(process, "start_offset", began, **fields)

    def view(
        self,
        node: int,
        version: int,
        *,
        content: str | None = None,
        leader: int | None = 1,
        epoch: int = 0,
        topic_id: str = "id",
        began: float | None = None,
    ) -> None:
        """A node's metadata, of one partition; without `content` they have a hash of their version."""
        began = self._now() if began is None else began
        row = ["t", topic_id, 0, leader, epoch, 0, [1, 2], [], [1, 2]]
        shown = {"hash": content or f"of {version}", "controller": 1, "partitions": [row]}
        self.recorder.read(f"observer/node{node}.0", "view", began, node=node, version=version, **shown)

    def change(
        self, f: str, topic: str, kind: str = "ok", process: str = "c1/change1.0", topic_id: str = "", **fields: Any
    ) -> None:
        """A change of a topic."""
        op = self.recorder.invoke(process, f, topic=topic, **fields)
        self.end(op, kind, f, process, **({"topic_id": topic_id} if topic_id else {}))

    def describe(self, topic: str, topic_id: str | None, partitions: int = 0, process: str = "c1/change1.0") -> None:
        """What a client was told of a topic."""
        shown = {"exists": topic_id is not None, "topic_id": topic_id, "partitions": partitions}
        self.recorder.read(process, "describe_topic", self._now(), topic=topic, **shown)

    def fault(self, number: int, phase: str, **fields: Any) -> None:
        """A fault's entry."""
        self.recorder.note("nemesis", "fault", id=number, fault="kill", phase=phase, **fields)

    def check(self) -> Verdict:
        """End the history and judge it."""
        self.recorder.close()
        return check(self.path)


def kinds(verdict: Verdict) -> set[str]:
    """Kinds of what was found; the verdict goes to JSON and back on the way."""
    again = Verdict.from_json(json.loads(json.dumps(verdict.to_json())))
    assert again == verdict
    assert {anomaly.kind for anomaly in again.anomalies} == set(again.found)
    return set(again.found)
