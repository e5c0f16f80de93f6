"""The writer's thread: one group a round, one callback a round, all of it before it ends."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.storage import Append, CommitFailedError, Committer, CreateLog, DropLog, Outcome, Store, Write, Writer
from tests.storage.support import append, batch, key, new_log, new_store

WAIT_S = 60


class Recorded:
    """A committer that counts rounds and can be held back; and what the writer told."""

    def __init__(self, store: Store) -> None:
        self.rounds: list[list[Write]] = []
        self.told: list[list[Outcome]] = []
        self.fatal: list[BaseException] = []
        self.syncs = 0
        self.looks = 0
        self.synced = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.ended = threading.Event()
        self.fails: BaseException | None = None
        self._committer = Committer(store)

    def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        self.rounds.append(list(writes))
        self.entered.set()
        assert self.hold.wait(WAIT_S)
        if self.fails is not None:
            raise self.fails
        return self._committer.commit(writes)

    def look(self) -> None:
        self.looks += 1
        self._committer.look()

    def sweep(self) -> bool:
        return self._committer.sweep()

    def sync(self) -> None:
        self._committer.sync()
        self.syncs += 1
        self.synced.set()

    def on_fatal(self, error: BaseException) -> None:
        self.fatal.append(error)
        self.ended.set()

    def writer(self, sync_interval_ms: int = 0) -> Writer:
        committer: Any = self
        return Writer(committer, self.told.append, self.on_fatal, sync_interval_ms)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with contextlib.closing(new_store(tmp_path / "store")) as opened:
        yield opened


def test_what_gathers_during_a_commit_is_one_group(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer()
    recorded.hold.clear()
    writer.start()
    writer.submit(CreateLog(key(0)))
    assert recorded.entered.wait(WAIT_S)
    for number in range(1, 50):
        writer.submit(CreateLog(key(number)))
    recorded.hold.set()
    writer.stop()
    assert [len(writes) for writes in recorded.rounds] == [1, 49]
    assert [[outcome.write for outcome in told] for told in recorded.told] == recorded.rounds
    assert len(store.logs()) == 50
    assert recorded.fatal == []


def test_stop_writes_what_is_queued(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer()
    for number in range(30):
        writer.submit(CreateLog(key(number)))
    writer.start()
    writer.stop()
    writer.stop()
    assert sum(len(told) for told in recorded.told) == 30
    assert len(store.logs()) == 30


def test_stop_before_start_and_from_the_callback(store: Store) -> None:
    recorded = Recorded(store)
    recorded.writer().stop()
    committer: Any = recorded

    def stops(_: list[Outcome]) -> None:
        writer.stop()

    writer = Writer(committer, stops, recorded.on_fatal)
    writer.start()
    writer.submit(CreateLog(key(1)))
    writer.stop()
    assert recorded.fatal == []


def test_submissions_of_many_threads_keep_each_ones_order(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer()
    logs = [new_log(store, number) for number in range(4)]
    writer.start()

    def produce(number: int) -> None:
        for at in range(60):
            writer.submit(Append(logs[number], 0, (batch(at),)))

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.stop()
    assert [outcome.error for told in recorded.told for outcome in told] == [None] * 240
    assert [log.state.log_end_offset for log in logs] == [60] * 4


@pytest.mark.parametrize("error", [CommitFailedError("disk"), RuntimeError("bug"), KeyboardInterrupt()])
def test_after_a_fatal_error_nothing_is_written(store: Store, error: BaseException) -> None:
    recorded = Recorded(store)
    writer = recorded.writer()
    recorded.fails = error
    writer.submit(CreateLog(key(1)))
    writer.start()
    assert recorded.ended.wait(WAIT_S)
    recorded.fails = None
    writer.submit(CreateLog(key(2)))
    writer.stop()
    assert recorded.fatal == [error]
    assert recorded.told == []
    assert store.logs() == []


def test_a_callback_that_fails_is_fatal(store: Store) -> None:
    recorded = Recorded(store)
    committer: Any = recorded

    def tell(_: list[Outcome]) -> None:
        raise ZeroDivisionError

    writer = Writer(committer, tell, recorded.on_fatal)
    writer.submit(CreateLog(key(1)))
    writer.start()
    assert recorded.ended.wait(WAIT_S)
    writer.stop()
    assert [type(fatal) for fatal in recorded.fatal] == [ZeroDivisionError]


def test_garbage_goes_between_rounds_and_when_idle(store: Store) -> None:
    log = new_log(store)
    for at in range(30):
        append(store, log, *(batch(at * 50 + index) for index in range(50)))
    recorded = Recorded(store)
    swept = threading.Event()
    sweep = recorded.sweep

    def watched() -> bool:
        more = sweep()
        if not more and recorded.rounds:
            swept.set()
        return more

    recorded.sweep = watched  # type: ignore[method-assign]  # to hear of the end
    writer = recorded.writer()
    writer.start()
    writer.submit(DropLog(log.key))
    assert swept.wait(WAIT_S)
    writer.stop()
    assert not store.garbage
    assert recorded.fatal == []
    with store.environment.begin() as txn:
        assert txn.stat(store.environment.db["batches"])["entries"] == 0
        assert txn.stat(store.environment.db["garbage"])["entries"] == 0


def test_interval_syncs_also_when_idle(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer(sync_interval_ms=1)
    writer.start()
    for _ in range(3):
        assert recorded.synced.wait(WAIT_S)
        recorded.synced.clear()
    writer.stop()
    assert recorded.fatal == []


def test_interval_syncs_at_the_end(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer(sync_interval_ms=3_600_000)
    writer.start()
    writer.submit(CreateLog(key(1)))
    writer.stop()
    assert recorded.syncs == 1


def test_without_an_interval_only_the_end_syncs(store: Store) -> None:
    recorded = Recorded(store)
    writer = recorded.writer()
    writer.start()
    writer.submit(CreateLog(key(1)))
    assert recorded.entered.wait(WAIT_S)
    writer.submit(CreateLog(key(2)))
    writer.stop()
    assert len(recorded.rounds) == 2
    assert recorded.syncs == 1


@pytest.mark.parametrize("sync_interval_ms", [0, 60_000])
def test_a_stop_makes_everything_durable_at_every_level_and_says_so(store: Store, sync_interval_ms: int) -> None:
    recorded = Recorded(store)
    writer = recorded.writer(sync_interval_ms)
    writer.start()
    writer.submit(CreateLog(key(0)))
    assert writer.stop()
    assert len(recorded.told) == 1
    assert recorded.syncs == 1


def test_a_stop_after_a_failed_sync_does_not_say_that_all_is_durable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise CommitFailedError("a test's")

    recorded = Recorded(store)
    monkeypatch.setattr(recorded, "sync", fails)
    writer = recorded.writer()
    writer.start()
    writer.submit(CreateLog(key(0)))
    assert not writer.stop()
    assert len(recorded.fatal) == 1
