"""The deduplicator: what it remembers over crashes, its bounds, its transactions, several threads and processes."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.client import DeduplicationError, Deduplicator, InvalidRequestError, Record, by_header
from penstock.client.clock import SystemClock
from penstock.client.marks import PURGE_EVERY


def record(offset: int, partition: int = 0, topic: str = "orders", **changes: object) -> Record:
    made = Record(topic, partition, offset, 1000 + offset, b"k", b"%d" % offset, (), 0)
    return made._replace(**changes)  # type: ignore[arg-type]  # fields of a record


class Clock(SystemClock):
    now_ms = 1_000_000

    def wall_ms(self) -> int:
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "done.db"


def test_what_was_handled_is_not_handled_again_also_by_the_next_process(path: Path) -> None:
    handled: list[int] = []

    def append(r: Record) -> None:
        handled.append(r.offset)

    for _ in range(2):
        with Deduplicator(path) as made:
            handle = made.wrap(append)
            for offset in (1, 2, 1):
                handle(record(offset))
            assert made.seen(record(2))
            assert not made.seen(record(3))
    assert handled == [1, 2]
    assert made.duplicates == 3


def test_a_mark_survives_a_crash(path: Path) -> None:
    program = (
        "import os, sys\n"
        "from penstock.client import Deduplicator, Record\n"
        "made = Deduplicator(sys.argv[1])\n"
        "made.done(Record('orders', 0, 1, 1001, b'k', b'1', (), 0))\n"
        "with made.transaction(Record('orders', 0, 2, 1002, b'k', b'2', (), 0)) as database:\n"
        "    database.execute('CREATE TABLE effects (value TEXT)')\n"
        "    os._exit(7)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False)
    assert ended.returncode == 7
    with Deduplicator(path) as made:
        assert made.seen(record(1))
        assert not made.seen(record(2))
        with made.transaction(record(2)) as database:
            assert database is not None
            database.execute("CREATE TABLE effects (value TEXT)")  # the one of the crash is not there


def test_a_handler_that_fails_leaves_no_mark(path: Path) -> None:
    with Deduplicator(path) as made:

        def fail(_: Record) -> None:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            made.wrap(fail)(record(1))
        assert not made.seen(record(1))
        assert made.wrap(lambda r: r.offset)(record(1)) == 1


@pytest.mark.parametrize(
    "other",
    [
        record(1, partition=1),
        record(2, timestamp_ms=1001),
        record(1, topic="order"),
        record(1, timestamp_ms=5),
    ],
)
def test_records_are_told_apart_by_their_place(path: Path, other: Record) -> None:
    with Deduplicator(path) as made:
        made.done(record(1))
        assert not made.seen(other)
        assert made.seen(record(1, value=b"whatever", leader_epoch=9))


def test_a_topic_made_again_is_another_one(path: Path) -> None:
    ids = {"orders": b"a" * 16}
    with Deduplicator(path, topic_id=ids.__getitem__) as made:
        made.done(record(1))
        assert made.seen(record(1))
        ids["orders"] = b"b" * 16
        assert not made.seen(record(1))


def test_message_ids_tell_messages_wherever_they_are(path: Path) -> None:
    headers = (("id", b"old"), ("id", b"17"))
    with Deduplicator(path, key=by_header("id")) as made:
        made.done(record(1, headers=headers))
        assert made.seen(record(8, partition=3, topic="other", headers=headers))
        assert not made.seen(record(1, headers=(("id", b"18"),)))
        with pytest.raises(DeduplicationError, match="orders-0 offset 5 has no header 'id'"):
            made.seen(record(5))
    with Deduplicator(path, key=lambda r: "x" * r.offset) as made:
        made.done(record(1024))
        for offset in (0, 1025):
            with pytest.raises(DeduplicationError, match="not 1 to 1024 bytes"):
                made.done(record(offset))


def test_scopes_do_not_see_each_other(path: Path) -> None:
    with Deduplicator(path, scope="mail") as mail, Deduplicator(path, scope="bill") as bill:
        mail.done(record(1))
        assert mail.seen(record(1))
        assert not bill.seen(record(1))


def test_an_effect_and_its_mark_are_one(path: Path) -> None:
    with Deduplicator(path) as made:
        with made.transaction(record(0)) as database:
            assert database is not None
            database.execute("CREATE TABLE effects (value INTEGER)")

        def handle(r: Record, *, fails: bool = False) -> None:
            with made.transaction(r) as database:
                if database is None:
                    return
                database.execute("INSERT INTO effects VALUES (?)", (r.offset,))
                if fails:
                    raise ValueError("after the effect")

        with pytest.raises(ValueError, match="after"):
            handle(record(1), fails=True)
        assert not made.seen(record(1))
        for _ in range(2):
            handle(record(1))
        assert made.duplicates == 1
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT value FROM effects").fetchall() == [(1,)]
    database.close()


@pytest.mark.parametrize(
    "end", [sqlite3.Connection.commit, sqlite3.Connection.rollback, lambda c: c.executescript("CREATE TABLE b (x);")]
)
def test_a_transaction_cannot_be_ended_from_inside(path: Path, end: Callable[[sqlite3.Connection], object]) -> None:
    with Deduplicator(path) as made:

        def handle() -> None:
            with made.transaction(record(1)) as database:
                assert database is not None
                database.execute("CREATE TABLE a (x INTEGER)")
                end(database)

        with pytest.raises(sqlite3.DatabaseError, match="not authorized") as raised:
            handle()
        assert "commits by itself" in raised.value.__notes__[0]
        assert not made.seen(record(1))
        with made.transaction(record(1)) as again:
            assert again is not None
            again.execute("CREATE TABLE a (x INTEGER)")


def test_the_store_is_not_used_inside_its_own_transaction(path: Path) -> None:
    with (
        Deduplicator(path) as made,
        made.transaction(record(1)),
        pytest.raises(DeduplicationError, match="hold none across an await"),
    ):
        made.seen(record(2))


def test_old_marks_and_marks_beyond_the_number_go(path: Path) -> None:
    clock = Clock()
    with Deduplicator(path, keep_ms=1000, keep_records=100, clock=clock) as made:
        marks = made._marks
        for offset in range(3):
            made.done(record(offset))
        clock.now_ms += 1001
        with marks._held(), marks._written():  # without the disk's time for each
            for offset in range(3, PURGE_EVERY):
                marks._insert(made._identity(record(offset)))
        made.done(record(PURGE_EVERY))  # the one that purges
        assert not made.seen(record(2))
        assert not made.seen(record(PURGE_EVERY - 100))
        assert made.seen(record(PURGE_EVERY - 99))
    with Deduplicator(path, keep_ms=1000, clock=clock) as made:
        clock.now_ms += 1001
        made.done(record(1))
        assert not made.seen(record(PURGE_EVERY))
        assert made.seen(record(1))


def test_two_threads_do_not_handle_one_message_at_the_same_time(path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()
    handled: list[int] = []
    with Deduplicator(path, key=lambda r: "same") as made:

        def handle(r: Record) -> None:
            handled.append(r.offset)
            entered.set()
            leave.wait(60)

        once = made.wrap(handle)
        threads = [threading.Thread(target=once, args=(record(offset),)) for offset in range(3)]
        threads[0].start()
        entered.wait(60)
        for thread in threads[1:]:
            thread.start()
        leave.set()
        for thread in threads:
            thread.join(60)
    assert handled == [0]
    assert made.duplicates == 2


async def test_coroutines_too_and_who_waited_takes_over_where_the_first_fails(path: Path) -> None:
    handled: list[int] = []
    leave = asyncio.Event()
    with Deduplicator(path, key=lambda r: "same") as made:

        @made.wrap
        async def handle(r: Record) -> int:
            handled.append(r.offset)
            await leave.wait()
            if r.offset == 0:
                raise ValueError("no")
            return r.offset

        tasks = [asyncio.create_task(handle(record(offset))) for offset in range(3)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        leave.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert results[1] == 1
    assert isinstance(results[2], asyncio.CancelledError)
    assert handled == [0, 1]


async def test_a_mark_is_never_made_before_an_asynchronous_handler_has_ended(path: Path) -> None:
    class Mailer:
        async def __call__(self, r: Record) -> None:
            assert not made.seen(r)
            raise ValueError("no")

    with Deduplicator(path) as made:
        with pytest.raises(ValueError, match="no"):
            await made.wrap(Mailer())(record(1))
        assert not made.seen(record(1))

        async def mail() -> None: ...

        coroutine = mail()
        with pytest.raises(DeduplicationError, match="wrap the coroutine function"):
            _ = made.wrap(lambda _: coroutine)(record(2))
        coroutine.close()
        assert not made.seen(record(2))


async def test_who_is_cancelled_after_the_handler_leaves_a_mark(path: Path) -> None:
    with Deduplicator(path) as made:

        @made.wrap
        async def handle(r: Record) -> None:
            task.cancel()  # comes while the mark is written

        task = asyncio.create_task(handle(record(1)))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert made.seen(record(1))


def test_who_opens_a_store_that_another_one_writes_to_waits_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes that begin together make the file together; the database may be the application's own, too."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE effects (value TEXT)")
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def end(wait_s: float) -> None:
        waits.append(wait_s)
        if other.in_transaction:
            other.execute("COMMIT")

    monkeypatch.setattr("penstock.client.marks.time.sleep", end)
    with Deduplicator(path) as made:
        made.done(record(1))
        assert made.seen(record(1))
    assert len(waits) == 1
    other.close()


def test_what_cannot_work_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeduplicationError, match=r"missing/done\.db cannot be used: unable to open"):
        Deduplicator(tmp_path / "missing" / "done.db")
    (tmp_path / "text").write_text("no database, but long enough to be read as one" * 100)
    with pytest.raises(DeduplicationError, match="not a database"):
        Deduplicator(tmp_path / "text")
    with pytest.raises(DeduplicationError, match="not durable"):
        Deduplicator(":memory:")
    with pytest.raises(InvalidRequestError, match="keep_ms"):
        Deduplicator(tmp_path / "a.db", keep_ms=0)
    with pytest.raises(InvalidRequestError, match="not both"):
        Deduplicator(tmp_path / "a.db", key=by_header("a"), topic_id=str.encode)
    with Deduplicator(tmp_path / "a.db") as made, pytest.raises(DeduplicationError, match="parse inside the handler"):
        made.seen(b"value")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(DeduplicationError, match="closed database"):
        made.seen(record(1))
