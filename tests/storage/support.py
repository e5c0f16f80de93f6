"""Batches and stores for the tests of storage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.protocol.batch import NOT_STAMPED, NewRecord, ProducerStamp, build, header_of
from penstock.storage import LogBatch, PartitionKey, Store
from penstock.storage.commit import Committer
from penstock.storage.env import StoreOptions
from penstock.storage.log import Log
from penstock.storage.writes import Append, CreateLog, Outcome, Write
from penstock.v1 import common_pb2

CLUSTER = "test-cluster"
NODE = 1
SMALL_MAP = 1 << 30


def key(number: int, partition: int = 0) -> PartitionKey:
    return PartitionKey(number.to_bytes(16, "big"), partition)


def batch(
    base_offset: int,
    timestamps: Sequence[int] = (1_000,),
    *,
    epoch: int = 0,
    value: bytes | None = b"value",
    stamp: ProducerStamp = NOT_STAMPED,
    append_time_ms: int = 5_000,
    timestamp_type: int = common_pb2.TIMESTAMP_TYPE_CREATE,
    keyless: bool = False,
) -> LogBatch:
    """A sealed batch with one record a timestamp, of keys key-0, key-1 and so on. `value` None: tombstones."""
    records = [
        NewRecord(None if keyless else b"key-%d" % index, value, timestamp)
        for index, timestamp in enumerate(timestamps)
    ]
    message = build(records, stamp=stamp)
    return LogBatch(
        base_offset,
        base_offset + len(records) - 1,
        epoch,
        append_time_ms,
        header_of(message),
        message.SerializeToString(),
        timestamp_type,
    )


def options(**changes: Any) -> StoreOptions:
    return StoreOptions(**{"map_bytes": SMALL_MAP, "reserve_bytes": 0, **changes})


def formatted(path: Path) -> Path:
    Store.format(path, cluster_id=CLUSTER, node_id=NODE)
    return path


def new_store(path: Path, **changes: Any) -> Store:
    return Store.open(formatted(path), options(**changes))


def commit(store: Store, *writes: Write) -> list[Outcome]:
    return Committer(store).commit(writes)


def done(store: Store, *writes: Write) -> list[Outcome]:
    """Commit writes that must succeed."""
    outcomes = commit(store, *writes)
    assert [outcome.error for outcome in outcomes] == [None] * len(writes)
    return outcomes


def new_log(store: Store, number: int = 1, partition: int = 0) -> Log:
    (outcome,) = done(store, CreateLog(key(number, partition)))
    assert outcome.log is not None
    return outcome.log


def append(store: Store, log: Log, *batches: LogBatch, epoch: int | None = None) -> None:
    done(store, Append(log, batches[-1].leader_epoch if epoch is None else epoch, batches))


def error_of(store: Store, write: Write) -> Exception | None:
    (outcome,) = commit(store, write)
    return outcome.error


class SimulatedCrash(BaseException):
    """The process is gone, before the commit."""


def crash_at_commit(store: Store, act: Callable[[], object]) -> None:
    """Run `act`, but end before its first transaction is committed."""
    environment: Any = store.environment
    begin = environment.begin

    class Doomed:
        def __init__(self, txn: Any) -> None:
            self._txn = txn

        def __enter__(self) -> Any:
            return self._txn

        def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
            self._txn.abort()
            if error is None:
                raise SimulatedCrash

    environment.begin = lambda *, write=False: Doomed(begin(write=True)) if write else begin()
    try:
        act()
    except SimulatedCrash:
        return
    finally:
        environment.begin = begin
