"""The store against plain lists and dicts: random groups of writes over several logs, with crashes between any two
durable steps. What a group does is predicted when it is queued; the store is compared after every commit and reopening.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.protocol.batch import NOT_STAMPED, ProducerStamp
from penstock.storage import (
    AppendFailedError,
    LogBatch,
    OffsetAboveEndError,
    OffsetBelowStartError,
    PartitionKey,
    StaleEpochError,
    StorageError,
    Store,
    commit,
)
from penstock.storage.commit import Committer
from penstock.storage.compaction import ENTRY_BYTES, Step
from penstock.storage.compaction_run import End, Run, Task
from penstock.storage.errors import StaleCompactionError
from penstock.storage.layout import BATCH_ROW_BYTES, DATABASES, INDEX_BYTES
from penstock.storage.log import Log
from penstock.storage.producers import ProducerBatch, ProducerState
from penstock.storage.types import EpochStart, ReplicaSeed
from penstock.storage.writes import (
    ActIn,
    Append,
    CheckpointHighWatermark,
    Compact,
    CreateLog,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    MoveStart,
    Outcome,
    RecordStart,
    ResetLog,
    Truncate,
    Write,
)
from penstock.v1.common_pb2 import TIMESTAMP_TYPE_APPEND, TIMESTAMP_TYPE_CREATE
from tests.storage.model import ModelLog, ModelRecord
from tests.storage.support import batch, crash_at_commit, formatted, key, options

KEYS = [key(1, 0), key(1, 1), key(2, 0)]
PRODUCERS = [0, 1, 2**62, -2, -(2**63)]
TOMBSTONES, KEYLESS, APPENDED = 0, 7, 8
SIZES = (1, 30, 3_000, 70_000, TOMBSTONES, KEYLESS, APPENDED)
"""Of values: within a page, over it, and above the time index's distance; and three that stand for kinds of batches."""
DELETE_RETENTION_MS = 100

OPTIONS = options(durability="os")  # the file is abandoned, never the power: fsync would only take time

timestamps = st.lists(st.integers(-50, 400), min_size=1, max_size=4)
key_index = st.integers(0, len(KEYS) - 1)
one_batch = st.tuples(timestamps, st.sampled_from(SIZES), st.integers(-1, len(PRODUCERS) - 1))
new_batches = st.lists(one_batch, min_size=1, max_size=4)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="penstock-model-"))
        formatted(self.path)
        self.store = Store.open(self.path, OPTIONS)
        self.logs: dict[PartitionKey, ModelLog] = {}
        self.starts: list[bytes] = []
        self.begin_group()
        self.appended_bytes = 0
        self.now_ms = 0

    def teardown(self) -> None:
        self.check_rows_left()
        self.store.close()
        shutil.rmtree(self.path)

    def check_rows_left(self) -> None:
        """Once all is swept there is nothing but the logs' own."""
        committer = Committer(self.store)
        while committer.sweep():
            pass
        logs = self.logs.values()
        with self.store.environment.begin() as txn:
            rows = {space: txn.stat(self.store.environment.db[space])["entries"] for space in DATABASES}
        assert (rows["partitions"], rows["garbage"]) == (len(logs), 0)
        assert rows["batches"] == sum(len(model.batches) for model in logs)
        assert rows["known"] == rows["producers"] == sum(len(model.producers()) for model in logs)
        assert rows["times"] <= self.appended_bytes // INDEX_BYTES + 3
        assert rows["epochs"] <= sum(len(model.epochs()) for model in logs)

    def begin_group(self) -> None:
        self.group: list[tuple[Write, type[StorageError] | None]] = []
        self.next_logs = {k: log.copy() for k, log in self.logs.items()}
        self.next_starts = list(self.starts)
        self.failed: set[PartitionKey] = set()
        self.created: set[PartitionKey] = set()  # their handles come with the commit
        self.dirty = False

    # ---- queueing writes

    def log_of(self, index: int) -> tuple[Log, ModelLog] | None:
        """A log that can be written in this group."""
        log = self.store.log(KEYS[index])
        if log is None or KEYS[index] not in self.next_logs or KEYS[index] in self.created:
            return None
        return log, self.next_logs[KEYS[index]]

    def queue(self, write: Write, error: type[StorageError] | None = None) -> bool:
        """Queue a write that is expected to have this effect; whether it has any."""
        if isinstance(write, Append | Truncate | ResetLog) and write.log.key in self.failed:
            error = StorageError
        if isinstance(write, Append | Truncate | MoveStart | ResetLog | ActIn) and error is not None:
            self.failed.add(write.log.key)
        self.group.append((write, error))
        return error is None

    @initialize()
    def create_all(self) -> None:
        for k in KEYS:
            self.queue(CreateLog(k))
            self.next_logs[k] = ModelLog()
            self.created.add(k)
        self.execute()

    @rule(index=key_index)
    def create(self, index: int) -> None:
        k = KEYS[index]
        self.queue(CreateLog(k))
        if k not in self.next_logs:
            self.next_logs[k] = ModelLog()
            self.created.add(k)

    @rule(index=key_index)
    def drop(self, index: int) -> None:
        self.queue(DropLog(KEYS[index]))
        self.next_logs.pop(KEYS[index], None)

    def stamp(self, producer_id: int, log: ModelLog, bump: bool, count: int) -> ProducerStamp:
        state = log.producers().get(producer_id)
        if producer_id < -1:
            return ProducerStamp(producer_id, len(log.history) % 7, len(log.history) % 5)
        if state is None or bump:
            return ProducerStamp(producer_id, 0 if state is None else state.producer_epoch + 1, 2**31 - 1 - count)
        return ProducerStamp(producer_id, state.producer_epoch, (state.batches[-1].last_sequence + 1) % 2**31)

    @rule(
        index=key_index,
        batches=st.lists(
            st.tuples(timestamps, st.sampled_from(SIZES), st.integers(-1, len(PRODUCERS) - 1)), max_size=4
        ),
        new_epoch=st.booleans(),
        bump=st.booleans(),
    )
    def append(self, index: int, batches: list[tuple[list[int], int, int]], new_epoch: bool, bump: bool) -> None:
        self.append_batches(index, batches, new_epoch=new_epoch, bump=bump)

    def append_batches(
        self, index: int, batches: list[tuple[list[int], int, int]], *, new_epoch: bool, bump: bool
    ) -> None:
        found = self.log_of(index)
        if found is None:
            return
        log, model = found
        epoch = max(model.acted, model.last_epoch, 0) + new_epoch
        draft, made = model.copy(), []
        for times, size, producer in batches:
            stamp = NOT_STAMPED if producer < 0 else self.stamp(PRODUCERS[producer], draft, bump, len(times))
            new = batch(
                draft.end,
                times,
                epoch=epoch,
                value=None if size == TOMBSTONES else b"v" * size,
                stamp=stamp,
                append_time_ms=len(draft.history),
                timestamp_type=TIMESTAMP_TYPE_APPEND if size == APPENDED else TIMESTAMP_TYPE_CREATE,
                keyless=size == KEYLESS,
            )
            self.appended_bytes += len(new.payload) + BATCH_ROW_BYTES
            draft.history.append(new)
            draft.end = new.last_offset + 1
            made.append(new)
        if self.queue(Append(log, epoch, tuple(made))):
            draft.acted = max(draft.acted, epoch)
            self.next_logs[log.key] = draft

    @rule(index=key_index, data=st.data())
    def refused(self, index: int, data: st.DataObject) -> None:
        """A write that must have no effect, and fails what is behind it."""
        if (found := self.log_of(index)) is None:
            return
        log, model = found
        epoch, stale = max(model.acted, model.last_epoch, 0), model.acted - 1
        stamp = ProducerStamp(0, 99, 5)
        cases: list[tuple[Write, type[StorageError]]] = [
            (Append(log, epoch, (batch(model.end + 1, epoch=epoch, stamp=stamp),)), AppendFailedError),
            # breaks off half-way, as a bug would
            (Append(log, epoch, (batch(model.end, epoch=epoch, stamp=stamp), self.unforeseen(model))), StorageError),
        ]
        if model.end:
            cases.append((Append(log, epoch, (batch(model.end - 1, epoch=epoch),)), AppendFailedError))
        if stale >= 0:
            cases += [
                (Append(log, stale, (batch(model.end, epoch=stale, stamp=stamp),)), StaleEpochError),
                (Truncate(log, stale, model.start), StaleEpochError),
                (ResetLog(log, stale, ReplicaSeed(5, (), ())), StaleEpochError),
                (MoveStart(log, stale, model.end), StaleEpochError),
                (ActIn(log, stale), StaleEpochError),
            ]
        if model.last_epoch > 0:
            cases.append((Append(log, epoch, (batch(model.end, epoch=model.last_epoch - 1),)), AppendFailedError))
        sent = [b for b in model.batches if b.base_offset >= max(model.start, model.rewritten_end)]
        inside = [b.last_offset for b in sent if b.last_offset > b.base_offset]
        if inside:
            cases.append((Truncate(log, epoch, inside[-1]), StorageError))
        self.queue(*data.draw(st.sampled_from(cases)))

    @staticmethod
    def unforeseen(model: ModelLog) -> LogBatch:
        return batch(model.end + 1, epoch=max(model.acted, model.last_epoch, 0), append_time_ms=2**70)

    @rule(index=key_index, parts=st.lists(new_batches, min_size=1, max_size=5), new_epoch=st.booleans())
    def grow(self, index: int, parts: list[list[tuple[list[int], int, int]]], new_epoch: bool) -> None:
        """Several appends at once, committed."""
        for place, batches in enumerate(parts):
            self.append_batches(index, batches, new_epoch=new_epoch and place % 2 == 1, bump=False)
        self.execute()

    @rule(index=key_index, data=st.data())
    def truncate(self, index: int, data: st.DataObject) -> None:
        if (found := self.log_of(index)) is not None:
            log, model = found
            end = data.draw(st.sampled_from([at for at in model.boundaries if at >= model.high_watermark]))
            if self.queue(Truncate(log, max(model.acted, 0), end)):
                model.acted = max(model.acted, 0)
                model.truncate(end)

    @rule(
        index=key_index,
        parts=st.lists(new_batches, min_size=2, max_size=4),
        then=st.sampled_from(["truncate", "truncate_committed", "move_start", "refused", "clone", "crash", "compact"]),
        data=st.data(),
    )
    def episode(
        self, index: int, parts: list[list[tuple[list[int], int, int]]], then: str, data: st.DataObject
    ) -> None:
        """What seldom meets by chance: a log of several epochs, checkpointed half-way, then cut, moved or copied."""
        for batches in parts:
            self.append_batches(index, batches, new_epoch=True, bump=False)
        self.checkpoint(index, data)
        self.execute()
        if then == "clone":
            self.clone(index, (index + 1) % len(KEYS))
        elif then == "crash":
            self.crash("reopen")
        elif then == "compact":
            self.compact(index, data)
        else:
            {
                "truncate": self.truncate,
                "truncate_committed": self.truncate_committed,
                "move_start": self.move_start,
                "refused": self.refused,
            }[then](index, data)
            self.append_batches(index, parts[0], new_epoch=False, bump=False)
            self.execute()

    @rule(index=key_index, data=st.data())
    def truncate_committed(self, index: int, data: st.DataObject) -> None:
        """Below the checkpointed high watermark, as after an unclean election: the undo is not used there."""
        self.execute()
        if (found := self.log_of(index)) is None:
            return
        log, model = found
        below = [at for at in model.boundaries if at < model.high_watermark]
        if not below:
            return
        end = data.draw(st.sampled_from(below))
        self.queue(Truncate(log, max(model.acted, 0), end))
        model.acted = max(model.acted, 0)
        model.truncate(end)
        self.execute()
        model = self.logs[log.key]
        states = {producer: state for producer in PRODUCERS if (state := log.producer(producer)) is not None}
        for producer, state in states.items():
            assert state.batches[-1].last_offset < end
            left = [b for b in model.history if b.header.producer_id == producer]
            if left:
                assert state.batches[-1].base_offset == left[-1].base_offset
                assert state.producer_epoch == left[-1].header.producer_epoch
        model.learn(states)
        model.exact = False
        self.begin_group()

    @rule(index=key_index, start=st.integers(0, 1_000), epochs=st.sets(st.integers(0, 9)), batches=st.integers(1, 5))
    def reset(self, index: int, start: int, epochs: set[int], batches: int) -> None:
        if (found := self.log_of(index)) is None:
            return
        log, model = found
        starts = tuple(EpochStart(epoch, start - 20 + place) for place, epoch in enumerate(sorted(epochs)))
        starts = starts if start >= 20 else ()
        places = tuple(ProducerBatch(at, at, start - 10 + at, start - 10 + at) for at in range(batches))
        producers = ((PRODUCERS[1], ProducerState(3, places, 7)), (PRODUCERS[3], ProducerState(1, places[-1:], 8)))
        seed = ReplicaSeed(start, starts, producers if start >= 10 else ())
        epoch = max(model.acted, max(epochs, default=0))
        if self.queue(ResetLog(log, epoch, seed)):
            model.acted = epoch
            model.reset(seed)

    @precondition(lambda self: not self.group and self.logs)
    @rule(before=st.integers(0, 30))
    def expire_producers(self, before: int) -> None:
        """With everything below the high watermark, so that no undo brings a producer back."""
        for index in range(len(KEYS)):
            if (found := self.log_of(index)) is not None:
                self.queue(CheckpointHighWatermark(found[0], found[1].end))
                found[1].high_watermark = found[1].end
                states = found[1].producers()
                found[1].learn({p: state for p, state in states.items() if state.timestamp_ms >= before})
                found[1].exact = False
        self.execute(extra=(ExpireProducers(before),))

    @rule(index=key_index, data=st.data())
    def move_start(self, index: int, data: st.DataObject) -> None:
        if (found := self.log_of(index)) is not None:
            log, model = found
            start = data.draw(st.integers(-1, model.end + 3))
            if self.queue(MoveStart(log, max(model.acted, 0), start)):
                model.acted = max(model.acted, 0)
                model.start = max(model.start, min(start, model.end))
                model.cleaned = max(model.cleaned, model.first)
                model.high_watermark = max(model.high_watermark, model.start)

    @rule(index=key_index, data=st.data())
    def checkpoint(self, index: int, data: st.DataObject) -> None:
        if (found := self.log_of(index)) is not None:
            log, model = found
            high_watermark = data.draw(st.sampled_from(model.boundaries))
            if self.queue(CheckpointHighWatermark(log, high_watermark)):
                model.high_watermark = max(model.high_watermark, high_watermark)

    @rule(index=key_index, data=st.data())
    def compact(self, index: int, data: st.DataObject) -> None:
        """Plan, and perform some of the steps or all, with appends, crashes and a moving start between them."""
        self.execute()
        if (found := self.log_of(index)) is None:
            return
        model = found[1]
        self.now_ms += data.draw(st.sampled_from([0, 1, DELETE_RETENTION_MS]))
        task = Task(
            now_ms=self.now_ms,
            delete_retention_ms=DELETE_RETENTION_MS,
            min_lag_ms=data.draw(st.sampled_from([0, 0, 50])),
            passed_offset=data.draw(st.integers(0, model.high_watermark)),
            max_key_bytes=data.draw(st.sampled_from([1, 3 * ENTRY_BYTES, 2**20])),
        )
        run = Run(found[0], task)
        before = model.records()
        assert task.passed_offset <= model.high_watermark
        for step in run.steps():
            between = data.draw(
                st.sampled_from(["", "", "", "", "stop", "crash", "crash at commit", "append", "start"])
            )
            if between == "stop":
                return
            if not self.between_steps(index, between, data):
                return
            log = self.store.log(KEYS[index])
            assert log is not None
            if not self.perform(log, run.content, step, task, before):
                return

    @rule(index=key_index, parts=st.lists(new_batches, max_size=6))
    def compact_all(self, index: int, parts: list[list[tuple[list[int], int, int]]]) -> None:
        """All that there is, twice, so that the tombstones go too."""
        for batches in parts:
            self.append_batches(index, batches, new_epoch=False, bump=True)
        if (found := self.log_of(index)) is None:
            return
        self.queue(CheckpointHighWatermark(found[0], self.next_logs[KEYS[index]].end))
        self.next_logs[KEYS[index]].high_watermark = self.next_logs[KEYS[index]].end
        self.execute()
        for _ in range(2):
            model = self.logs[KEYS[index]]
            task = Task(self.now_ms, DELETE_RETENTION_MS, 0, model.end, 2**20)
            run, before = Run(found[0], task), model.records()
            for step in run.steps():
                assert self.perform(found[0], run.content, step, task, before)
            self.now_ms += DELETE_RETENTION_MS
        keyed = [record for record in self.logs[KEYS[index]].records().values() if record.key is not None]
        assert len({record.key for record in keyed}) == len(keyed)
        assert all(record.value is not None for record in keyed)

    def between_steps(self, index: int, what: str, data: st.DataObject) -> bool:
        """Whether the compaction goes on."""
        if what == "append":
            self.append_batches(index, [([1, 2], 30, 1)], new_epoch=False, bump=False)
            self.execute()
        elif what == "start":
            self.move_start(index, data)
            self.execute()
        elif what:
            self.crash("reopen")
            return what != "crash"
        return True

    def perform(
        self, log: Log, content: tuple[int, int], step: Step | End, task: Task, before: dict[int, ModelRecord]
    ) -> bool:
        """Perform one step and say what it did to the model; whether it was performed."""
        model = self.logs[log.key]
        if isinstance(step, End):
            write = Compact(log, content, 0, 0, (), (), cleaned_offset=step.cleaned_offset)
            if model.first > 0:
                write = replace(write, start=model.first, end=model.first)
        else:
            write = Compact(log, content, *step)
        (outcome,) = Committer(self.store).commit([write])
        if outcome.error is not None:
            assert isinstance(outcome.error, StaleCompactionError)
            assert model.first > write.start, "nothing but a moved start makes it stale here"
            return False
        model.learn_until(model.high_watermark)
        model.history = [b for b in model.history if b.last_offset < model.start] + log.read(
            model.start, model.end, 2**40
        )
        model.rewritten_end = max(model.rewritten_end, write.end if write.rows else 0)
        model.tombstones_below = max(model.tombstones_below, write.tombstones_below)
        self.check_compacted(model, write, task, before)
        self.begin_group()
        self.dirty = True
        return True

    def check_compacted(self, model: ModelLog, write: Compact, task: Task, before: dict[int, ModelRecord]) -> None:
        """No record is another, none that is the latest of its key is missing, all that should go is gone."""
        now = model.records()
        assert all(before[offset] == record for offset, record in now.items() if offset in before)
        latest: dict[bytes | None, int] = {record.key: offset for offset, record in sorted(before.items())}
        for offset in before.keys() - now.keys():
            record = before[offset]
            if offset < model.start:
                continue
            assert record.key is not None, "a record without a key went"
            if latest[record.key] == offset:
                assert record.value is None, "the latest of its key went"
                assert offset < task.passed_offset, "a tombstone went that a replica has not passed (rule 19)"
                assert offset < model.tombstones_below, "and nobody would know"
        if write.cleaned_offset:
            model.cleaned = max(model.cleaned, write.cleaned_offset)
            assert not model.superseded(write.cleaned_offset)

    @rule(index=key_index, step=st.integers(0, 2))
    def act_in(self, index: int, step: int) -> None:
        if (found := self.log_of(index)) is not None:
            log, model = found
            epoch = max(model.acted + step, 0)
            if self.queue(ActIn(log, epoch)):
                model.acted = epoch

    @rule(source=key_index, copy=key_index)
    def clone(self, source: int, copy: int) -> None:
        """A replica that starts at the source's log start and fetches the rest knows what the source knows."""
        self.execute()
        if source == copy or not (theirs := self.log_of(source)) or not (ours := self.log_of(copy)):
            return
        model = theirs[1].copy()
        epoch = max(ours[1].acted, model.last_epoch, 0)
        seed = theirs[0].replica_seed()
        if not model.exact:
            model.known, model.known_offset = dict(seed.producers), model.first
        self.queue(ResetLog(ours[0], epoch, seed))
        if model.batches:
            self.queue(Append(ours[0], epoch, tuple(model.batches)))
            self.appended_bytes += sum(len(b.payload) + BATCH_ROW_BYTES for b in model.batches)
        self.queue(MoveStart(ours[0], epoch, model.start))
        model.cleaned = model.first
        sparse = [b.last_offset + 1 for b in model.batches if b.header.record_count <= b.last_offset - b.base_offset]
        model.rewritten_end = max([model.first, *sparse])
        self.queue(CheckpointHighWatermark(ours[0], model.end))
        model.high_watermark, model.acted = model.end, epoch
        self.next_logs[KEYS[copy]] = model
        self.execute()

    @rule(data=st.data(), forget=st.booleans())
    def starts_change(self, data: st.DataObject, forget: bool) -> None:
        if not forget:
            start_id = data.draw(st.binary(min_size=16, max_size=16).filter(lambda new: new not in self.next_starts))
            self.queue(RecordStart(start_id))
            self.next_starts.append(start_id)
        elif self.next_starts:
            place = data.draw(st.integers(0, len(self.next_starts) - 1))
            self.queue(ForgetStarts(self.next_starts[place]))
            self.next_starts = self.next_starts[place:]

    # ---- what makes the group real, or not

    @rule()
    def commit(self) -> None:
        self.execute()

    def execute(self, extra: tuple[Write, ...] = ()) -> None:
        self.group += [(write, None) for write in extra]
        outcomes = Committer(self.store).commit([write for write, _ in self.group])
        assert [outcome.write for outcome in outcomes] == [write for write, _ in self.group]
        for outcome, (write, error) in zip(outcomes, self.group, strict=True):
            self.check_outcome(outcome, write, error)
        self.logs, self.starts = self.next_logs, self.next_starts
        self.begin_group()
        self.dirty = True

    def check_outcome(self, outcome: Outcome, write: Write, error: type[StorageError] | None) -> None:
        if error is None:
            assert outcome.error is None, f"{write}: {outcome.error!r}"
        else:
            assert isinstance(outcome.error, error), f"{write}: {outcome.error!r}, not {error}"
        if isinstance(write, CreateLog):
            assert outcome.log is not None
            assert outcome.log.key == write.key

    @rule(kind=st.sampled_from(["reopen", "before commit", "in sweep"]))
    def crash(self, kind: str) -> None:
        """Before the group reaches LMDB, just before its commit, or in the background's deleting."""
        writes = [write for write, _ in self.group]
        if kind == "before commit" and writes:
            crash_at_commit(self.store, lambda: Committer(self.store).commit(writes))
        if kind == "in sweep":
            crash_at_commit(self.store, Committer(self.store).sweep)
        self.store.close()
        self.store = Store.open(self.path, OPTIONS)
        self.begin_group()
        self.dirty = True

    @rule()
    def sweep(self) -> None:
        Committer(self.store).sweep()
        self.dirty = True

    # ---- comparing

    @invariant()
    def same_as_model(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        assert list(self.store.start_ids()) == self.starts
        assert {log.key for log in self.store.logs()} == set(self.logs)
        for k, model in self.logs.items():
            log = self.store.log(k)
            assert log is not None
            check_log(log, model)


def check_log(log: Log, model: ModelLog) -> None:
    state = log.state
    assert (state.log_start_offset, state.log_end_offset) == (model.start, model.end)
    assert state.high_watermark == model.high_watermark
    assert (state.last_epoch, state.acted_epoch) == (model.last_epoch, model.acted)
    assert state.size_bytes == sum(BATCH_ROW_BYTES + len(b.payload) for b in model.batches)
    assert state.record_count == sum(b.header.record_count for b in model.batches)
    assert (state.first_offset, state.cleaned_offset) == (model.first, model.cleaned)
    assert state.tombstones_below == model.tombstones_below
    check_summaries(log, model)
    check_reads(log, model)
    check_epochs(log, model)
    assert {producer: log.producer(producer) for producer in PRODUCERS} == {
        producer: model.producers().get(producer) for producer in PRODUCERS
    }
    latest = {b.header.max_timestamp_ms for b in model.batches[-2:]}
    for timestamp in {-60, 0, 120, 399, 401, *latest}:
        for end in {model.end, model.high_watermark, model.end - 1}:
            assert log.find_timestamp(timestamp, end) == model.find_timestamp(timestamp, end)


def check_summaries(log: Log, model: ModelLog) -> None:
    found = log.summaries(0, model.end, 2**30)
    places = [(b.base_offset, b.last_offset, b.header.record_count, b.max_time_ms) for b in model.batches]
    assert [(s.base_offset, s.last_offset, s.record_count, s.max_time_ms) for s in found] == places
    assert sum(summary.size_bytes for summary in found) == log.state.size_bytes
    dirty = [s.size_bytes for s in found if s.last_offset >= model.cleaned]
    assert log.dirty_bytes() == sum(dirty)


def check_reads(log: Log, model: ModelLog) -> None:
    assert log.read(model.start, model.end, 2**40) == model.batches
    assert log.read(model.first, model.end, 2**40) == model.batches  # a follower is filled from there
    for b in model.batches[-3:]:
        for start in {max(b.base_offset, model.start), b.last_offset}:
            for end, size in ((model.end, 0), (start + 1, 2**40), (model.end, len(b.payload) * 2)):
                assert log.read(start, end, size) == model.read(start, end, size)
    assert log.read(model.end, model.end + 5, 100) == []
    with pytest.raises(OffsetAboveEndError):
        log.read(model.end + 1, model.end + 5, 100)
    if model.first:
        with pytest.raises(OffsetBelowStartError):
            log.read(model.first - 1, model.end, 100)


def check_epochs(log: Log, model: ModelLog) -> None:
    for asked in range(-1, model.last_epoch + 2):
        expected = model.end_of_epoch(asked)
        found = log.end_of_epoch(asked)
        if expected is not None and expected.end_offset <= model.first and expected.leader_epoch < model.last_epoch:
            assert found in {None, expected}  # may be forgotten: none of its records is left
        else:
            assert found == expected
    for epoch in model.epochs():
        if epoch.start_offset >= model.first:
            assert log.epoch_start(epoch.leader_epoch) == epoch.start_offset
    for b in model.batches:
        assert log.epoch_at(b.base_offset) == log.epoch_at(b.last_offset) == b.leader_epoch


def test_store_is_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "SWEEP_ROWS", 3)
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=True,
        ),
    )
