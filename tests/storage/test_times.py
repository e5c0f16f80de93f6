"""find_timestamp is exact to the record, and looks at a bounded part of the log."""

import contextlib
import random
from pathlib import Path

import pytest

from penstock.protocol.batch import read as read_records
from penstock.storage import Append, Log, MoveStart, Store, Truncate, layout
from penstock.storage import log as log_module
from penstock.storage.layout import INDEX_BYTES
from penstock.v1 import record_pb2
from tests.storage.support import batch, commit, done, new_log, new_store

ENDLESS = 2**40


def scan(log: Log, timestamp_ms: int, end: int) -> tuple[int, int] | None:
    """The slow way."""
    for b in log.read(log.state.log_start_offset, end, ENDLESS):
        for record in read_records(record_pb2.RecordBatch.FromString(b.payload)):
            at, timestamp = b.base_offset + record.offset_delta, b.header.base_timestamp_ms + record.timestamp_delta_ms
            if timestamp >= timestamp_ms and at < end:
                return at, timestamp
    return None


def fill(store: Store, log: Log, times: list[list[int]], size: int = 10_000) -> None:
    end, made = log.state.log_end_offset, []
    for timestamps in times:
        made.append(batch(end, timestamps, value=b"v" * (size // len(timestamps))))
        end += len(timestamps)
    done(store, Append(log, 0, tuple(made)))


def check(log: Log, asked: range) -> None:
    end = log.state.log_end_offset
    for timestamp in asked:
        for limit in {end, end // 2, log.state.log_start_offset}:
            assert log.find_timestamp(timestamp, limit) == scan(log, timestamp, limit)


@pytest.mark.parametrize("shape", ["rising", "constant", "falling", "random", "one high at the start"])
def test_exact_also_after_cuts(tmp_path: Path, shape: str) -> None:
    chance = random.Random(5)
    times = {
        "rising": [[at * 4 + step for step in range(3)] for at in range(60)],
        "constant": [[100] * 3 for _ in range(60)],
        "falling": [[240 - at * 4 - step for step in range(3)] for at in range(60)],
        "random": [[chance.randrange(240) for _ in range(3)] for _ in range(60)],
        "one high at the start": [[1, 200, 3], *([at, at + 1, at - 1] for at in range(59))],
    }[shape]
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log = new_log(store)
        fill(store, log, times)
        check(log, range(-10, 260, 13))
        done(store, Truncate(log, 0, 120))
        check(log, range(-10, 260, 13))
        done(store, MoveStart(log, 0, 30))
        check(log, range(-10, 260, 13))
        fill(store, log, times[:20])
        check(log, range(-10, 260, 13))
        done(store, Truncate(log, 0, 33), Truncate(log, 0, 30))
        assert log.find_timestamp(0, 30) is None
        fill(store, log, times[20:])
        check(log, range(-10, 260, 13))


def test_the_first_record_at_an_offset_or_after_it_is_found_with_its_time(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log = new_log(store)
        fill(store, log, [[at * 4 + step for step in range(3)] for at in range(10)])
        done(store, MoveStart(log, 0, 7))
        for offset in range(32):
            for end in (30, 20, 7):
                start = max(offset, 7)
                expected = (start, start // 3 * 4 + start % 3) if start < end else None
                assert log.find_offset(offset, end) == expected, (offset, end)


@pytest.mark.parametrize("step", [0, 1, -1])
def test_lookups_and_cuts_read_a_bounded_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """However the timestamps go; but a search for what nobody wrote before the end of a falling log reads one batch."""
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log = new_log(store)
        fill(store, log, [[1_000 + at * step] for at in range(400)])
        seen = 0
        real = layout.unpack_whole

        def counted(*args: object) -> object:
            nonlocal seen
            seen += 1
            return real(*args)  # type: ignore[arg-type]  # passed through

        monkeypatch.setattr(log_module, "unpack_whole", counted)
        bound = INDEX_BYTES // 10_000 + 2
        for timestamp in (0, 601, 900, 1_000, 1_200, 1_399, 1_400, 5_000):
            seen = 0
            log.find_timestamp(timestamp, 400)
            assert seen <= bound
        with store.environment.begin() as txn:
            rows = txn.stat(store.environment.db["times"])["entries"]
        assert 400 * 10_000 // INDEX_BYTES // 2 <= rows <= 400 * 10_000 // INDEX_BYTES


def test_below_the_log_start_and_the_limit(tmp_path: Path) -> None:
    with contextlib.closing(new_store(tmp_path / "store")) as store:
        log = new_log(store)
        fill(store, log, [[10, 20], [30, 40]])
        assert log.find_timestamp(15, 4) == (1, 20)
        assert log.find_timestamp(15, 1) is None
        assert log.find_timestamp(35, 4) == (3, 40)
        assert log.find_timestamp(41, 4) is None
        done(store, MoveStart(log, 0, 2))
        assert log.find_timestamp(15, 4) == (2, 30)
        assert [outcome.error for outcome in commit(store, MoveStart(log, 0, 3))] == [None]
        assert log.find_timestamp(15, 4) == (3, 40)
        assert (log.state.log_start_offset, log.state.first_offset) == (3, 2)
