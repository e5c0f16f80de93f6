"""The invariants of the replication rules (DESIGN section 6) and of the metadata, each named after what it guards."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.node.replication.replica import Role
from penstock.raft.image import MetadataImage, PartitionInfo
from penstock.raft.members import is_full
from penstock.raft.records import encode_image
from penstock.storage import Append, DropLog, LogBatch, Outcome, PartitionKey, ResetLog, Truncate
from penstock.storage.producers import ProducerState, advance
from tests.simulation.cluster.checks import Invariant, Known, Truth, records_of

if TYPE_CHECKING:
    from tests.simulation.cluster.machine import Machine


class OneCommittedHistory(Invariant):
    """Log matching up to the high watermark: what a leader's HW passed first is what every HW ever covers (I1, I11)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._compared: dict[tuple[int, int, PartitionKey], int] = {}

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        truth, mark = self.checks.truth(partition.key), partition.high_watermark
        log = partition.shell.log
        if log is None or machine.process is None:
            return
        if partition.is_leader and mark > truth.end:
            for batch in batches(log, truth.end, mark):
                if batch.base_offset != truth.end:
                    self.breach(f"{partition.key}: {truth.end} is not the begin of a batch on node {machine.node_id}")
                    return
                truth.extend(batch, self.checks.world.scheduler.now)
                self.checks.extended(machine, truth, batch)
        if mark > truth.end:
            self.breach(f"{partition.key}: HW {mark} of node {machine.node_id}, no leader's was above {truth.end}")
        place = (machine.node_id, machine.process.generation, partition.key)
        start, end = self._compared.get(place, 0), min(mark, log.state.log_end_offset)
        if end > start:
            self._compared[place] = end
            for batch in batches(log, max(start, log.state.log_start_offset), end):
                if truth.differs(batch):
                    self.breach(f"{partition.key}: node {machine.node_id} has {name(batch)} below HW {mark}")
                    return

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.write, Truncate | ResetLog) and outcome.log is not None and machine.process:
                place = (machine.node_id, machine.process.generation, outcome.log.key)
                self._compared[place] = min(self._compared.get(place, 0), outcome.log.state.log_end_offset)


class ElectableHoldAllCommitted(Invariant):
    """Leader completeness: every leader, ISR and ELR member with an intact disk durably holds all that is committed."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._matched: dict[tuple[tuple[int, int], PartitionKey], int] = {}

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        info = self.checks.partition(truth.key)
        if info is not None:
            self._check(truth, info)

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic_id, topic in new.topics.items():
            if old.topics.get(topic_id) is topic:
                continue
            for info in topic.partitions:
                truth = self.checks.truths.get(PartitionKey(topic_id, info.partition))
                if truth is not None and _former(old, topic_id, info.partition) is not info:
                    self._check(truth, info)

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.write, Truncate | ResetLog) and outcome.log is not None:
                key = outcome.log.key
                self._matched.pop((machine.disk_id, key), None)
                truth, info = self.checks.truths.get(key), self.checks.partition(key)
                if truth is not None and info is not None:
                    self._check(truth, info)

    def _check(self, truth: Truth, info: PartitionInfo) -> None:
        members = {*info.isr, *info.elr} | ({info.leader} if info.leader > 0 else set())
        for node_id in sorted(members):
            if node_id in self.checks.unsafe_disks:
                continue
            machine = self.checks.world.machines[node_id]
            held = self._held(machine, truth)
            if held < truth.end:
                text = f"{truth.key}: node {node_id} holds the committed up to {held} of {truth.end}; "
                self.breach(text + f"leader {info.leader}, ISR {info.isr}, ELR {info.elr}")
                return

    def _held(self, machine: "Machine", truth: Truth) -> int:
        """Up to where the node's disk has what was committed."""
        place = (machine.disk_id, truth.key)
        row = machine.durable(truth.key)
        if row is None:
            return 0
        held = self._matched.get(place, 0)
        end = min(truth.end, row.log_end_offset)
        held = max(held, row.log_start_offset)
        for batch in row.between(held, end):
            if truth.differs(batch):
                return batch.base_offset
            held = batch.last_offset + 1
        self._matched[place] = held
        return held


class OneLeaderAnEpoch(Invariant):
    """In a leader epoch of a partition one node leads, and only one to which this epoch was granted (rule 26)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._leaders: dict[tuple[PartitionKey, int], tuple[int, int]] = {}

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        if partition.role is not Role.LEADING or machine.process is None:
            return
        me = (machine.node_id, machine.process.generation)
        known = self._leaders.setdefault((partition.key, partition.leader_epoch), me)
        if known != me:
            self.breach(f"{partition.key} epoch {partition.leader_epoch} is led by {known} and {me} (node, start)")


class OneValueAnOffset(Invariant):
    """One offset of one leader epoch never has two values, on any disk at any time (I8)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._values: dict[tuple[PartitionKey, int, int], bytes] = {}
        self._records: dict[tuple[PartitionKey, int, int], Known] = {}

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            write = outcome.write
            if isinstance(write, Append) and outcome.error is None:
                for batch in write.batches:
                    place = (write.log.key, batch.leader_epoch, batch.base_offset)
                    if self.checks.may_be_compacted(write.log.key):
                        self._check_each(machine, write.log.key, batch)
                    elif self._values.setdefault(place, batch.payload) != batch.payload:
                        self.breach(f"{write.log.key}: {name(batch)} has another value on node {machine.node_id}")

    def _check_each(self, machine: "Machine", key: PartitionKey, batch: LogBatch) -> None:
        """Compacted batches are others, of the same records."""
        for known in records_of(batch):
            if self._records.setdefault((key, batch.leader_epoch, known.offset), known) != known:
                self.breach(f"{key}: {name(batch)} has another record at {known.offset} on node {machine.node_id}")


class MarksNeverGoBack(Invariant):
    """A replica's high watermark and log start never go back while it lives, nor does a disk's acted epoch, ever.

    Of the high watermark as far as it is durable: what a follower was told in advance of a commit that fails is void.
    """

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._marks: dict[Any, tuple[int, int]] = {}
        self._acted: dict[tuple[tuple[int, int], PartitionKey], int] = {}

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        core = partition.shell.core
        if core is None:
            return
        mark, start = min(partition.high_watermark, core.log.durable_end), partition.log_start_offset
        known = self._marks.get(partition, (0, 0))
        if mark < known[0] or start < known[1]:
            self.breach(f"{partition.key}: node {machine.node_id} went from HW, start {known} to {(mark, start)}")
        self._marks[partition] = (mark, start)

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            log = outcome.log
            if log is None or outcome.error is not None:
                continue
            if isinstance(outcome.write, ResetLog) and machine.broker is not None:
                self._marks.pop(machine.broker.replicas.find(log.key), None)
            place, acted = (machine.disk_id, log.key), log.state.acted_epoch
            if acted < self._acted.get(place, -1):
                self.breach(f"{log.key}: acted epoch of node {machine.node_id} went back to {acted}")
            self._acted[place] = acted


class NoIdempotentDuplicate(Invariant):
    """Below the high watermark no producer's sequence is there twice (I5)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._seen: dict[tuple[PartitionKey, int, int, int], int] = {}

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        header = batch.header
        if header.producer_id == -1:
            return
        place = (truth.key, header.producer_id, header.producer_epoch, header.base_sequence)
        if place in self._seen:
            self.breach(f"{truth.key}: sequence {place[1:]} is at {self._seen[place]} and at {batch.base_offset}")
        self._seen[place] = batch.base_offset


class HighWatermarkNeedsMinIsr(Invariant):
    """A leader's high watermark moves only while the committed ISR has min_insync_replicas members (rule 8).

    In the view that it acts on: one that was fenced may hear late that the ISR it led is smaller now.
    """

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        broker = machine.broker
        partition = None if broker is None else broker.replicas.find(truth.key)
        core = None if partition is None else partition.shell.core
        view = None if core is None else core.view
        if view is not None and len(view.isr) < view.min_insync_replicas:
            self.breach(f"{truth.key}: HW passed {batch.base_offset} with ISR {sorted(view.isr)} in the leader's view")


class SoundMetadata(Invariant):
    """Leader in ISR, ISR and ELR among the replicas and apart, somebody electable, epochs never back (I4, I7, I12)."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic_id, topic in new.topics.items():
            if old.topics.get(topic_id) is topic:
                continue
            for info in topic.partitions:
                known = _former(old, topic_id, info.partition)
                problem = "" if known == info else _problem(info, known)
                if problem:
                    self.breach(f"{topic.name}-{info.partition}: {problem}: {info}, before {known}")


def _former(image: MetadataImage, topic_id: bytes, partition: int) -> PartitionInfo | None:
    topic = image.topics.get(topic_id)
    return None if topic is None or partition >= len(topic.partitions) else topic.partitions[partition]


def _problem(info: PartitionInfo, known: PartitionInfo | None) -> str:
    isr, elr, replicas = set(info.isr), set(info.elr), set(info.replicas)
    if info.leader > 0 and info.leader not in isr:
        return "the leader is not in the ISR"
    if not isr | elr <= replicas or isr & elr:
        return "ISR and ELR are no parts of the replicas"
    if not isr | elr:
        return "nobody is electable"
    if known is None:
        return ""
    if info.partition_epoch <= known.partition_epoch or info.leader_epoch < known.leader_epoch:
        return "an epoch did not rise"
    if info.leader != known.leader and info.leader_epoch == known.leader_epoch and info.leader > 0:
        return "another leader in the same epoch"
    return ""


class EndIsCommitted(Invariant):
    """A leader that answers the end of its log has committed all that was when its epoch began (rule 12)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._committed: dict[tuple[PartitionKey, int], int] = {}

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic_id, topic in new.topics.items():
            if old.topics.get(topic_id) is topic:
                continue
            for info in topic.partitions:
                truth = self.checks.truths.get(PartitionKey(topic_id, info.partition))
                if truth is not None:
                    self._committed.setdefault((truth.key, info.leader_epoch), truth.end)

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        core = partition.shell.core
        if core is None or core.leader is None or not core.leader.end_is_known:
            return
        mark, end = partition.high_watermark, self._committed.get((partition.key, core.leader.leader_epoch), 0)
        if mark < end:
            self.breach(
                f"{partition.key}: the new leader {machine.node_id} knows {mark} as the end, {end} is committed"
            )


class OnlyTheLiveAreInSync(Invariant):
    """ISR members are live, and a leader's epoch is granted to its present registration (rules 9, 26)."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic in new.topics.values():
            for info in topic.partitions:
                fenced = [node_id for node_id in info.isr if new.nodes[node_id].fenced]
                if fenced:
                    self.breach(f"{topic.name}-{info.partition}: {fenced} are fenced: {info}")
                if info.leader > 0 and new.nodes[info.leader].node_epoch != info.leader_node_epoch:
                    self.breach(f"{topic.name}-{info.partition}: {new.nodes[info.leader]} has no grant: {info}")


class FullStoresStepBack(Invariant):
    """Whose store is full stays in an ISR only among others that are, and joins none but as the leader from the ELR."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        full = {node_id for node_id in new.nodes if is_full(new.nodes, node_id)}
        became = {node_id for node_id in full if not is_full(old.nodes, node_id)}
        for _ in became:
            self.checks.count("stores noted as full")
        if not full or new.version != old.version + 1:
            return
        for topic in new.topics.values():
            for info in topic.partitions:
                former = _former(old, topic.topic_id, info.partition)
                if became.intersection(info.isr) and not full.issuperset(info.isr):
                    self.breach(f"{topic.name}-{info.partition}: {sorted(became)} are full and others not: {info}")
                if former is None:
                    continue
                if became and former.isr and not info.isr:
                    self.breach(f"{topic.name}-{info.partition}: the last one left for its store is full: {info}")
                if not full.intersection(info.isr).difference(former.isr) <= {info.leader}:
                    self.breach(f"{topic.name}-{info.partition}: of {sorted(full)}, full, one has joined: {info}")


class SessionEnds(Invariant):
    """A node that is fenced in its present registration soon serves no more, whether or not it hears (DESIGN 5).

    Not at once: a deposed controller that does not know it yet may have answered after the next one granted sessions;
    and one that stood still answers itself once more.
    """

    _UNAWARE_S = 1.0
    """So long a leader of consensus may not know that it is deposed."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        if new.nodes is old.nodes:
            return
        for node_id, node in new.nodes.items():
            known, world = old.nodes.get(node_id), self.checks.world
            if node.fenced and known is not None and not known.fenced:
                grace_s = self._UNAWARE_S + world.options.session_timeout_ms / 1000
                world.scheduler.after(grace_s, self._look, world.machines[node_id], node.node_epoch)

    def _look(self, machine: "Machine", node_epoch: int) -> None:
        broker = machine.broker
        if broker is not None and broker.session.node_epoch == node_epoch and machine.is_serving:
            self.breach(f"node {machine.node_id} was fenced in node_epoch {node_epoch}, and still serves")


class DataGoesWithItsTopic(Invariant):
    """A log is deleted only when its topic is (rule 28)."""

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            write = outcome.write
            if (
                isinstance(write, DropLog)
                and outcome.log is not None
                and write.key.topic_id in self.checks.image.topics
            ):
                self.breach(f"node {machine.node_id} has deleted {write.key}, whose topic is there")


class ReassignmentCostsNoCopy(Invariant):
    """A reassignment ends when all of its target is in sync, unless it was turned back (ADR 11)."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        for topic_id, topic in new.topics.items():
            if old.topics.get(topic_id) is topic:
                continue
            for info in topic.partitions:
                known = _former(old, topic_id, info.partition)
                if known is None or not known.target or info.target or known.target == known.original:
                    continue
                is_next = info.partition_epoch == known.partition_epoch + 1 and info.replicas == known.target
                if is_next and not set(info.replicas) <= set(info.isr):
                    self.breach(f"{topic.name}-{info.partition}: ended with {info}, was {known}")


class OneMetadataHistory(Invariant):
    """Every node applies the same commands at the same places and gets the same image (prefix equality)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._commands: dict[int, bytes] = {}
        self._images: dict[int, bytes] = {}

    def on_applied(self, machine: "Machine", index: int, command: bytes, image: MetadataImage) -> None:
        if self._commands.setdefault(index, command) != command:
            self.breach(f"node {machine.node_id} applied another command at {index}")

    def on_restored(self, machine: "Machine", index: int, image: MetadataImage) -> None:
        self.checks.count("snapshots restored")

    def at_end(self) -> None:
        digests = {
            hashlib.sha256(encode_image(machine.broker.image)).hexdigest()
            for machine in self.checks.world.machines.values()
            if machine.broker is not None
        }
        if len(digests) > 1:
            self.breach("the nodes' images of the same version differ")


class ActsOnPresentRegistration(Invariant):
    """A node leads only under its present registration, and in an epoch granted to it (rule 26)."""

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        broker = machine.broker
        if broker is None or partition.role is not Role.LEADING:
            return
        replicas = broker.replicas
        node = broker.image.nodes.get(machine.node_id)
        if node is None or replicas.node_epoch is None or node.node_epoch < replicas.node_epoch:
            self.breach(f"{partition.key}: node {machine.node_id} leads before its view has its registration")
        view = partition.shell.core.view
        if view is not None and view.leader_node_epoch != replicas.node_epoch:
            text = f"{partition.key}: node {machine.node_id} leads in epoch {view.leader_epoch} granted to its "
            self.breach(text + f"registration {view.leader_node_epoch}, the present one is {replicas.node_epoch}")


class ProducersMatchTheLog(Invariant):
    """Producer state is what the log's batches make it, truncations included (rule 13)."""

    def at_end(self) -> None:
        for machine in self.checks.world.machines.values():
            for key in list(self.checks.partitions()):
                row = machine.durable(key)
                if row is None or row.log_start_offset:
                    continue
                for producer, state in _replayed(row.between(0, row.log_end_offset)).items():
                    held = row.producer(producer)
                    if held != state and not self._may_be_compacted(key, held, state):
                        self.breach(f"{key}: node {machine.node_id} has {held} of producer {producer}, not {state}")

    def _may_be_compacted(self, key: PartitionKey, held: ProducerState | None, state: ProducerState) -> bool:
        """A cut brought back what compaction did not keep, since it was not remembered then."""
        latest = held is not None and held.batches[-len(state.batches) :] == state.batches
        return self.checks.truth(key).was_cut and latest


def _replayed(log: Sequence[LogBatch]) -> dict[int, ProducerState]:
    states: dict[int, ProducerState] = {}
    for batch in log:
        producer = batch.header.producer_id
        if producer != -1:
            place = (batch.base_offset, batch.append_time_ms, batch.last_offset)
            states[producer] = advance(states.get(producer), batch.header, *place)
    return states


class LeadersKnowTheLogsProducers(Invariant):
    """What a new leader has in memory of producers is what its log has (rule 13)."""

    def __init__(self, checks: Any) -> None:
        super().__init__(checks)
        self._seen: dict[Any, int] = {}

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        epoch = partition.leader_epoch
        if not partition.is_leader or self._seen.get(partition) == epoch:
            return
        self._seen[partition] = epoch
        for producer_id, (state, _) in partition._producers._states.items():
            held = partition.shell.log.producer(producer_id)
            if state != held:
                text = f"{partition.key}: node {machine.node_id} leads epoch {epoch} with {state} of producer "
                self.breach(text + f"{producer_id}, its log has {held}")


class ReplicasEndEqual(Invariant):
    """After healing every replica of a partition holds the same batches, and all that was ever committed."""

    def at_end(self) -> None:
        for key in self.checks.partitions():
            truth, info = self.checks.truth(key), self.checks.partition(key)
            assert info is not None
            for node_id in info.replicas:
                row = self.checks.world.machines[node_id].durable(key)
                end = -1 if row is None else row.log_end_offset
                if row is None or end != truth.end:
                    self.breach(f"{key}: node {node_id} ends at {end}, committed is {truth.end}")
                    return
                for batch in row.between(row.log_start_offset, end):
                    if truth.differs(batch):
                        self.breach(f"{key}: node {node_id} has another batch at {batch.base_offset}")


class NobodyFails(Invariant):
    """No process ends by itself, no replica stops, no callback or task fails, unless a fault made it."""

    def on_lost(self, machine: "Machine") -> None:
        self.checks.count("processes lost")

    def at_end(self) -> None:
        for machine in self.checks.world.machines.values():
            if machine.process is None or machine.broker is None:
                continue
            for context in machine.process.loop.errors:
                error = context.get("exception")
                self.breach(f"node {machine.node_id}: {context.get('message')}: {type(error).__name__}: {error}")
            for partition in machine.broker.replicas.partitions():
                if partition.shell.failed:
                    self.breach(f"{partition.key}: the replica on node {machine.node_id} stopped")


def batches(log: Any, start: int, end: int) -> list[LogBatch]:
    """All batches of a log from the one that holds `start` up to `end`."""
    found: list[LogBatch] = []
    while start < end:
        some = log.read(start, end, 1 << 20)
        if not some:
            break
        found += some
        start = found[-1].last_offset + 1
    return found


def name(batch: LogBatch) -> str:
    """How a batch is called in messages."""
    return f"{batch.base_offset}..{batch.last_offset} of epoch {batch.leader_epoch}"


INVARIANTS = (
    OneCommittedHistory,
    ElectableHoldAllCommitted,
    OneLeaderAnEpoch,
    OneValueAnOffset,
    MarksNeverGoBack,
    NoIdempotentDuplicate,
    HighWatermarkNeedsMinIsr,
    SoundMetadata,
    EndIsCommitted,
    OnlyTheLiveAreInSync,
    FullStoresStepBack,
    SessionEnds,
    DataGoesWithItsTopic,
    ReassignmentCostsNoCopy,
    OneMetadataHistory,
    ActsOnPresentRegistration,
    ProducersMatchTheLog,
    LeadersKnowTheLogsProducers,
    ReplicasEndEqual,
    NobodyFails,
)
