"""One machine of a world: its disks, and at most one process, which is the real Broker over a simulated Platform."""

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from penstock.node.api.status import StatusInterceptor
from penstock.node.broker import Broker
from penstock.node.clean import CleanMark
from penstock.node.cleanup.compactor import Planned
from penstock.node.config import Endpoint, Limits, NodeConfig
from penstock.node.partition import Partition
from penstock.node.platform import Platform
from penstock.raft.cluster import RaftConfig, RaftNode, StateMachine
from penstock.raft.image import MetadataImage
from penstock.raft.journal import RaftJournal
from penstock.raft.metadata import MetadataMachine
from penstock.storage import (
    CommitFailedError,
    Committer,
    DamagedStoreError,
    Log,
    LogBatch,
    Outcome,
    PartitionKey,
    Store,
    Write,
)
from penstock.storage.compaction_run import Task
from tests.simulation.cluster import cleaning
from tests.simulation.cluster.consensus import SimRaft, host_of
from tests.simulation.consensus.disk import MemoryDisk as JournalDisk
from tests.simulation.consensus.disk import PowerLoss as JournalPowerLoss
from tests.simulation.kernel.loop import SimLoop
from tests.simulation.kernel.rpc import SimChannel, SimServer, refuses
from tests.simulation.store.disk import Disk, PowerLoss
from tests.simulation.store.lmdb_disk import LmdbDisk
from tests.simulation.store.memory_disk import MemoryDisk

if TYPE_CHECKING:
    from tests.simulation.cluster.world import World

CLIENT_PORT = 9092
PEER_PORT = 9093
LOG = logging.getLogger(__name__)
T = TypeVar("T")


class ProcessEnded(BaseException):
    """Raised where a real process would have ended, so that nothing of it goes on."""


class SimWriter:
    """The writer's thread: takes what is queued, commits it a little later, tells the outcomes on the loop."""

    def __init__(
        self,
        machine: "Machine",
        committer: Committer,
        on_commit: Callable[[Sequence[Outcome]], None],
        on_fatal: Callable[[BaseException], None],
        sync_interval_ms: int,
    ) -> None:
        self._machine = machine
        self._process = machine.process
        self._committer = committer
        self._on_commit = on_commit
        self._on_fatal = on_fatal
        self._sync_interval_s = sync_interval_ms / 1000
        self._queue: list[Write] = []
        self._taken: list[Write] = []
        """Of the commit that is under way."""
        self._busy = False
        self._stopped = False
        self._failed = False

    def start(self) -> None:
        if self._sync_interval_s:
            self._machine.world.scheduler.after(self._sync_interval_s, self._sync)

    def submit(self, write: Write) -> None:
        if self._stopped:
            return
        self._queue.append(write)
        if not self._busy:
            self._busy = True
            self._after(self._machine.world.commit_gap(), self._take)

    def stop(self) -> bool:
        """Write what is queued, at once: the loop waits for the thread."""
        self._stopped = True
        self._taken, self._queue = self._taken + self._queue, []
        if self._is_alive:
            self._commit()
        if self._is_alive and not self._failed:
            self._perform(self._committer.sync)
        return self._is_alive and not self._failed

    @property
    def _is_alive(self) -> bool:
        return self._machine.process is self._process and self._process is not None

    def _after(self, delay: float, function: Callable[..., None], *arguments: Any) -> None:
        self._machine.world.scheduler.after(delay, self._run, function, arguments)

    def _run(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self._is_alive or self._process is None:
            return
        world, resumes = self._machine.world, self._process.loop.paused_until
        if world.scheduler.now < resumes:  # a stopped process's threads stand still too
            world.scheduler.at(resumes, self._run, function, arguments)
        else:
            function(*arguments)

    def _take(self) -> None:
        self._taken, self._queue = self._queue, []
        self._after(self._machine.commit_s(), self._commit)

    def _commit(self) -> None:
        process = self._process
        if process is None or not self._taken:
            return
        if self._machine.hangs:
            self._after(0.1, self._commit)
            return
        writes, self._taken = self._taken, []
        outcomes = self._perform(lambda: self._committer.commit(writes))
        if outcomes is None:
            return
        self._committer.sweep()
        self._machine.world.checks.on_commit(self._machine, outcomes)
        process.loop.call_soon(self._on_commit, outcomes)
        if self._queue:
            self._after(self._machine.world.commit_gap(), self._take)
        else:
            self._busy = False

    def _perform(self, step: Callable[[], T]) -> T | None:
        """Take a step of the committer's; None where it fails."""
        try:
            return step()
        except PowerLoss:
            self._failed = True
            self._machine.world.lose(self._machine, silently=True)
        except (CommitFailedError, DamagedStoreError) as error:
            self._failed = True
            if self._process is not None:
                self._process.loop.call_soon(self._on_fatal, error)
        return None

    def _sync(self) -> None:
        if self._is_alive and not self._stopped:
            self._run(self._perform, (self._committer.sync,))
            self._machine.world.scheduler.after(self._sync_interval_s, self._sync)


class SimMark(CleanMark):
    """The mark of an orderly stop, on the simulated disk."""

    def __init__(self, machine: "Machine", durability: str, start_ids: tuple[bytes, ...]) -> None:
        self._machine = machine
        self._always = durability == "commit"
        marked, machine.clean_mark = machine.clean_mark, b""
        self.all_clean = self._always or not start_ids or marked == start_ids[-1]

    def record(self, start_id: bytes) -> None:
        if not self._always and self.all_clean:
            self._machine.clean_mark = start_id


class SimPlatform(Platform):
    """What the machine gives to the node that runs on it."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        seed = machine.world.process_rng.getrandbits(64)
        self.rng = random.Random(seed)
        self.secret_rng = random.Random(seed + 1)

    def unique_bytes(self) -> bytes:
        """The start id: nothing else is drawn so."""
        start_id = self.secret_rng.getrandbits(128).to_bytes(16, "big")
        self._machine.starts.append(start_id)
        self._machine.starts_since_loss.append(start_id)
        return start_id

    def unique_name(self) -> str:
        return f"{self.secret_rng.getrandbits(128):032x}"

    def open_store(self, config: NodeConfig) -> tuple[Store, Committer]:
        store, committer = self._machine.disk.open()
        return store, committer

    def clean_mark(self, config: NodeConfig, durability: str, start_ids: tuple[bytes, ...]) -> CleanMark:
        return SimMark(self._machine, durability, start_ids)

    def writer(
        self,
        committer: Committer,
        on_commit: Callable[[Sequence[Outcome]], None],
        on_fatal: Callable[[BaseException], None],
        sync_interval_ms: int,
    ) -> SimWriter:
        return SimWriter(self._machine, committer, on_commit, on_fatal, sync_interval_ms)

    def compaction(self, config: NodeConfig, log: Log, task: Task) -> AsyncIterator[Planned]:
        return cleaning.planned(log, task, self.rng)

    def consensus(self, config: RaftConfig, machine: StateMachine) -> RaftNode:
        config = dataclasses.replace(config, seed=self.rng.getrandbits(32))
        raft = SimRaft(config, machine, self._machine.world.network, self._machine.open_journal)
        raft.settings |= {"snapshot_entries": self._machine.world.options.snapshot_entries, "snapshot_tail": 5}
        raft.has_real_transport = self._machine.world.options.real_transport
        return self._machine.watch_raft(raft)

    def server(self) -> grpc.aio.Server:
        server = SimServer(self._machine.world.network, self._machine.host, interceptors=(StatusInterceptor(),))
        return cast("grpc.aio.Server", server)

    def channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        return cast("grpc.aio.Channel", SimChannel(self._machine.world.network, self._machine.host, str(endpoint)))

    async def refuses(self, endpoint: Endpoint | None) -> bool:
        if endpoint is None:
            return False
        return await refuses(self._machine.world.network, self._machine.host, endpoint.host, endpoint.port, 0.5)

    def catch_signals(self, stop: Callable[[], None]) -> None:
        """The world calls Broker.stop."""

    def end_process(self) -> None:
        self._machine.world.lose(self._machine, silently=False)
        raise ProcessEnded


class SimBroker(Broker):
    """The real composition; the world watches it."""

    def __init__(self, config: NodeConfig, platform: Platform, machine: "Machine") -> None:
        super().__init__(config, platform)
        self._machine = machine
        self.is_composed = False

    def _compose(self, stack: contextlib.AsyncExitStack) -> None:
        super()._compose(stack)
        machine, checks, create = self._machine, self._machine.world.checks, self._replicas._create

        def watched(key: Any) -> Partition:
            partition = create(key)
            partition.on_progress(lambda: checks.on_progress(machine, partition))
            return partition

        self._replicas._create = watched  # type: ignore[method-assign]
        self.is_composed = True
        self._view.subscribe(lambda old, new: checks.on_view(machine, old, new))

    # What a world may look at.

    @property
    def replicas(self) -> Any:
        return self._replicas

    @property
    def image(self) -> MetadataImage:
        return self._view.image

    @property
    def raft(self) -> SimRaft:
        raft: Any = self._raft
        return raft  # type: ignore[no-any-return]

    @property
    def is_clean(self) -> bool:
        """Whether an orderly stop would leave its mark."""
        return self._clean.all_clean

    @property
    def session(self) -> Any:
        return self._session

    @property
    def controller_client(self) -> Any:
        return self._client

    @property
    def store(self) -> Any:
        return self._store


class Process:
    """One run of a node."""

    def __init__(self, machine: "Machine", generation: int) -> None:
        world = machine.world
        self.generation = generation
        rng = world.lag_rng
        self.loop = SimLoop(world.scheduler, machine.host, lambda: 2e-4 * rng.random(), offset=machine.clock_offset)
        self.broker: SimBroker | None = None

    async def run(self, config: NodeConfig, machine: "Machine") -> None:
        self.broker = SimBroker(config, SimPlatform(machine), machine)
        await self.broker.run()


class Held:
    """What a disk holds of a partition, whether or not a process runs."""

    def __init__(self, row: Any) -> None:
        self._row = row
        self.state = row.state
        self.log_start_offset: int = row.state.log_start_offset
        self.log_end_offset: int = row.state.log_end_offset

    def between(self, start: int, end: int) -> list[LogBatch]:
        """Batches from the one that holds `start`, or the first one, up to `end`."""
        row = self._row
        found: list[LogBatch] = row.batches[max(row.first, row.place(start + 1) - 1) : row.stop]
        return [batch for batch in found if batch.base_offset < end]

    @property
    def batches(self) -> list[LogBatch]:
        """All of them."""
        found: list[LogBatch] = self._row.batches[self._row.first : self._row.stop]
        return found

    def producer(self, producer_id: int) -> Any:
        """The producer's state."""
        return self._row.producers.get(producer_id)


class Machine:
    """A host with its disks. They stay, processes come and go."""

    def __init__(self, world: "World", node_id: int, *, founding: bool) -> None:
        self.world = world
        self.node_id = node_id
        self.host = host_of(node_id)
        self.clock_offset = 1_000.0 * node_id
        self.clock_skew = -self.clock_offset if world.options.cleanup else 0.0
        """What puts its wall clock right: retention by time wants that."""
        world.time.skew_s[self.host] = self.clock_skew
        self.clean_mark = b""
        self.slow_disk_until = 0.0
        self.hangs = False
        """No commit of the store comes to its end."""
        self.is_out = False
        """Whatever happens, it is not started."""
        self.process: Process | None = None
        self.generations = 0
        self.journal_disk = JournalDisk(node_id, world.unique(), founding=founding)
        self.disk = self._store_disk()
        self.store_id = self.disk.format(world.cluster_id, node_id, world.unique).store_id
        self.starts: list[bytes] = []
        """All start ids that were drawn here."""
        self.starts_since_loss: list[bytes] = []
        self._losses = 0
        self._copy: tuple[Any, tuple[bytes, ...], bytes] | None = None

    # ---- disks

    def _store_disk(self) -> Disk[Any]:
        folder, durability = self.world.folder, self.world.options.durability
        return MemoryDisk(durability) if folder is None else LmdbDisk(folder / self.host, durability)

    @property
    def disk_id(self) -> tuple[int, int]:
        """Of the disk as it goes forward: another one after it was lost or put back to an old copy."""
        return self.node_id, self._losses

    @property
    def may_vote(self) -> bool:
        """Whether its journal votes, where it should."""
        return self.node_id > self.world.options.voters or self.journal_disk.state.may_vote

    def wipe(self, *, journal: bool) -> None:
        """The disk is replaced; it is formatted again, as an operator would."""
        self.disk.wipe()
        self.store_id = self.disk.format(self.world.cluster_id, self.node_id, self.world.unique).store_id
        self._lost()
        if journal:
            self.journal_disk = JournalDisk(self.node_id, self.world.unique(), founding=False)

    def _lost(self) -> None:
        self.starts_since_loss = []
        self._losses += 1
        self.clean_mark = b""
        self._copy = None
        self.world.checks.unsafe_disks.add(self.node_id)

    def ended(self) -> None:
        """The process is gone: where commits are not durable and it left no mark, its disk counts as lost (rule 9)."""
        if self.world.options.durability != "commit" and not self.clean_mark:
            self._lost()

    def take_copy(self) -> None:
        """Copy the store's disk, for `restore`."""
        self._copy = (self.disk.copy(), tuple(self.starts), self.clean_mark)

    @property
    def has_old_copy(self) -> bool:
        """Whether there is a copy from before the last registration: a later one cannot be told (rule 27)."""
        node = self.world.checks.image.nodes.get(self.node_id)
        return self._copy is not None and node is not None and node.start_id not in self._copy[1]

    def restore(self) -> None:
        """Put the copy back."""
        if self._copy is not None:
            copy, _, mark = self._copy
            self.disk.restore(copy)
            self._lost()
            self.clean_mark = mark

    def durable(self, key: PartitionKey) -> "Held | None":
        """What the disk holds of a partition."""
        row = self.disk.row(key)
        return None if row is None else Held(row)

    # ---- the process

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def broker(self) -> SimBroker | None:
        """The node, once it is composed."""
        broker = None if self.process is None else self.process.broker
        return broker if broker is not None and broker.is_composed else None

    @property
    def is_serving(self) -> bool:
        """Whether the node has a session."""
        broker = self.broker
        if self.process is None or broker is None:
            return False
        return bool(self.process.loop.run(lambda: broker.session.serving))

    def start(self) -> None:
        self.generations += 1
        process = self.process = Process(self, self.generations)
        task = process.loop.run(process.loop.create_task, process.run(self.config(), self))
        task.add_done_callback(lambda done: self._ended(process, done))

    def _ended(self, process: Process, task: "asyncio.Task[None]") -> None:
        if self.process is not process:
            return
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not isinstance(error, PowerLoss | CommitFailedError):
            self.world.scheduler.fail(error)
        self.world.lose(self, silently=isinstance(error, PowerLoss))

    def config(self) -> NodeConfig:
        options, client, peer = self.world.options, Endpoint(self.host, CLIENT_PORT), Endpoint(self.host, PEER_PORT)
        limits = Limits(
            session_timeout_ms=options.session_timeout_ms,
            replica_lag_max_ms=options.replica_lag_max_ms,
            election_timeout_min_ms=450,
            election_timeout_max_ms=900,
            preferred_leader_delay_ms=2_000,
            produce_timeout_max_ms=4_000,
            compaction_interval_ms=options.compaction_interval_ms,
            compaction_key_bytes=options.compaction_key_bytes,
            offsets_topic_partitions=options.offsets_partitions,
            group_session_timeout_min_ms=300,
        )
        return NodeConfig(
            self.node_id, Path("/simulated") / self.host, client, peer, client, peer, self.world.voters,
            durability=options.durability, limits=limits,
        )  # fmt: skip

    def commit_s(self) -> float:
        """Draw how long a commit of the store takes."""
        world = self.world
        draw = world.disk_rng.random()
        return 0.0003 + (0.4 if world.scheduler.now < self.slow_disk_until else world.options.commit_s) * draw

    # ---- consensus

    def open_journal(self) -> RaftJournal:
        return self.world.mutations.journal(self.journal_disk)

    def watch_raft(self, raft: SimRaft) -> SimRaft:
        world, machine = self.world, raft.machine
        assert isinstance(machine, MetadataMachine)
        apply, restore = machine.apply, machine.restore

        def applied(index: int, command: bytes) -> bytes:
            result = apply(index, command)
            world.checks.on_applied(self, index, command, machine.image)
            return result

        def restored(index: int, data: bytes) -> None:
            restore(index, data)
            world.checks.on_restored(self, index, machine.image)

        machine.apply, machine.restore = applied, restored  # type: ignore[method-assign]
        raft.after_round = lambda node: world.checks.on_round(self, node)
        raft.on_send = lambda node, peer, message: world.checks.on_send(self, peer, message)
        raft.lost_power = (JournalPowerLoss, lambda: world.lose(self, silently=True))
        return raft
