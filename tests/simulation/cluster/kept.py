"""What must be kept where logs are trimmed, retained and compacted: the invariants of worlds with cleanup.

A record that was committed may be gone for one of these reasons only: it is below a log start that somebody asked for
or that retention allows; or the topic was ever compacted, and a later record of its key is committed; or it is a
tombstone there, and no record that it superseded is left (rule 19).
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.protocol.batch import NO_PRODUCER
from penstock.raft.image import MetadataImage, TopicConfig
from penstock.storage import Append, Compact, LogBatch, MoveStart, Outcome, PartitionKey, ResetLog, Truncate
from penstock.storage.layout import BATCH_ROW_BYTES
from penstock.storage.producers import ProducerState, advance
from tests.simulation.cluster.checks import Checks, Invariant, Truth, records_of
from tests.simulation.cluster.clocks import EPOCH_S
from tests.simulation.cluster.history import Content, Row, Spot, TimeFound, Violation

if TYPE_CHECKING:
    from tests.simulation.cluster.machine import Held, Machine

CLOCKS_AGREE_MS = 60_000
"""Wall clocks that differ by less are believed (node.clock_trust)."""


class NothingOwedIsGone(Invariant):
    """On every disk, always: batches tile, records are those that were written, and of each key the latest is there.

    Of each key, among the records below the replica's end (as far as it agrees with what is committed) the latest one
    is there, or a later one is committed that the replica does not have yet, or it is a tombstone and no record of the
    key is there.
    """

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        changed = [outcome.log.key for outcome in outcomes if outcome.log is not None and _changes(outcome)]
        for outcome in outcomes:
            if outcome.error is None and isinstance(outcome.write, Compact) and outcome.write.rows:
                self.checks.count("compactions with tombstones" if outcome.write.tombstones_below else "compactions")
            elif outcome.error is not None and isinstance(outcome.write, Compact):
                self.checks.count("stale compactions")
            elif isinstance(outcome.write, ResetLog):
                self.checks.count("logs filled anew")
        for key in dict.fromkeys(changed):
            self._check(machine, key)

    def at_end(self) -> None:
        for machine in self.checks.world.machines.values():
            for key in self.checks.partitions():
                self._check(machine, key)

    def _check(self, machine: "Machine", key: PartitionKey) -> None:
        held, truth = machine.durable(key), self.checks.truths.get(key)
        if held is None:
            return
        problem = _misplaced(held)
        if not problem and truth is not None:
            problem = self._missing(held, truth)
        if problem:
            self.breach(f"{key}: node {machine.node_id}: {problem}")

    def _missing(self, held: "Held", truth: Truth) -> str:
        """What is not there and ought to be, or is there and ought not to be."""
        start, end = held.log_start_offset, min(held.log_end_offset, truth.end)
        present: dict[bytes | None, int] = {}
        for batch in held.batches:
            if batch.base_offset >= end:
                break
            if truth.epoch_at(batch.base_offset) != batch.leader_epoch:  # it was never committed, and will be cut
                end = batch.base_offset
                break
            if truth.differs(batch):
                return f"{batch.base_offset} to {batch.last_offset} is not what was committed"
            present.update((known.key, known.offset) for known in records_of(batch) if known.offset >= start)
        for key, offsets in truth.offsets.items():
            place = bisect_left(offsets, end)
            if not place or offsets[place - 1] < start or present.get(key) == offsets[place - 1]:
                continue
            latest, found = truth.records[offsets[place - 1]], present.get(key)
            if place < len(offsets):
                self.checks.count("lags behind a compaction")
            elif latest.value is not None:
                return f"{latest} is gone, the latest of its key below {end}; there is {found}"
            elif found is not None:
                return f"{truth.records[found]} is back, after {latest}, which is gone (log end {end})"
            else:
                self.checks.count("tombstones found gone")
                left_s = self._stays_until(truth, latest.offset) - self.checks.world.scheduler.now
                if left_s > 0:
                    return f"{latest} is gone {left_s} s too early"
        return ""

    def _stays_until(self, truth: Truth, offset: int) -> float:
        """When a tombstone may go; nothing is known where a clock has jumped."""
        world = self.checks.world
        if any(world.time.skew_s[machine.host] != machine.clock_skew for machine in world.machines.values()):
            return 0.0
        kept_ms = min(config.delete_retention_ms for config in self.checks.configs[truth.key.topic_id])
        return truth.committed_at(offset) + kept_ms / 1000


def _changes(outcome: Outcome) -> bool:
    """Whether the write may have taken records out of a log."""
    write = outcome.write
    if isinstance(write, Append):
        return outcome.error is None and not all(map(_is_whole, write.batches))
    return outcome.error is None and isinstance(write, Compact | MoveStart | ResetLog | Truncate)


def _is_whole(batch: LogBatch) -> bool:
    """Each of its offsets has a record."""
    return batch.header.record_count == batch.last_offset - batch.base_offset + 1


def _misplaced(held: "Held") -> str:
    """What is wrong with a log, whatever its records are."""
    state, batches = held.state, held.batches
    expected, epoch = state.first_offset, -1
    for batch in batches:
        if batch.base_offset != expected or batch.last_offset < expected or batch.leader_epoch < epoch:
            return f"{batch.base_offset} to {batch.last_offset} of epoch {batch.leader_epoch} is not at {expected}"
        expected, epoch = batch.last_offset + 1, batch.leader_epoch
    if expected != state.log_end_offset:
        return f"the batches end at {expected}, not {state.log_end_offset}"
    in_first = state.log_start_offset <= (batches[0].last_offset if batches else state.first_offset)
    if not state.first_offset <= state.log_start_offset or not in_first:
        return f"the log start is not in the first batch: {state}"
    if not state.log_start_offset <= state.high_watermark <= state.log_end_offset:
        return f"the high watermark is not in the log: {state}"
    if not state.first_offset <= state.cleaned_offset <= state.high_watermark:
        return f"more than what is committed is compacted: {state}"
    size = sum(BATCH_ROW_BYTES + len(batch.payload) for batch in batches)
    count = sum(batch.header.record_count for batch in batches)
    if (size, count) != (state.size_bytes, state.record_count):
        return f"there are {size} bytes, {count} records: {state}"
    return ""


class StartsMoveForAReason(Invariant):
    """A log begins at most where somebody asked for, or where retention allows, and never above what is committed.

    Retention by size keeps retention_bytes at least; by time it drops what is older by the true time, about.
    """

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic_id, topic in new.topics.items():
            known = self.checks.configs.setdefault(topic_id, [])
            if topic.config not in known:
                known.append(topic.config)

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.write, MoveStart) and outcome.log is not None and outcome.error is None:
                self._check(machine, outcome.log.key, outcome.log.state.log_start_offset, outcome.log.state.size_bytes)

    def _check(self, machine: "Machine", key: PartitionKey, start: int, left: int) -> None:
        truth = self.checks.truth(key)
        allowed = max(truth.start, truth.trim_asked)
        if start > truth.end:
            self.breach(f"{key}: node {machine.node_id} begins at {start}, committed is {truth.end}")
        if start > allowed:
            self.checks.count("retained")
            configs = [config for config in self.checks.configs.get(key.topic_id, ()) if config.deletes]
            if not any(self._allows(config, key, start, left) for config in configs):
                self.breach(f"{key}: node {machine.node_id} begins at {start}, {left} bytes are left: {configs}")
        truth.start = max(truth.start, start)

    def _allows(self, config: TopicConfig, key: PartitionKey, start: int, left: int) -> bool:
        compacted = _ever_compacted(self.checks, key.topic_id)
        if config.retention_bytes and (compacted or left >= config.retention_bytes):
            return True
        if config.retention_time_ms is None:
            return False
        now_ms = (EPOCH_S + self.checks.world.scheduler.now) * 1000
        gone = [batch for batch in self.checks.truth(key).batches if batch.last_offset < start]
        newest_ms = max((batch.max_time_ms for batch in gone), default=0)
        return compacted or newest_ms + config.retention_time_ms < now_ms + CLOCKS_AGREE_MS


class TrimsLast(Invariant):
    """No leader, of the same leadership or a later one, has a log that begins before a trim that was acknowledged."""

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        truth = self.checks.truths.get(partition.key)
        if truth is None or not partition.is_leader:
            return
        start, epoch = partition.log_start_offset, partition.leader_epoch
        later = [trim for trim in truth.trims if trim[0] <= epoch and trim[1] > start]
        if later:
            text = f"{partition.key}: node {machine.node_id} leads epoch {epoch} from {start}, "
            self.breach(text + f"acknowledged was {later} (epoch, log start)")


class ProducersAreKnown(Invariant):
    """In the end every replica knows of each producer what the whole log says, though much of it is gone (rule 14).

    Where a log was cut, what the cut brought back of a producer may be compacted already: then a replica that is filled
    from it knows the latest of its batches only. The client has had the answers of the others, or it would not have
    sent what was cut.
    """

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.write, Truncate) and outcome.log is not None:
                self.checks.truth(outcome.log.key).was_cut = True

    def at_end(self) -> None:
        for key in self.checks.partitions():
            truth, info = self.checks.truth(key), self.checks.partition(key)
            states: dict[int, ProducerState] = {}
            for batch in truth.batches:
                if batch.header.producer_id != NO_PRODUCER:
                    former = states.get(batch.header.producer_id)
                    state = advance(former, batch.header, batch.base_offset, batch.append_time_ms)
                    states[batch.header.producer_id] = state
            for node_id in () if info is None else info.replicas:
                held = self.checks.world.machines[node_id].durable(key)
                for producer, state in states.items():
                    known = None if held is None else held.producer(producer)
                    if known != state and not (truth.was_cut and is_latest_of(known, state)):
                        self.breach(f"{key}: node {node_id} has {known} of producer {producer}, not {state}")
                        return


def is_latest_of(known: ProducerState | None, state: ProducerState) -> bool:
    """Whether the one has the latest batches of the other, or nothing."""
    return known is None or state.batches[-len(known.batches) :] == known.batches


KEPT_INVARIANTS: tuple[type[Invariant], ...] = (
    NothingOwedIsGone,
    StartsMoveForAReason,
    TrimsLast,
    ProducersAreKnown,
)


# ---- what clients see in the end


def complete(checks: Checks, content: Content) -> Content:
    """Compare what was read in the end with the truth, and put the whole of that in its place."""
    whole = Content(content.names, {}, content.times)
    for key, truth in checks.truths.items():
        whole.may_skip[Spot(*key)] = _may_skip(checks, truth)
    for spot, rows in content.rows.items():
        truth = checks.truth(PartitionKey(*spot))
        whole.rows[spot] = [_row(truth, offset) for offset in range(truth.end)]
        _compare(spot, rows, whole)
    for found in content.times:
        _check_time(checks.truth(PartitionKey(*found.spot)), found, whole.may_skip_at(found.spot))
    return whole


def _may_skip(checks: Checks, truth: Truth) -> frozenset[int]:
    """Offsets whose records may be gone."""
    gone = set(range(truth.start))
    if _ever_compacted(checks, truth.key.topic_id):
        for offsets in truth.offsets.values():
            gone.update(offsets[:-1])
            if truth.records[offsets[-1]].value is None:
                gone.add(offsets[-1])
    return frozenset(gone)


def _row(truth: Truth, offset: int) -> Row:
    known = truth.records[offset]
    value = known.value if known.value is not None else known.headers[0][1]
    return Row(offset, truth.epoch_at(offset), value)


def _compare(spot: Spot, rows: Sequence[Row], whole: Content) -> None:
    there = {row.offset for row in rows}
    for row in rows:
        if row.offset >= len(whole.rows[spot]) or whole.rows[spot][row.offset] != row:
            raise Violation(f"FinalContent: {row} was read in {spot}, committed is another record")
    missing = set(range(len(whole.rows[spot]))) - whole.may_skip[spot] - there
    if missing:
        raise Violation(f"FinalContent: of {spot} {sorted(missing)} are missing")


def _check_time(truth: Truth, found: TimeFound, may_skip: frozenset[int]) -> None:
    if found.timestamp_ms is not None:
        known = truth.records.get(found.offset)
        if known is None or known.time_ms != found.timestamp_ms or known.time_ms < found.asked_ms:
            raise Violation(f"TimesAreExact: {found}, there is {known}")
    for offset, known in truth.records.items():
        if offset < found.offset and known.time_ms >= found.asked_ms and offset not in may_skip:
            raise Violation(f"TimesAreExact: {found}, {known} is before it")


def _ever_compacted(checks: Checks, topic_id: bytes) -> bool:
    return any(config.compacts for config in checks.configs.get(topic_id, ()))
