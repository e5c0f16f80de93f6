"""One replica of one partition, as the API sees it: appends with their acknowledgements, reads, offsets.

Owns who waits for what. The protocol is the replica core's, its effects are the replica shell's. Loop thread only; no
await between a check and its act.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from penstock.node.partition.producing import Producers
from penstock.node.partition.requests import AppendRequest, AppendResult, Done, FoundOffset, ReadRequest
from penstock.node.replication.events import NO_EPOCH, NO_LEADER, AppendRefusal
from penstock.node.replication.ports import Host
from penstock.node.replication.replica import Role
from penstock.node.replication.shell import ReplicaShell
from penstock.node.waiters import Waiters
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.storage import (
    LogBatch,
    LogDroppedError,
    OffsetBelowStartError,
    PartitionKey,
    StorageError,
    StoreFullError,
)
from penstock.storage.producers import Duplicate, ProducerState, Refusal, Verdict
from penstock.v1 import common_pb2

WAITING_APPENDS = 100_000
"""Appends of one partition that may wait for an acknowledgement."""

_REFUSALS = {
    AppendRefusal.NOT_LEADER: Reason.NOT_LEADER,
    AppendRefusal.RESIGNED: Reason.NOT_LEADER,
    AppendRefusal.RECOVERING: Reason.OVERLOADED,
    AppendRefusal.NOT_ENOUGH_REPLICAS: Reason.NOT_ENOUGH_REPLICAS,
}
_PRODUCER_REASONS = {
    Refusal.OUT_OF_ORDER: Reason.OUT_OF_ORDER_SEQUENCE,
    Refusal.UNKNOWN_PRODUCER: Reason.UNKNOWN_PRODUCER,
    Refusal.FENCED: Reason.PRODUCER_FENCED,
}


class _Append(NamedTuple):
    """An append that is to be answered."""

    base_offset: int
    leader_epoch: int
    append_time_ms: int
    acks: int
    duplicate: bool
    done: Done


class Partition:
    """Raises PenstockError for refusals before anything happened; NOT_LEADER is for the API to explain further."""

    def __init__(self, key: PartitionKey, host: Host) -> None:
        self.key = key
        self.topic_name = ""
        """As the metadata has it, for messages."""
        self._host = host
        self.shell = ReplicaShell(key, host, self)
        """The replica below; for Replicas and the streams, not for the API."""
        self._producers = Producers(self._load_producer)
        self._in_sync: Waiters[_Append] = Waiters()
        self._local: Waiters[_Append] = Waiters()
        self._trims = 0
        """Under way."""
        self._watchers: dict[object, Callable[[], None]] = {}

    # ---- state

    @property
    def role(self) -> Role:
        """What this replica does now."""
        core = self.shell.core
        return Role.IDLE if core is None else core.role

    @property
    def is_leader(self) -> bool:
        """Whether this node leads the partition."""
        return self.role is Role.LEADING

    @property
    def leader(self) -> int:
        """Leader in the view that this replica acts on, or -1."""
        view = None if self.shell.core is None else self.shell.core.view
        return NO_LEADER if view is None else view.leader

    @property
    def leader_epoch(self) -> int:
        """Leader epoch of that view, or -1."""
        view = None if self.shell.core is None else self.shell.core.view
        return NO_EPOCH if view is None else view.leader_epoch

    @property
    def high_watermark(self) -> int:
        """Offsets below are committed."""
        return 0 if self.shell.core is None else self.shell.core.log.high_watermark

    @property
    def last_stable_offset(self) -> int:
        """First offset of an undecided transaction, or the high watermark."""
        return self.high_watermark

    @property
    def log_start_offset(self) -> int:
        """First offset that is kept."""
        return 0 if self.shell.core is None else self.shell.core.log.log_start_offset

    @property
    def log_end_offset(self) -> int:
        """Next offset to be written."""
        return 0 if self.shell.core is None else self.shell.core.log.log_end_offset

    @property
    def passed_offset(self) -> int:
        """Every replica, in sync or not, has what is below it, as far as this node knows; see rule 19."""
        return 0 if self.shell.core is None else self.shell.core.passed_offset

    def on_progress(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the loop when HW, log start or role changed; returns the way to end it."""
        token = object()
        self._watchers[token] = callback
        return partial(self._forget_watcher, token)

    def _forget_watcher(self, token: object) -> None:
        self._watchers.pop(token, None)

    # ---- append

    def append(self, request: AppendRequest, done: Done) -> None:
        """Append a batch; `done` is called once, perhaps before this returns: when its acks are met, or it failed."""
        self._check_leading(request.leader_epoch)
        verdict = self._producers.check(request.header)
        if isinstance(verdict, Duplicate):  # rule 14: before expected_offset
            self._answer_duplicate(request, verdict, done)
            return
        self._check_append(request, verdict)
        core = self.shell.leading()
        base = core.append(request.header.record_count)
        last = base + request.header.record_count - 1
        epoch = core.acted_epoch
        batch = LogBatch(base, last, epoch, request.now_ms, request.header, request.payload, request.timestamp_type)
        self._producers.note(batch, core.log.durable_end)
        self._wait(request, last, _Append(base, epoch, request.now_ms, request.acks, duplicate=False, done=done))
        self.shell.append(batch)

    def _check_append(self, request: AppendRequest, verdict: Verdict) -> None:
        core = self.shell.leading()
        if self._host.store_is_full():  # before it has an offset: what was pushed and then fails costs the leadership
            raise PenstockError(Reason.STORE_FULL, f"partition {self._name()}: {Reason.STORE_FULL.text}")
        refusal = core.append_refusal()
        if refusal is not None:
            raise PenstockError(_REFUSALS[refusal], f"partition {self._name()}: {refusal.value}")
        if isinstance(verdict, Refusal):
            reason = _PRODUCER_REASONS[verdict]
            header = request.header
            stamp = f"producer {header.producer_id} epoch {header.producer_epoch} sequence {header.base_sequence}"
            raise PenstockError(reason, f"partition {self._name()}: {stamp}: {reason.text}")
        end = core.log.log_end_offset
        if request.expected_offset is not None and request.expected_offset != end:
            text = f"partition {self._name()}: the log end is {end}, expected was {request.expected_offset}"
            raise PenstockError(Reason.EXPECTED_OFFSET_MISMATCH, text, {"log_end_offset": str(end)})
        if len(self._in_sync) + len(self._local) >= WAITING_APPENDS:
            raise PenstockError(Reason.OVERLOADED, f"partition {self._name()}: {WAITING_APPENDS} appends are waiting")

    def _answer_duplicate(self, request: AppendRequest, original: Duplicate, done: Done) -> None:
        """Rule 14: only when the original is below HW, whatever acks say; until then it waits as the original does."""
        core = self.shell.leading()
        item = _Append(original.base_offset, core.acted_epoch, request.now_ms, common_pb2.ACKS_ALL, True, done)  # noqa: FBT003  a NamedTuple
        if core.leader is not None and core.leader.may_answer_duplicate(original.last_offset):
            self._succeed([item])
        else:
            self._in_sync.add(original.last_offset + 1, request.deadline_ms, item)

    def _wait(self, request: AppendRequest, last_offset: int, item: _Append) -> None:
        if request.acks == common_pb2.ACKS_ALL:
            self._in_sync.add(last_offset + 1, request.deadline_ms, item)
        elif request.acks == common_pb2.ACKS_LEADER:
            self._local.add(last_offset + 1, request.deadline_ms, item)
        else:
            self._succeed([item])

    def _succeed(self, items: list[_Append]) -> None:
        if not items:
            return
        start = self.log_start_offset
        core, host = self.shell.core, self._host
        own = frozenset({host.node_id})
        isr = core.leader.isr if core is not None and core.leader is not None else own
        all_acks, in_sync, local = common_pb2.ACKS_ALL, host.durability_of(isr), host.durability_of(own)
        for base_offset, leader_epoch, append_time_ms, acks, duplicate, done in items:
            durability = in_sync if acks == all_acks else local
            done(AppendResult(base_offset, leader_epoch, append_time_ms, start, durability, duplicate))

    def _fail(self, items: list[_Append], reason: Reason, text: str) -> None:
        for item in items:
            item.done(PenstockError(reason, f"partition {self._name()}: {text}"))

    def expire(self, now_ms: int) -> None:
        """Answer OUTCOME_UNKNOWN to those past their deadline (monotonic time)."""
        late = self._in_sync.expired(now_ms) + self._local.expired(now_ms)
        self._fail(late, Reason.OUTCOME_UNKNOWN, "the replicas did not acknowledge the batch in time")
        if self._trims:
            self._tell()

    # ---- dropping

    def move_start(self, log_start_offset: int) -> None:
        """Let the log begin there, as leader: at most at the high watermark."""
        self.shell.move_start(log_start_offset)

    async def trim(self, log_start_offset: int | None, leader_epoch: int | None, timeout_s: float) -> int:
        """Delete all below an offset, None: all that is committed. The log start, on every in-sync replica by then.

        Raises NOT_LEADER, STALE_LEADER_EPOCH, INVALID_ARGUMENT, OFFSET_ABOVE_END; LEADER_NOT_AVAILABLE where a new
        leader does not know yet how much is committed; OUTCOME_UNKNOWN where the leadership ends or the in-sync
        replicas do not confirm in time: asking again is harmless.
        """
        self._check_leading(leader_epoch)
        core = self.shell.leading()
        if log_start_offset is None or log_start_offset > core.log.high_watermark:
            self.latest(leader_epoch, common_pb2.ISOLATION_READ_UNCOMMITTED)  # rule 12: refused while it is not known
        start = core.log.high_watermark if log_start_offset is None else log_start_offset
        if start < 0:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"partition {self._name()}: offset {start} is negative")
        if start > core.log.high_watermark:
            text = f"partition {self._name()}: offset {start} is above the high watermark {core.log.high_watermark}"
            raise PenstockError(Reason.OFFSET_ABOVE_END, text, {"high_watermark": str(core.log.high_watermark)})
        start = max(start, core.log.log_start_offset)  # what is answered is confirmed, not only this node's own
        leader, changed = core.leader, asyncio.Event()
        unsubscribe = self.on_progress(changed.set)
        self._trims += 1
        try:
            async with asyncio.timeout(timeout_s):
                while leader is not None and leader is core.leader and not leader.has_trimmed(start):
                    changed.clear()
                    self.move_start(start)
                    await changed.wait()
        except TimeoutError:
            text = (
                f"partition {self._name()}: not every in-sync replica has confirmed the new log start {start} in time"
            )
            raise PenstockError(Reason.OUTCOME_UNKNOWN, text) from None
        finally:
            self._trims -= 1
            unsubscribe()
        if leader is None or leader is not core.leader:
            raise PenstockError(Reason.OUTCOME_UNKNOWN, f"partition {self._name()}: its leadership ended meanwhile")
        return start

    # ---- what the shell reports

    def advanced(self) -> None:
        """HW, durable end or log start moved."""
        core = self.shell.core
        if core is None:
            return
        self._succeed(self._in_sync.reached(core.log.high_watermark))
        self._succeed(self._local.reached(core.log.durable_end))
        self._tell()

    def role_ended(self) -> None:
        """The role is over: what is not below HW has an unknown outcome."""
        self._finish_all(Reason.OUTCOME_UNKNOWN, "the leadership ended while the batch was under way")
        self._producers.clear()
        self._tell()

    def role_began(self) -> None:
        """A role began on a log in a known state."""
        self._producers.clear()
        self._tell()

    def append_failed(self, error: StorageError, *, pushed: bool) -> None:
        """A local commit failed and the log was cut to what is durable (rule 26: unknown where it was pushed).

        Only what was cut is refused. What is written and waits for the followers waits on: it may yet be committed.
        """
        self._producers.clear()
        if pushed:
            self._finish_all(Reason.OUTCOME_UNKNOWN, f"the local commit failed after replication began: {error}")
            return
        end = self.log_end_offset
        reason = Reason.STORE_FULL if isinstance(error, StoreFullError) else Reason.INTERNAL
        self._fail(self._in_sync.above(end) + self._local.above(end), reason, f"the batch was not written: {error}")

    def _finish_all(self, reason: Reason, text: str) -> None:
        """Answer every waiter: by HW or durable end where it was reached, else with the error."""
        core = self.shell.core
        mark, durable = (core.log.high_watermark, core.log.durable_end) if core is not None else (0, 0)
        committed, unsure = self._in_sync.drain(mark)
        written, lost = self._local.drain(durable)
        self._succeed(committed + written)
        self._fail(unsure + lost, reason, text)

    def _tell(self) -> None:
        for callback in list(self._watchers.values()):
            callback()

    # ---- reads

    async def read(self, request: ReadRequest) -> list[LogBatch]:
        """Batches below the high watermark from the one that holds `offset` on; [] where none are there yet.

        The tail answers without leaving the loop; a cold read runs in a thread. Raises OFFSET_BELOW_START,
        OFFSET_ABOVE_END, DIVERGED, NOT_LEADER, STALE_LEADER_EPOCH.
        """
        end = self._readable_end(request)
        if end is None:
            return []
        hot = self.shell.tail.read(request.offset, end, request.max_bytes)
        if hot is not None:
            return list(hot)
        try:
            return await self.shell.read_cold(request.offset, end, request.max_bytes)
        except OffsetBelowStartError:  # it was dropped while the read was under way
            raise self._below_start(request.offset) from None
        except LogDroppedError:
            raise PenstockError(Reason.NOT_LEADER, f"partition {self._name()} was removed from this node") from None

    def _readable_end(self, request: ReadRequest) -> int | None:
        """Where this read must end; None: nothing to read yet."""
        if request.leader_epoch is not None and self.is_leader and request.leader_epoch > self.leader_epoch:
            return None  # rule 3: unknown-newer waits for the view
        self._check_leading(request.leader_epoch)
        log = self.shell.leading().log
        if request.last_fetched_epoch is not None:
            self._check_divergence(request.offset, request.last_fetched_epoch)
        if request.offset < log.log_start_offset:  # rule 23: below and above are different errors
            raise self._below_start(request.offset)
        if request.offset > log.log_end_offset:
            text = f"partition {self._name()}: offset {request.offset} is above the log end {log.log_end_offset}"
            raise PenstockError(Reason.OFFSET_ABOVE_END, text, {"log_end_offset": str(log.log_end_offset)})
        if request.offset >= log.high_watermark:
            return None  # rule 12: between HW and log end it waits
        return log.high_watermark

    def _below_start(self, offset: int) -> PenstockError:
        text = f"partition {self._name()}: offset {offset} is below the log start {self.log_start_offset}"
        return PenstockError(Reason.OFFSET_BELOW_START, text, {"log_start_offset": str(self.log_start_offset)})

    def _check_divergence(self, offset: int, last_epoch: int) -> None:
        """Rule 3, KIP-320: what the consumer read last must be in this log."""
        found = self.shell.leading().log.epochs.end_of(last_epoch)
        if found is None or (found.leader_epoch == last_epoch and offset <= found.end_offset):
            return
        end = min(offset, found.end_offset)
        text = f"partition {self._name()}: what was read in epoch {last_epoch} left the log at offset {end}"
        metadata = {"end_offset": str(end), "leader_epoch": str(found.leader_epoch)}
        raise PenstockError(Reason.DIVERGED, text, metadata)

    def earliest(self, leader_epoch: int | None) -> FoundOffset:
        """Log start."""
        self._check_leading(leader_epoch)
        return FoundOffset(self.log_start_offset, None, self.leader_epoch)

    def latest(self, leader_epoch: int | None, isolation: int) -> FoundOffset:
        """Log end for consumers; LEADER_NOT_AVAILABLE until it is known: wait for on_progress, ask again."""
        self._check_leading(leader_epoch)
        leader = self.shell.leading().leader
        if leader is None or not leader.end_is_known:  # rule 12
            text = f"partition {self._name()}: its leader does not know the committed end yet"
            raise PenstockError(Reason.LEADER_NOT_AVAILABLE, text)
        end = self.last_stable_offset if isolation == common_pb2.ISOLATION_READ_COMMITTED else self.high_watermark
        return FoundOffset(end, None, self.leader_epoch)

    async def find_timestamp(self, timestamp_ms: int, leader_epoch: int | None, isolation: int) -> FoundOffset:
        """First record at or after a time, else as `latest`."""
        latest = self.latest(leader_epoch, isolation)
        log = self.shell.log
        if log is None:
            return latest
        found = await asyncio.to_thread(log.find_timestamp, timestamp_ms, latest.offset)
        return latest if found is None else FoundOffset(found[0], found[1], latest.leader_epoch)

    async def find_offset(self, offset: int, leader_epoch: int | None, isolation: int) -> FoundOffset:
        """First record at or after an offset, with its time, else as `latest`. Raises OFFSET_ABOVE_END."""
        latest = self.latest(leader_epoch, isolation)
        if offset < 0:
            raise PenstockError(Reason.INVALID_ARGUMENT, f"partition {self._name()}: offset {offset} is negative")
        if offset > latest.offset:
            text = f"partition {self._name()}: offset {offset} is above the end {latest.offset}"
            raise PenstockError(Reason.OFFSET_ABOVE_END, text, {"high_watermark": str(latest.offset)})
        log = self.shell.log
        if log is None or offset == latest.offset:
            return latest
        found = await asyncio.to_thread(log.find_offset, offset, latest.offset)
        return latest if found is None else FoundOffset(found[0], found[1], latest.leader_epoch)

    # ---- checks

    def _check_leading(self, leader_epoch: int | None) -> None:
        core = self.shell.core
        if core is None or core.role is not Role.LEADING or core.view is None:
            raise PenstockError(Reason.NOT_LEADER, f"this node does not lead partition {self._name()}")
        known = core.view.leader_epoch
        if leader_epoch is None or leader_epoch == known:
            return
        if leader_epoch < known:  # rule 3: stale is fenced
            text = f"partition {self._name()} is in leader epoch {known}, the request names {leader_epoch}"
            raise PenstockError(Reason.STALE_LEADER_EPOCH, text, {"leader_epoch": str(known)})
        text = f"this node does not know leader epoch {leader_epoch} of partition {self._name()} yet"
        raise PenstockError(Reason.NOT_LEADER, text)

    def _load_producer(self, producer_id: int) -> ProducerState | None:
        return None if self.shell.log is None else self.shell.log.producer(producer_id)

    def _name(self) -> str:
        return f"{self.key.partition} of {self.topic_name!r}"
