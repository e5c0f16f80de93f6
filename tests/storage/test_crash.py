"""kill -9 in the middle of committing rounds: every acknowledged round is there, and the store is whole."""

import contextlib
import random
import signal
import subprocess
import sys
from pathlib import Path

from penstock.protocol.batch import ProducerStamp
from penstock.protocol.batch import read as read_records
from penstock.storage import Store
from penstock.storage.producers import ProducerBatch
from penstock.v1 import record_pb2
from tests.storage.crash_run import LOGS
from tests.storage.support import append, batch, formatted, key, options

ROOT = Path(__file__).parents[2]
KILLS = 6


def run_until_killed(path: Path, rounds: int) -> list[int]:
    """Kill the program some time after so many rounds; the log ends of the last round that it acknowledged."""
    command = [sys.executable, "-m", "tests.storage.crash_run", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(rounds):
            assert process.stdout.readline(), "the program ended by itself"
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        assert process.wait() == -signal.SIGKILL
    whole = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    return [int(end) for end in whole[-1].split()] if whole else []


def test_kill_9_loses_no_acknowledged_round(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(KILLS):
        acknowledged = run_until_killed(path, chance.randrange(5, 60))
        with contextlib.closing(Store.open(path, options())) as store:
            for number in range(LOGS):
                check_log(store, number, acknowledged[number] if acknowledged else 0)


def check_log(store: Store, number: int, acknowledged: int) -> None:
    log = store.log(key(number))
    assert log is not None
    end = log.state.log_end_offset
    assert end >= acknowledged
    found = log.read(0, end, 2**40)
    assert [b.base_offset for b in found] == list(range(end))
    for b in found:
        (record,) = read_records(record_pb2.RecordBatch.FromString(b.payload))
        assert set(record.value) == {b.base_offset % 251}
    state = log.producer(number)
    assert (state is None) == (end == 0)
    if state is not None:
        assert state.batches == tuple(ProducerBatch(at, at, at, at) for at in range(max(0, end - 5), end))
    append(store, log, batch(end, [end], value=bytes([end % 251]), stamp=ProducerStamp(number, 0, end)))
