"""All replicas of this node: made and ended by the view's changes, fed with outcomes and time, joined to the streams.

Owns the partitions' lifecycles. Invariants: a replica acts only on a view that includes this node's present
registration (rule 26); data is deleted only on the applied removal of its topic's id, and what is not known is kept and
listed as stray (rule 28). Loop thread only.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from penstock.node.partition import Partition
from penstock.node.replication.events import IsrProposal, PartitionView, SessionKey
from penstock.node.replication.fetcher import Fetcher
from penstock.node.replication.proposals import Alter, Proposals
from penstock.node.replication.shell import ReplicaShell
from penstock.node.replication.source import Source
from penstock.node.replication.tail import TailBudget
from penstock.raft.image import MetadataImage, PartitionInfo, TopicInfo
from penstock.storage import (
    Append,
    CreateLog,
    DamagedStoreError,
    DropLog,
    ExpireProducers,
    ForgetStarts,
    Log,
    LogBatch,
    Outcome,
    PartitionKey,
    RecordStart,
    Write,
)
from penstock.v1 import common_pb2

LOG = logging.getLogger(__name__)
COLD_READS = 4
"""Reads of the store under way at once, of followers and consumers that are behind."""
TICK_MS = 200
"""How often `tick` is wanted."""
CHECKPOINT_TICKS = 25
"""In so many ticks each partition's high watermark is written once, if it moved: not all at a time, and not often, for
the rows of a thousand partitions cost as much as their appends. A new leader learns the true one from its followers."""
PROBES = 3
PROBE_PAUSE_MS = 100


class Store(Protocol):
    """What is asked of penstock.storage.Store."""

    def log(self, key: PartitionKey) -> Log | None:
        """Return an existing log."""
        ...

    def logs(self) -> list[Log]:
        """All logs."""
        ...


@dataclass(frozen=True, slots=True)
class ReplicationOptions:
    """Named limits."""

    replica_lag_max_ms: int = 3_000
    replication_credit_bytes: int = 8 * 1024 * 1024
    tail_cache_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seams:
    """The world outside."""

    now_ms: Callable[[], int]
    """Monotonic."""
    rng: random.Random
    dial: Callable[[int], grpc.aio.Channel | None]
    """A new channel to a node's peer address; the caller closes it. None while the address is not known."""
    refuses: Callable[[int], Awaitable[bool]]
    """Whether a node's peer address refuses a connection right now."""
    alter: Alter
    connection_refused: Callable[[int], None]
    """Told when a leader's address refuses connections; may come often."""
    fatal: Callable[[BaseException], None]
    """The node must end."""
    store_is_full: Callable[[], bool] = lambda: False
    """Whether appends are refused anyway."""


class Replicas:
    """The broker composes it with store, writer, view and session; the API finds partitions in it."""

    def __init__(
        self,
        identity: tuple[str, int],
        store: Store,
        submit: Callable[[Write], None],
        options: ReplicationOptions,
        seams: Seams,
    ) -> None:
        self.cluster_id, self.node_id = identity
        self.node_epoch: int | None = None
        """The registration that the replicas act under."""
        self.lag_max_ms = options.replica_lag_max_ms
        self.credit_bytes = options.replication_credit_bytes
        self.tail_budget = TailBudget(options.tail_cache_bytes)
        self.submit = submit
        self.source = Source(self)
        self._store = store
        self._seams = seams
        self._fetcher = Fetcher(self, seams.rng)
        self._proposals = Proposals(seams.alter, seams.fatal)
        self._ticks = 0
        self._partitions: dict[PartitionKey, Partition] = {}
        self._image: MetadataImage | None = None
        self._acted: dict[bytes, TopicInfo] = {}
        self._cold_reads = asyncio.Semaphore(COLD_READS)
        self._probes: dict[int, asyncio.Task[None]] = {}

    # ---- for the broker and the API

    def find(self, key: PartitionKey) -> Partition | None:
        """Return the replica of this node, or None."""
        return self._partitions.get(key)

    def partitions(self) -> Iterable[Partition]:
        """All replicas of this node."""
        return self._partitions.values()

    def logs(self) -> list[Log]:
        """All logs of the store, those of partitions that are not placed here included."""
        return self._store.logs()

    def strays(self) -> list[PartitionKey]:
        """Logs of partitions that the metadata does not place here: kept, for an operator to judge (rule 28)."""
        return [log.key for log in self._store.logs() if log.key not in self._partitions]

    def handler(self) -> grpc.GenericRpcHandler:
        """The replication service, for the peer listener."""
        return self.source.handler()

    async def close(self) -> None:
        """End all roles and streams; the writer is stopped after this."""
        for partition in self._partitions.values():
            partition.shell.stop()
        for task in self._probes.values():
            task.cancel()
        self.source.close()
        await self._proposals.close()
        await self._fetcher.close()

    # ---- metadata

    def apply(self, image: MetadataImage, node_epoch: int | None) -> None:
        """Act on newer metadata, or on a newer registration. `node_epoch`: the present one, None before the first."""
        former, self._image = self._image, image
        if former is not None:
            self._drop_removed(former, image)
        node = image.nodes.get(self.node_id)
        if node_epoch is None or node is None or node.node_epoch != node_epoch:
            return  # rule 26: the view must include the command that gave this node its node_epoch
        if node_epoch != self.node_epoch:
            self.node_epoch = node_epoch
            self._acted.clear()
            self._fetcher.restart()  # rule 7
        for topic_id, topic in image.topics.items():
            if self._acted.get(topic_id) is not topic:
                self._acted[topic_id] = topic
                self._act_on(topic, node_epoch)

    def _act_on(self, topic: TopicInfo, node_epoch: int) -> None:
        for info in topic.partitions:
            key = PartitionKey(topic.topic_id, info.partition)
            partition = self._partitions.get(key)
            if self.node_id not in info.replicas:
                if partition is not None:
                    self._release(partition)
                    LOG.info("this node is no replica of %s any more; its log is kept", key)
                continue
            if partition is None:
                partition = self._create(key)
                partition.topic_name = topic.name
            partition.shell.on_view(_view_of(topic, info), node_epoch)

    def _create(self, key: PartitionKey) -> Partition:
        partition = self._partitions[key] = Partition(key, self)
        log = self._store.log(key)
        if log is None:
            self.submit(CreateLog(key))
        else:
            partition.shell.attach(log)
        return partition

    def _release(self, partition: Partition) -> None:
        del self._partitions[partition.key]
        self._fetcher.unfollow(partition.shell)
        partition.shell.stop()

    def _drop_removed(self, former: MetadataImage, image: MetadataImage) -> None:
        """Rule 28: only what was there and is removed, strays included; the ids never come back."""
        removed = former.topics.keys() - image.topics.keys()
        if not removed:
            return
        partitions = [partition for key, partition in self._partitions.items() if key.topic_id in removed]
        strays = [key for key in self.strays() if key.topic_id in removed]
        for partition in partitions:
            self._release(partition)
        for key in [*(partition.key for partition in partitions), *strays]:
            self.submit(DropLog(key))
            LOG.info("log of %s is deleted with its topic", key)
        for topic_id in removed:
            self._acted.pop(topic_id, None)

    # ---- outcomes and time

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """What a group commit brought; once a commit, on the loop."""
        touched: dict[PartitionKey, Partition] = {}
        for outcome in outcomes:
            key = _key_of(outcome.write)
            partition = None if key is None else self._partitions.get(key)
            if key is None or partition is None:
                continue
            if isinstance(outcome.write, CreateLog):
                self._created(partition, outcome)
                continue
            touched[key] = partition
            partition.shell.on_outcome(outcome)
        for partition in touched.values():
            partition.shell.settle()

    def _created(self, partition: Partition, outcome: Outcome) -> None:
        if outcome.log is not None and outcome.error is None:
            if partition.shell.log is None:
                partition.shell.attach(outcome.log)
                self._act_again(partition)
            return
        LOG.warning("log of %s cannot be created: %s", partition.key, outcome.error)

    def _act_again(self, partition: Partition) -> None:
        image, node_epoch = self._image, self.node_epoch
        if image is None or node_epoch is None:
            return
        topic = self._acted.get(partition.key.topic_id)
        if topic is not None and partition.key.partition < len(topic.partitions):
            partition.shell.on_view(_view_of(topic, topic.partitions[partition.key.partition]), node_epoch)

    def tick(self, now_ms: int) -> None:
        """Every TICK_MS: lag, deadlines, checkpoints, and what has to be tried again."""
        self._ticks += 1
        for place, partition in enumerate(list(self._partitions.values())):
            if partition.shell.log is None:
                self.submit(CreateLog(partition.key))
            partition.shell.tick(now_ms, checkpoint=(place + self._ticks) % CHECKPOINT_TICKS == 0)
            partition.expire(now_ms)

    # ---- what replicas and streams need

    def now_ms(self) -> int:
        """Monotonic time."""
        return self._seams.now_ms()

    def replica(self, key: PartitionKey) -> ReplicaShell | None:
        """Return the replica of a partition."""
        partition = self._partitions.get(key)
        return None if partition is None else partition.shell

    def store_is_full(self) -> bool:
        """Whether this node's store takes no appends."""
        return self._seams.store_is_full()

    def durability_of(self, nodes: frozenset[int]) -> int:
        """The weakest v1.Durability among nodes."""
        known = self._image.nodes if self._image is not None else {}
        return min((known[node].durability for node in nodes if node in known), default=common_pb2.DURABILITY_OS)

    def propose(self, replica: ReplicaShell, proposal: IsrProposal) -> None:
        """Send an ISR change to the controller until its fate is known."""
        self._proposals.propose(replica, proposal)

    def resign(self, replica: ReplicaShell, leader_epoch: int) -> None:
        """Ask the controller for another leadership."""
        self._proposals.resign(replica, leader_epoch)

    def follow(self, replica: ReplicaShell, leader: int) -> None:
        """Give the replica a place in the stream to `leader`."""
        self._fetcher.follow(replica, leader)

    def leave(self, replica: ReplicaShell, session: SessionKey, *, retry: bool) -> None:
        """A session is over."""
        self._fetcher.leave(replica, session, retry=retry)

    def dial(self, node_id: int) -> grpc.aio.Channel | None:
        """Open a new channel to a node."""
        return self._seams.dial(node_id)

    def connection_refused(self, node_id: int) -> None:
        """A leader's address refused the connection."""
        self._seams.connection_refused(node_id)

    def fatal(self, error: BaseException) -> None:
        """The node must end."""
        self._seams.fatal(error)

    async def read_cold(self, log: Log, start: int, end: int, max_bytes: int) -> list[LogBatch]:
        """Read a log off the loop. A damaged store ends the node."""
        async with self._cold_reads:
            try:
                return await asyncio.to_thread(log.read, start, end, max_bytes)
            except DamagedStoreError as error:
                self._seams.fatal(error)
                raise

    # ---- followers that went away

    def follower_lost(self, node_id: int) -> None:
        """A follower's stream ended. Is its address closed, then it leaves the ISRs at once (rule 29)."""
        probe = self._probes.get(node_id)
        if probe is None or probe.done():
            self._probes[node_id] = asyncio.create_task(self._probe(node_id))

    def follower_back(self, node_id: int) -> None:
        """Its stream begins: a refusal that is still under way is of its former process, and would stay for ever."""
        probe = self._probes.pop(node_id, None)
        if probe is not None:
            probe.cancel()

    async def _probe(self, node_id: int) -> None:
        for _ in range(PROBES):
            if await self._seams.refuses(node_id):
                for partition in list(self._partitions.values()):
                    partition.shell.on_unreachable(node_id)
                return
            await asyncio.sleep(PROBE_PAUSE_MS / 1000)


def _view_of(topic: TopicInfo, info: PartitionInfo) -> PartitionView:
    return PartitionView(
        info.leader,
        info.leader_epoch,
        info.partition_epoch,
        info.replicas,
        frozenset(info.isr),
        info.leader_node_epoch,
        topic.config.min_insync_replicas,
    )


def _key_of(write: Write) -> PartitionKey | None:
    if isinstance(write, Append):  # nearly all
        return write.log.key
    if isinstance(write, RecordStart | ForgetStarts | ExpireProducers):
        return None
    return write.key if isinstance(write, CreateLog | DropLog) else write.log.key
