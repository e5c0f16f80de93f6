"""What was dropped goes in the background: its room is used again, a crash does not lose track of it, appends go on."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.protocol.batch import ProducerStamp
from penstock.storage import Append, DropLog, MoveStart, Outcome, ResetLog, Store, Write
from tests.storage.support import append, batch, done, formatted, key, new_log, new_store, options
from tests.storage.sweep_run import CHUNK_ROWS, KEPT
from tests.storage.test_room import MIB, sweep_all
from tests.storage.test_writer import Recorded

ROOT = Path(__file__).parents[2]
WAIT_S = 60
SPACES = ("batches", "epochs", "times", "producers", "known", "garbage")


def rows_of(store: Store) -> dict[str, int]:
    with store.environment.begin() as txn:
        return {name: txn.stat(store.environment.db[name])["entries"] for name in SPACES}


def write_topic(store: Store, number: int, sizes: tuple[int, ...], group: int, chance: random.Random) -> None:
    """Batches of these sizes, of some producers and epochs, so many in a commit."""
    log, size, at = new_log(store, number), 0, 0
    while size < 16 * MIB:
        batches = []
        for _ in range(group):
            value, stamp = chance.randbytes(chance.choice(sizes)), ProducerStamp(at % 5, 0, at // 5)
            batches.append(batch(at, [at * 50], value=value, stamp=stamp))
            size += len(value)
            at += 1
        append(store, log, *batches)


def topics_in_turn(path: Path, sizes: tuple[int, ...], group: int, count: int) -> list[int]:
    """Write a topic and delete it, again and again; what the file took of the disk when each was written."""
    chance, taken = random.Random(7), []
    with contextlib.closing(new_store(path)) as store:
        for number in range(1, count + 1):
            write_topic(store, number, sizes, group, chance)
            taken.append(store.environment.disk_bytes())
            done(store, DropLog(key(number)))
            sweep_all(store)
        assert rows_of(store) == dict.fromkeys(SPACES, 0)
    return taken


@pytest.mark.parametrize("sizes", [(60_000,), (500, 4_000, 60_000, 200_000)])
def test_a_topic_of_the_same_size_takes_the_room_of_one_that_was_deleted(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    taken = topics_in_turn(tmp_path / "store", sizes, 8, 5)
    assert max(taken) < taken[0] * 1.2, taken


def test_with_a_commit_for_each_batch_the_file_is_larger_but_stops_growing(tmp_path: Path) -> None:
    """Each commit takes some single pages too, from the same free room as long as that has any.

    They are free again soon, but scattered, and a batch wants adjacent pages: measured 1.6 times what is used.
    """
    taken = topics_in_turn(tmp_path / "store", (60_000,), 1, 9)
    assert max(taken) < taken[0] * 1.9, taken
    assert taken[-1] < taken[-3] * 1.05, taken


def test_the_room_of_a_trimmed_and_of_a_reset_log_is_used_again(tmp_path: Path) -> None:
    """First in, first out, and a follower that starts anew again and again."""
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log, other = new_log(store), new_log(store, 2)
        value, sizes = b"v" * 100_000, []
        for round_number in range(5):
            for at in range(100):
                append(store, log, batch(round_number * 100 + at, value=value))
                append(store, other, batch(at, value=value))
            sizes.append(store.environment.disk_bytes())
            done(
                store, MoveStart(log, 0, round_number * 100 + 99), ResetLog(other, 0, new_log(store, 3).replica_seed())
            )
            sweep_all(store)
        assert max(sizes) < sizes[0] * 1.15, sizes


# ---- a crash in the middle


def sweep_until_killed(path: Path, chunks: int) -> int:
    """Kill the program while it is at the chunk after so many; the end of its log that it told last."""
    command = [sys.executable, "-m", "tests.storage.sweep_run", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n" * (chunks + 1))
        process.stdin.flush()
        told = [process.stdout.readline() for _ in range(chunks)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().splitlines(keepends=True)
        assert process.wait() == -signal.SIGKILL
    return int([line for line in told if line.endswith("\n")][-1])


def test_kill_9_in_a_sweep_and_it_goes_on_after_the_next_start(tmp_path: Path) -> None:
    path = formatted(tmp_path / "store")
    with contextlib.closing(Store.open(path, options())) as store:
        new_log(store, KEPT)
        dropped = new_log(store, 2)
        for at in range(0, 600, 50):
            stamps = [ProducerStamp(offset, 0, 0) for offset in range(at, at + 50)]
            append(store, dropped, *(batch(at + index, [at], stamp=stamp) for index, stamp in enumerate(stamps)))
        done(store, DropLog(dropped.key))
        left = [sum(rows_of(store).values())]
    for _ in range(4):
        end = sweep_until_killed(path, 5)
        with contextlib.closing(Store.open(path, options())) as store:
            left.append(sum(rows_of(store).values()))
            (log,) = store.logs()
            assert log.state.log_end_offset >= end
            assert [b.base_offset for b in log.read(0, 2**40, 2**30)] == list(range(log.state.log_end_offset))
            assert store.garbage
    assert left == sorted(set(left), reverse=True), left  # each went on where the one before was
    with contextlib.closing(Store.open(path, options())) as store:
        sweep_all(store)
        (log,) = store.logs()
        rows = {"batches": log.state.log_end_offset, "epochs": 1}
        assert rows_of(store) == {**dict.fromkeys(SPACES, 0), **rows}
    with contextlib.closing(Store.open(path, options())) as store:
        assert store.garbage == {}


# ---- beside appends


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with contextlib.closing(new_store(tmp_path / "store")) as opened:
        yield opened


def test_appends_wait_for_one_chunk_at_most(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two rounds of a writer that has work all the time there is one sweep, which deletes a bounded part."""
    monkeypatch.setattr("penstock.storage.commit.SWEEP_ROWS", CHUNK_ROWS)
    dropped, live = new_log(store, 2), new_log(store)
    append(store, dropped, *(batch(at) for at in range(40 * CHUNK_ROWS)))
    recorded = Recorded(store)
    steps, swept, enough = list[int](), recorded.sweep, threading.Event()

    def commit(writes: list[Write]) -> list[Outcome]:
        """The next append is queued before this one is committed."""
        steps.append(-1)
        end = live.state.log_end_offset
        if any(isinstance(write, Append) for write in writes) and end < 30:
            writer.submit(Append(live, 0, (batch(end + 1),)))
        elif end >= 30:
            enough.set()
        return Recorded.commit(recorded, writes)

    def sweep() -> bool:
        before = sum(rows_of(store).values())
        more = swept()
        steps.append(before - sum(rows_of(store).values()))
        return more

    recorded.commit, recorded.sweep = commit, sweep  # type: ignore[method-assign,assignment]  # to see the order
    writer = recorded.writer()
    writer.submit(DropLog(dropped.key))
    writer.submit(Append(live, 0, (batch(0),)))
    writer.start()
    assert enough.wait(WAIT_S)
    writer.stop()
    assert recorded.fatal == []
    assert all(outcome.error is None for outcomes in recorded.told for outcome in outcomes)
    until = [index for index, step in enumerate(steps) if step == -1][30]
    assert steps[0:until:2] == [-1] * len(steps[0:until:2])  # a round, a chunk, a round, ...
    assert all(0 < step <= CHUNK_ROWS + 1 for step in steps[1:until:2]), steps
