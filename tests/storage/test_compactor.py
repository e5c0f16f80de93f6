"""The process that plans a compaction, on a real store that is written to meanwhile."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.node.cleanup.compactor import Planned, plan
from penstock.storage import CheckpointHighWatermark, DropLog, LogBatch, StaleCompactionError, Store, Truncate
from penstock.storage.compaction_run import Run, Task
from penstock.storage.errors import DamagedStoreError, StorageError
from penstock.storage.layout import offset_key
from penstock.storage.log import Log
from tests.storage.support import SMALL_MAP, append, batch, commit, done, new_log, new_store

TASK = Task(now_ms=10, delete_retention_ms=5, min_lag_ms=0, passed_offset=10**9, max_key_bytes=2**20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = new_store(tmp_path / "store", durability="os")
    yield opened
    opened.close()


def filled(store: Store, batches: int = 40) -> Log:
    """A log of batches with the same three keys each, all committed."""
    log = new_log(store)
    made: list[LogBatch] = [batch(3 * at, [1, 2, 3], value=b"v%d" % at) for at in range(batches)]
    append(store, log, *made)
    done(store, CheckpointHighWatermark(log, 3 * batches))
    return log


async def planned(store: Store, log: Log) -> list[Planned]:
    return [item async for item in plan(store.environment.path, SMALL_MAP, log, TASK)]


async def test_it_plans_what_is_planned_in_this_process(store: Store) -> None:
    log = filled(store)
    run = Run(log, TASK)
    *steps, end = run.steps()
    *writes, last = await planned(store, log)
    assert [(w.write.start, w.write.end, w.write.replaced, w.write.rows) for w in writes] == [s[:4] for s in steps]
    assert last.last
    assert last.write.cleaned_offset == end[0] == 120
    assert (last.keys, last.records) == (3, 120)
    done(store, *(item.write for item in [*writes, last]))
    assert (log.state.record_count, log.state.cleaned_offset, log.state.log_end_offset) == (3, 120, 120)


async def test_it_reads_while_the_store_is_written_to(store: Store) -> None:
    log = filled(store, 2_000)
    writes: list[Planned] = []
    async for item in plan(store.environment.path, SMALL_MAP, log, TASK):
        end = log.state.log_end_offset
        append(store, log, batch(end, [9], value=b"new"))
        writes.append(item)
        done(store, item.write)
    assert len(writes) > 3
    assert log.state.log_end_offset == 6_000 + len(writes)
    assert log.state.record_count == 3 + len(writes)


async def test_a_log_that_was_cut_or_dropped_is_not_compacted(store: Store) -> None:
    log = filled(store)
    writes = await planned(store, log)
    done(store, Truncate(log, 0, 60))
    assert isinstance(commit(store, writes[0].write)[0].error, StaleCompactionError)
    done(store, DropLog(log.key))
    with pytest.raises(StaleCompactionError):
        await planned(store, log)


async def test_damage_that_it_finds_is_told(store: Store) -> None:
    log = filled(store)
    with store.environment.begin(write=True) as txn:
        database = store.environment.db["batches"]
        key = next(bytes(key) for key, _ in txn.cursor(database) if key[4:] == offset_key(0, 30)[4:])
        row = bytearray(txn.get(key, db=database))
        row[-1] ^= 1
        txn.put(key, bytes(row), db=database)
    with pytest.raises(DamagedStoreError, match="offset 30"):
        await planned(store, log)


async def test_an_end_before_the_end_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(store)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="ended before it was done"):
        await planned(store, log)


async def test_who_stops_listening_leaves_no_process(store: Store) -> None:
    log = filled(store, 2_000)
    items = plan(store.environment.path, SMALL_MAP, log, TASK)
    await anext(items)
    assert len(children(os.getpid())) == 1
    await items.aclose()  # type: ignore[attr-defined]
    assert children(os.getpid()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the broken pipe ends it")
def test_it_ends_with_the_node(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "penstock.storage.compactor"], stdin=subprocess.PIPE)
        print(child.pid, flush=True)
        time.sleep(600)
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    wait_until(lambda: has_niceness(child))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{child}/stat").exists() or is_zombie(child))


def has_niceness(pid: int) -> bool:
    """It has begun: what ends it with its parent comes before."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]) > 0


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else None
            if fields is not None and int(fields[1]) == pid and b"compactor" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(condition: object, timeout_s: float = 20.0) -> None:
    """Look until it holds: another process gets there by itself."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()
