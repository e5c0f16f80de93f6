"""How long the chaos suite's checker takes for a large history, and how much memory.

    python -m benchmarks.chaos_checker [--sends 1000000] [--path DIR]

The history is of a sound run: idempotent sends of eight processes over 24 partitions, some of unknown outcome; readers
of all partitions, in both isolations, which read each record a while after its acknowledgement; questions for ends; and
the final reading in both isolations. Time and memory are those of a process of its own that does nothing but check.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.chaos.checker import check
from penstock.chaos.history import Recorder

PARTITIONS = 24
SENDERS = 8
READERS = 4
BURST = 20
"""Records that a sender has under way at a time."""
UNKNOWN_SHARE = 0.002
POLL_EVERY = 200
"""Sends between polls of a reader."""
FINAL_RECORDS = 5_000
"""In a poll of the final reading."""
ISOLATIONS = ("read_uncommitted", "read_committed")
Row = list[int]


class Run:
    """A run of a cluster that does everything right, as a history."""

    def __init__(self, recorder: Recorder, sends: int) -> None:
        self._recorder = recorder
        self._sends = sends
        self._rng = random.Random(1)  # noqa: S311 - the same history each time
        self._logs: list[list[Row]] = [[] for _ in range(PARTITIONS)]
        self._lives = [0] * SENDERS
        self._positions = [[0] * PARTITIONS for _ in range(READERS)]

    def write(self) -> None:
        """Write it all."""
        polled = 0
        for done in range(0, self._sends, BURST):
            self._burst(self._rng.randrange(SENDERS), min(BURST, self._sends - done))
            if done - polled >= POLL_EVERY:
                polled = done
                self._read_all()
        for isolation in ISOLATIONS:
            self._final(isolation)
        for partition, log in enumerate(self._logs):
            self._recorder.note("runner", "end_of_log", **_where(partition), offset=len(log))

    def _burst(self, sender: int, count: int) -> None:
        """A sender has some records under way, then learns of each."""
        partition = self._rng.randrange(PARTITIONS)
        process = f"c{sender}/send{sender}.{self._lives[sender]}"
        fields = {**_where(partition), "acks": "all", "idempotent": True}
        values = [self._recorder.next_value() for _ in range(count)]
        ops = [self._recorder.invoke(process, "send", value=value, **fields) for value in values]
        log = self._logs[partition]
        for op, value in zip(ops, values, strict=True):
            if self._rng.random() < UNKNOWN_SHARE:
                if self._rng.random() < 0.5:
                    log.append([len(log), value, 1])
                self._recorder.complete(op, process, "info", "send", error="OUTCOME_UNKNOWN", message="cut")
                self._lives[sender] += 1
            else:
                self._recorder.complete(op, process, "ok", "send", offset=len(log), leader_epoch=1)
                log.append([len(log), value, 1])

    def _read_all(self) -> None:
        for reader, positions in enumerate(self._positions):
            began, isolation = self._recorder.now(), ISOLATIONS[reader % 2]
            reads = [
                {**_where(partition), "from": start, "to": len(log), "records": log[start:]}
                for partition, (start, log) in enumerate(zip(positions, self._logs, strict=True))
                if start < len(log)
            ]
            positions[:] = [len(log) for log in self._logs]
            self._recorder.read(f"c{reader}/read{reader}.0", "poll", began, isolation=isolation, reads=reads)
            partition = self._rng.randrange(PARTITIONS)
            told = {"isolation": isolation, "offset": positions[partition], "leader_epoch": 1}
            self._recorder.read(f"c{reader}/ends{reader}.0", "end_offset", began, **_where(partition), **told)

    def _final(self, isolation: str) -> None:
        for partition, log in enumerate(self._logs):
            for start in range(0, len(log), FINAL_RECORDS):
                records = log[start : start + FINAL_RECORDS]
                read = {**_where(partition), "from": start, "to": start + len(records), "records": records}
                fields: dict[str, Any] = {"isolation": isolation, "final": True, "reads": [read]}
                self._recorder.read(f"final/{isolation}.0", "poll", self._recorder.now(), **fields)


def _where(partition: int) -> dict[str, Any]:
    return {"topic": "load", "partition": partition}


def _checked(path: Path) -> dict[str, Any]:
    """Check in this process; what it took."""
    began = time.perf_counter()
    verdict = check(path)
    took, cpu = time.perf_counter() - began, time.process_time()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"verdict": verdict.to_json(), "seconds": took, "cpu_s": cpu, "peak_mb": peak_mb}


def _lines(result: dict[str, Any], size: int, lines: int) -> Iterator[str]:
    verdict = result["verdict"]
    yield f"history: {size / 1e6:.0f} MB, {lines} lines"
    yield f"checked in {result['seconds']:.1f} s ({result['cpu_s']:.1f} s of CPU, start included)"
    yield f"peak: {result['peak_mb']:.0f} MiB"
    yield f"valid: {verdict['valid']}; counts: {verdict['counts']}; allowed: {verdict['allowed']}"


def main() -> None:
    """Write a history and check it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends", type=int, default=1_000_000)
    parser.add_argument("--path", type=Path, default=None, help="where the history is written; default: a temporary")
    parser.add_argument("--check", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check is not None:
        sys.stdout.write(json.dumps(_checked(arguments.check)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.path) as folder:
        history = Path(folder) / "history.jsonl"
        with Recorder(history) as recorder:
            Run(recorder, arguments.sends).write()
        with history.open("rb") as file:
            lines = sum(1 for _ in file)
        command = [sys.executable, "-m", "benchmarks.chaos_checker", "--check", str(history)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very program
        sys.stdout.write("\n".join(_lines(json.loads(answer.stdout), history.stat().st_size, lines)) + "\n")


if __name__ == "__main__":
    main()
