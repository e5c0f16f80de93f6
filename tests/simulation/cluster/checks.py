"""What a world knows of the truth, and the invariants that watch it.

The oracle has the newest metadata image applied anywhere, and of each partition the batches that were ever below a
leader's high watermark. Invariants are small classes in `invariants`, each with a method for the moments it looks at.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.protocol.batch import header_of, parse, read
from penstock.raft.image import EMPTY_IMAGE, MetadataImage, PartitionInfo, TopicConfig
from penstock.storage import LogBatch, Outcome, PartitionKey
from penstock.storage.types import APPEND_TIME
from penstock.v1.record_pb2 import RecordBatch

if TYPE_CHECKING:
    from tests.simulation.cluster.machine import Machine
    from tests.simulation.cluster.world import World


class Violation(Exception):  # noqa: N818  what a checker finds, not what code does wrong
    """An invariant does not hold. The text begins with the invariant's name and a colon."""


class Known(NamedTuple):
    """A record with its place and its time, whichever clock it is by."""

    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@lru_cache(maxsize=4_096)
def records_of(batch: LogBatch) -> tuple[Known, ...]:
    """Read a batch's records."""
    if not batch.header.record_count:
        return ()
    appended = batch.append_time_ms if batch.timestamp_type == APPEND_TIME else None
    return tuple(
        Known(
            batch.base_offset + record.offset_delta,
            batch.header.base_timestamp_ms + record.timestamp_delta_ms if appended is None else appended,
            record.key if record.HasField("key") else None,
            record.value if record.HasField("value") else None,
            tuple((header.key, header.value) for header in record.headers),
        )
        for record in read(parse(batch.payload)[1])
    )


class Truth:
    """Of one partition: what was committed, in order, from offset 0 on."""

    def __init__(self, key: PartitionKey, *, keeps_records: bool = False) -> None:
        self.key = key
        self._keeps_records = keeps_records
        self.batches: list[LogBatch] = []
        self._times: list[float] = []
        self.places: dict[int, int] = {}
        """Base offset -> index in `batches`."""
        self.end = 0
        self.start = 0
        """Highest log start that any replica ever had."""
        self.trim_asked = 0
        """Highest offset that somebody asked to be the log's start."""
        self.was_cut = False
        """Some replica's log was; only in worlds with cleanup."""
        self.trims: list[tuple[int, int]] = []
        """Leader epochs and log starts that were acknowledged."""
        self.records: dict[int, Known] = {}
        """By offset; only where records may be dropped, as `offsets`."""
        self.offsets: dict[bytes | None, list[int]] = {}
        """Of each key."""

    def committed_at(self, offset: int) -> float:
        """When it was, or a little before."""
        return self._times[self._place_of(offset)]

    def _place_of(self, offset: int) -> int:
        return bisect_right(self.batches, offset, key=lambda batch: batch.base_offset) - 1

    def extend(self, batch: LogBatch, now: float) -> None:
        self.places[batch.base_offset] = len(self.batches)
        self.batches.append(batch)
        self._times.append(now)
        self.end = batch.last_offset + 1
        if self._keeps_records:
            for known in records_of(batch):
                self.records[known.offset] = known
                self.offsets.setdefault(known.key, []).append(known.offset)

    def epoch_at(self, offset: int) -> int:
        """Leader epoch of what was committed there."""
        return self.batches[self._place_of(offset)].leader_epoch

    def differs(self, batch: LogBatch) -> bool:
        """Whether a batch below the end is another one than was committed, and none that compaction may make of it."""
        place = self.places.get(batch.base_offset)
        if place is None:
            return True
        known = self.batches[place]
        if (
            known.last_offset == batch.last_offset
            and known.leader_epoch == batch.leader_epoch
            and known.payload == batch.payload
        ):
            return False
        return not self._keeps_records or self._is_no_part(batch, place)

    def _is_no_part(self, batch: LogBatch, place: int) -> bool:
        """Whether the batch is no compaction of the batches at `place` and after it."""
        ends = place
        while ends < len(self.batches) - 1 and self.batches[ends].last_offset < batch.last_offset:
            ends += 1
        whole = self.batches[place : ends + 1]
        if whole[-1].last_offset != batch.last_offset or {one.leader_epoch for one in whole} != {batch.leader_epoch}:
            return True
        offsets = [known.offset for known in records_of(batch)]
        return (
            header_of(RecordBatch.FromString(batch.payload)) != batch.header
            or len(offsets) != batch.header.record_count
            or sorted(set(offsets)) != offsets
            or any(not batch.base_offset <= offset <= batch.last_offset for offset in offsets)
            or any(self.records[known.offset] != known for known in records_of(batch))
        )


_MOMENTS = (
    "on_progress", "on_commit", "on_image", "on_view", "on_applied", "on_restored", "on_round", "on_send", "on_lost",
    "on_extended", "at_end",
)  # fmt: skip


class Invariant:
    """Override the moments that matter. Raise nothing: call `self.breach(text)`."""

    def __init__(self, checks: "Checks") -> None:
        self.checks = checks

    def breach(self, text: str) -> None:
        """The run ends with a violation."""
        self.checks.world.fail(Violation(f"{type(self).__name__}: {text}"))

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        """A replica's high watermark, durable end, log start or role changed."""

    def on_extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        """A leader's high watermark passed a batch for the first time in the world."""

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        """A store's commit succeeded; the outcomes are not told yet."""

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        """Newer metadata than ever was applied somewhere."""

    def on_view(self, machine: "Machine", old: MetadataImage, new: MetadataImage) -> None:
        """A node's view moved."""

    def on_applied(self, machine: "Machine", index: int, command: bytes, image: MetadataImage) -> None:
        """A node applied a command."""

    def on_restored(self, machine: "Machine", index: int, image: MetadataImage) -> None:
        """A node restored a snapshot."""

    def on_round(self, machine: "Machine", raft: Any) -> None:
        """A round of consensus ended."""

    def on_send(self, machine: "Machine", peer: int, message: dict[str, Any]) -> None:
        """A message of consensus leaves."""

    def on_lost(self, machine: "Machine") -> None:
        """A process ended."""

    def at_end(self) -> None:
        """Everything has converged."""


class Checks:
    """The oracle, and the dispatch of moments."""

    def __init__(self, world: "World") -> None:
        from tests.simulation.cluster.group import Group  # noqa: PLC0415
        from tests.simulation.cluster.group_invariants import GROUP_INVARIANTS  # noqa: PLC0415
        from tests.simulation.cluster.invariants import INVARIANTS  # noqa: PLC0415  they import Invariant from here
        from tests.simulation.cluster.kept import KEPT_INVARIANTS  # noqa: PLC0415
        from tests.simulation.cluster.raft_invariants import RAFT_INVARIANTS  # noqa: PLC0415

        self.world = world
        self.image = EMPTY_IMAGE
        self.truths: dict[PartitionKey, Truth] = {}
        self.configs: dict[bytes, list[TopicConfig]] = {}
        """All that each topic ever had; only in worlds with cleanup."""
        self.facts: dict[str, int] = {}
        self.unsafe_disks: set[int] = set()
        """Nodes whose disk was lost: until a registration of a later start is applied."""
        self.group = Group(world) if world.options.members else None
        kinds = INVARIANTS + RAFT_INVARIANTS + (KEPT_INVARIANTS if world.options.cleanup else ())
        kinds += GROUP_INVARIANTS if self.group is not None else ()
        self._all = [kind(self) for kind in kinds]
        for moment in _MOMENTS:
            base = getattr(Invariant, moment)
            takers = [getattr(one, moment) for one in self._all if getattr(type(one), moment) is not base]
            setattr(self, f"_{moment}", takers)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> list[Any]: ...

    # ---- what machines report

    def on_progress(self, machine: "Machine", partition: Any) -> None:
        for look in self._on_progress:
            look(machine, partition)

    def extended(self, machine: "Machine", truth: Truth, batch: LogBatch) -> None:
        for look in self._on_extended:
            look(machine, truth, batch)

    def on_commit(self, machine: "Machine", outcomes: Sequence[Outcome]) -> None:
        for look in self._on_commit:
            look(machine, outcomes)

    def on_view(self, machine: "Machine", old: MetadataImage, new: MetadataImage) -> None:
        for look in self._on_view:
            look(machine, old, new)

    def on_applied(self, machine: "Machine", index: int, command: bytes, image: MetadataImage) -> None:
        for look in self._on_applied:
            look(machine, index, command, image)
        self._newer(image)

    def on_restored(self, machine: "Machine", index: int, image: MetadataImage) -> None:
        for look in self._on_restored:
            look(machine, index, image)
        self._newer(image)

    def _newer(self, image: MetadataImage) -> None:
        if image.version <= self.image.version:
            return
        old, self.image = self.image, image
        for node_id in sorted(self.unsafe_disks):
            if image.nodes[node_id].start_id in self.world.machines[node_id].starts_since_loss:
                self.unsafe_disks.discard(node_id)
        for look in self._on_image:
            look(old, image)

    def on_round(self, machine: "Machine", raft: Any) -> None:
        for look in self._on_round:
            look(machine, raft)

    def on_send(self, machine: "Machine", peer: int, message: dict[str, Any]) -> None:
        for look in self._on_send:
            look(machine, peer, message)

    def on_lost(self, machine: "Machine") -> None:
        for look in self._on_lost:
            look(machine)

    def at_end(self) -> None:
        for look in self._at_end:
            look()
            if self.world.scheduler.failure is not None:
                raise self.world.scheduler.failure

    def count(self, fact: str) -> None:
        """Note that something happened, for the statistics."""
        self.facts[fact] = self.facts.get(fact, 0) + 1

    # ---- questions

    def truth(self, key: PartitionKey) -> Truth:
        truth = self.truths.get(key)
        if truth is None:
            truth = self.truths[key] = Truth(key, keeps_records=self.may_be_compacted(key))
        return truth

    def may_be_compacted(self, key: PartitionKey) -> bool:
        """Whether records of the partition may be dropped: in worlds with cleanup, and of internal topics always."""
        topic = self.image.topics.get(key.topic_id)
        return self.world.options.cleanup or (topic is not None and topic.internal)

    def partition(self, key: PartitionKey) -> PartitionInfo | None:
        """As of the newest image."""
        return self.image.partition(key.topic_id, key.partition)

    def partitions(self, *, internal: bool = True) -> Iterable[PartitionKey]:
        """All that the newest image has, or without those of internal topics."""
        for topic_id, topic in self.image.topics.items():
            for info in topic.partitions if internal or not topic.internal else ():
                yield PartitionKey(topic_id, info.partition)

    def may_lose_disk(self, machine: "Machine") -> bool:
        """Whether the guarantee covers the loss of this disk now (DESIGN section 14, ADR 7)."""
        if self.unsafe_disks or self.world.options.single_copies or machine.node_id not in self.image.nodes:
            return False
        for info in (info for topic in self.image.topics.values() for info in topic.partitions):
            members = {*info.isr, *info.elr}
            if machine.node_id in info.replicas and not members - {machine.node_id}:
                return False
        return all(other is machine or other.may_vote for other in self.world.machines.values())

    def may_end(self, machine: "Machine") -> bool:
        """Whether the guarantee covers that this process ends now, and not in good order."""
        return self.world.options.durability == "commit" or not machine.is_up or self.may_lose_disk(machine)

    def converged(self) -> str | None:
        """What is still missing; None: every node serves, and every replica is in sync and has the same."""
        world, image = self.world, self.image
        for machine in world.machines.values():
            broker = machine.broker
            if broker is None:
                return f"node {machine.node_id} is down"
            if broker.image.version != image.version:
                return f"node {machine.node_id} has metadata {broker.image.version} of {image.version}"
            node = image.nodes[machine.node_id]
            if node.voter and not node.may_vote:
                return f"voter {machine.node_id} is not admitted"
            if not machine.is_serving:
                return f"node {machine.node_id} does not serve"
        for key in self.partitions():
            info = self.partition(key)
            assert info is not None
            if info.leader not in info.isr or set(info.isr) != set(info.replicas) or info.target:
                return f"partition {key}: {info}"
            ends = set()
            for node_id in info.replicas:
                broker = world.machines[node_id].broker
                partition = None if broker is None else broker.replicas.find(key)
                if partition is None:
                    return f"partition {key} is not on node {node_id}"
                ends.add((partition.high_watermark, partition.log_end_offset, partition.log_start_offset))
            if len(ends) != 1 or any(mark != end for mark, end, _ in ends):
                return f"partition {key}: ends {sorted(ends)}"
        return None
