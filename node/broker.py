"""One node, composed: store, writer, consensus, session, controller, replicas, and the two servers.

Owns the order in which they start and stop, and nothing else. Start: what is durable first, then consensus, then the
listeners' services; nothing is served before the session says so. Stop: leaderships move away, then the listeners
close, then the writer drains. A failed disk ends the process at once: what is durable is then unknown.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence

import grpc

from penstock.internal.v1 import controller_pb2_grpc, forward_pb2_grpc, metadata_pb2, raft_pb2_grpc
from penstock.node.api.cluster_service import ClusterService
from penstock.node.api.consumer_service import ConsumerService
from penstock.node.api.locate import Locator
from penstock.node.api.producer_service import ProducerService
from penstock.node.api.publish import ForwardService, Publisher
from penstock.node.api.reader import MetadataReader
from penstock.node.api.server import Health, ListenError, listen
from penstock.node.api.topic_service import TopicService
from penstock.node.cleanup.cleaner import Cleaner, WallClock
from penstock.node.cleanup.compacting import CompactionLimits, Compactor
from penstock.node.clock import monotonic_ms, wall_ms
from penstock.node.clock_trust import ClockTrust
from penstock.node.config import Endpoint, NodeConfig
from penstock.node.controller import Controller, ControllerClient, ControllerService
from penstock.node.groups import Groups, Parts
from penstock.node.peers import PeerChannels
from penstock.node.platform import Platform
from penstock.node.producer_ids import ProducerIds
from penstock.node.replication.replicas import TICK_MS, Replicas, ReplicationOptions, Seams
from penstock.node.session import Session
from penstock.node.session.registration import registration
from penstock.node.store_compaction import StoreCompaction
from penstock.node.usage import STORE_STATES, StoreUsage
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.cluster import RaftConfig
from penstock.raft.image import MetadataImage
from penstock.raft.metadata import MetadataMachine
from penstock.raft.view import View
from penstock.storage import ExpireProducers, ForgetStarts, Outcome, RecordStart
from penstock.storage.room import RoomState
from penstock.v1 import cluster_service_pb2_grpc, topic_service_pb2_grpc

_log = logging.getLogger(__name__)

EXPIRY_INTERVAL_S = 1.0
CLIENT_STOP_GRACE_S = 1.0
LEAVE_TIMEOUT_S = 1.0
ALTER_TIMEOUT_S = 5.0
REPORT_TIMEOUT_S = 1.0


class StartError(Exception):
    """The node cannot start; the message says why."""


class Broker:
    """Built from a configuration, run once."""

    def __init__(self, config: NodeConfig, platform: Platform | None = None) -> None:
        self.config = config
        self._platform = platform or Platform()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._has_served = False  # since the start: its metadata was current then
        self._to_compact = False
        self.clock_trust = ClockTrust()
        self._told_state = RoomState.OK

    async def run(self) -> bool:
        """Start, serve until SIGTERM, SIGINT or `stop`, and stop. Raises StartError, StorageError, JournalError.

        Whether its store is to be compacted and the node to run anew: then it stopped because of that.
        """
        self._platform.catch_signals(self.stop)
        async with contextlib.AsyncExitStack() as stack:
            self._open_store(stack)
            await self._start_metadata(stack)
            self._compose(stack)
            await self._start_servers(stack)
            await self._start_session(stack)
            _log.info(
                "node %d of cluster %s serves clients at %s",
                self.config.node_id,
                self._store.identity.cluster_id,
                self.config.client_listen,
            )
            await self._stopping.wait()
            await self._drain()
        return self._to_compact

    def stop(self) -> None:
        """Begin to stop, for good."""
        self._to_compact = False
        self._stopping.set()

    def _compact_store(self) -> None:
        self._to_compact = True
        self._stopping.set()

    def _fatal(self, error: BaseException) -> None:
        """End the process now, from any thread: after a failed disk nothing may be promised or served any more."""
        _log.critical("the node must end: %s", error, exc_info=error)
        self._platform.end_process()

    # ---- what is durable

    def _open_store(self, stack: contextlib.AsyncExitStack) -> None:
        config, platform = self.config, self._platform
        self._store, committer = platform.open_store(config)
        stack.callback(self._store.close)
        self._store.on_damage(self._fatal)
        self._clean = platform.clean_mark(config, self._store.durability, self._store.start_ids())
        self._start_id = platform.unique_bytes()
        committer.commit([RecordStart(self._start_id)])  # rule 27: durable before it is sent
        committer.sync()
        interval_ms = config.limits.fsync_interval_ms if config.durability == "interval" else 0
        self._writer = platform.writer(committer, self._on_outcomes, self._fatal, interval_ms)
        self._writer.start()
        stack.callback(self._close_writer)

    def _close_writer(self) -> None:
        if self._writer.stop():
            self._clean.record(self._start_id)

    def _on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._replicas.on_outcomes(outcomes)
        self._compactor.on_outcomes(outcomes)

    # ---- metadata

    async def _start_metadata(self, stack: contextlib.AsyncExitStack) -> None:
        config, limits = self.config, self.config.limits
        self._view = View()
        machine = MetadataMachine(self._view.publish)
        raft_config = RaftConfig(
            node_id=config.node_id,
            data_dir=config.data_dir,
            voters={node_id: str(endpoint) for node_id, endpoint in config.voters.items()},
            dial_overrides={node_id: str(endpoint) for node_id, endpoint in config.peer_override.items()},
            observer=config.node_id not in config.voters,
            election_timeout_s=(limits.election_timeout_min_ms / 1000, limits.election_timeout_max_ms / 1000),
        )
        self._raft = self._platform.consensus(raft_config, machine)
        self._raft.on_fatal.append(self._fatal)
        await self._raft.start()
        stack.push_async_callback(self._raft.stop)
        if self._raft.cluster_id != self._store.identity.cluster_id:
            text = f"{config.raft_dir} belongs to cluster {self._raft.cluster_id!r}, {config.store_dir} to "
            raise StartError(f"{text}{self._store.identity.cluster_id!r}; they are not of one node")

    def _peer_address(self, node_id: int) -> Endpoint | None:
        """Where a node's peer listener is dialled."""
        override = self.config.peer_override.get(node_id)
        if override is not None:
            return override
        node = self._view.image.nodes.get(node_id)
        if node is not None:
            return Endpoint(*node.peer_address)
        return self.config.voters.get(node_id)

    # ---- composition

    def _compose(self, stack: contextlib.AsyncExitStack) -> None:
        config, limits, platform = self.config, self.config.limits, self._platform
        self._peers = PeerChannels(self._peer_address, platform.channel)
        stack.push_async_callback(self._peers.close)
        self._controller = Controller(self._raft, self._view, limits, self._refuses, platform.secret_rng)
        self._client = ControllerClient(
            config.node_id,
            self._controller,
            lambda: self._raft.leader,
            self._peers.to,
            lambda: f"internal-{platform.unique_name()}",
        )
        self._raft.on_leadership.append(self._client.on_leadership)
        self._session = Session(self._registration, self._client, self._view, limits)
        self._session.store_state = lambda: STORE_STATES[self._store.room.state]
        self._replicas = Replicas(
            (self._store.identity.cluster_id, config.node_id),
            self._store,
            self._writer.submit,
            ReplicationOptions(limits.replica_lag_max_ms, limits.replication_credit_bytes, limits.tail_cache_bytes),
            Seams(
                now_ms=monotonic_ms,
                rng=platform.rng,
                dial=self._dial,
                refuses=self._refuses,
                alter=lambda request: self._client.alter_partitions(request, ALTER_TIMEOUT_S),
                connection_refused=self._report_unreachable,
                fatal=self._fatal,
                store_is_full=lambda: self._store.room.state is RoomState.FULL,
            ),
        )
        stack.push_async_callback(self._replicas.close)
        wall = WallClock(wall_ms, lambda: self.clock_trust.trusted)
        self._cleaner = Cleaner(self._replicas.partitions, lambda: self._view.image, wall)
        stack.push_async_callback(self._cleaner.close)
        self._compactor = Compactor(
            self._replicas.partitions,
            lambda: self._view.image,
            self._writer.submit,
            lambda log, task: platform.compaction(config, log, task),
            wall,
            CompactionLimits(limits.compaction_interval_ms, limits.compaction_key_bytes),
        )
        self._compactor.on_damage = self._fatal
        self._locator = Locator(config.node_id, self._view, self._replicas, lambda: self._session.serving)
        self._publisher = Publisher(config.node_id, self._locator, self._peers.to, limits)
        self._consumer = ConsumerService(self._locator, limits)
        parts = Parts(config, self._view, self._replicas, self._locator, self._consumer, self._client, wall)
        self._groups = Groups(parts, self._peers.to)
        stack.callback(self._groups.coordinators.close)

    def _report_unreachable(self, node_id: int) -> None:
        self._spawn(self._tell_unreachable(node_id))

    async def _tell_unreachable(self, node_id: int) -> None:
        """Tell the controller, which finds out by itself if this does not reach it."""
        with contextlib.suppress(PenstockError):
            await self._client.report_unreachable(node_id, REPORT_TIMEOUT_S)

    def _dial(self, node_id: int) -> grpc.aio.Channel | None:
        endpoint = self._peer_address(node_id)
        return None if endpoint is None else self._platform.channel(endpoint)

    async def _refuses(self, node_id: int) -> bool:
        return await self._platform.refuses(self._peer_address(node_id))

    def _registration(self) -> metadata_pb2.Registration:
        return registration(
            self.config,
            self._store.identity,
            self._store.start_ids(),
            self._raft,
            clean=self._clean.all_clean,
        )

    # ---- listeners

    async def _start_servers(self, stack: contextlib.AsyncExitStack) -> None:
        self._health = Health()
        peer, client = self._platform.server(), self._platform.server()
        raft_pb2_grpc.add_RaftServiceServicer_to_server(self._raft.servicer(), peer)
        controller_pb2_grpc.add_ControllerServiceServicer_to_server(ControllerService(self._controller), peer)
        forward_pb2_grpc.add_ForwardServiceServicer_to_server(ForwardService(self._publisher), peer)
        reader = MetadataReader(self._view, lambda: self._has_served)
        groups, passed_on = self._groups.handlers(reader)
        peer.add_generic_rpc_handlers((self._replicas.handler(), self._consumer.peer_handler(), passed_on))
        self._add_public_services(client, reader, groups)
        try:
            listen(peer, self.config.peer_listen, "listen.peer")
            listen(client, self.config.client_listen, "listen.client")
        except ListenError as error:
            raise StartError(str(error)) from error
        for server, grace_s in ((peer, None), (client, CLIENT_STOP_GRACE_S)):
            await server.start()
            stack.push_async_callback(server.stop, grace_s)
        stack.callback(self._cluster_service.close)

    def _check_staying(self) -> None:
        self._locator.check_serving()
        if self._stopping.is_set():
            raise PenstockError(Reason.NOT_SERVING, "this node is about to stop, or to compact its store")

    def _add_public_services(
        self, server: grpc.aio.Server, reader: MetadataReader, groups: grpc.GenericRpcHandler
    ) -> None:
        limits = self.config.limits
        compaction = StoreCompaction(
            self.config.node_id, self._store, lambda: self._view.image, self._check_staying, self._compact_store
        )
        self._cluster_service = ClusterService(
            self.config.node_id,
            reader,
            lambda: self._raft.leader,
            self._store_usage,
            compaction.request,
            self._replicas,
        )
        ids = ProducerIds(self._client.allocate_producer_ids)
        producer = ProducerService(self._locator, self._publisher, ids, limits)
        topic_service_pb2_grpc.add_TopicServiceServicer_to_server(
            TopicService(self._locator, reader, self._client), server
        )
        cluster_service_pb2_grpc.add_ClusterServiceServicer_to_server(self._cluster_service, server)
        server.add_generic_rpc_handlers((producer.handler(), self._consumer.handler(), groups))
        self._health.register(server)

    def _store_usage(self) -> StoreUsage:
        room = self._store.room
        return StoreUsage(*room.figures, state=STORE_STATES[room.state], retention_paused=not self.clock_trust.trusted)

    # ---- the session and what repeats

    async def _start_session(self, stack: contextlib.AsyncExitStack) -> None:
        self._view.subscribe(self._on_view)
        self._session.on_change.append(self._on_session)
        self._session.on_accepted.append(lambda start_id: self._writer.submit(ForgetStarts(start_id)))
        self._session.on_accepted.append(lambda _: self._clean.registered())
        self._session.on_accepted.append(lambda _: self._forget_told())
        self._session.on_cluster_time.append(self.clock_trust.heard)
        await self._health.report(serving=False)
        await self._controller.start()
        stack.push_async_callback(self._controller.stop)
        await self._session.start()
        stack.push_async_callback(self._session.stop)
        self._spawn(self._tick())
        self._spawn(self._expire())
        self._spawn(self._compactor.run())
        stack.push_async_callback(self._end_tasks)

    def _on_view(self, old: MetadataImage, image: MetadataImage) -> None:
        self._replicas.apply(image, self._session.node_epoch)
        self._groups.coordinators.on_image(old, image)  # after the replicas: who leads no more coordinates no more

    def _on_session(self, node_epoch: int | None, serving: bool) -> None:
        _log.info("%s, node_epoch %s", "serving" if serving else "not serving", node_epoch)
        self._replicas.apply(self._view.image, node_epoch)
        self._groups.coordinators.look()
        if serving and not self._has_served:
            self._has_served = True
            self._tell_strays()
        self._spawn(self._health.report(serving=serving and not self._stopping.is_set()))

    def _tell_strays(self) -> None:
        """Rule 28: what no topic claims is kept, and an operator is told."""
        strays = self._replicas.strays()
        if strays:
            names = ", ".join(str(key) for key in strays[:10])
            _log.warning(
                "%d logs belong to no topic that the metadata places here; they are kept: %s", len(strays), names
            )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1000)
            now_ms = monotonic_ms()
            self._replicas.tick(now_ms)
            self._cleaner.tick(now_ms)
            self._groups.coordinators.tick(now_ms)
            self._look_at_store()
            self._look_at_clocks(now_ms)

    def _forget_told(self) -> None:
        """The metadata forgets a store's state with each registration: a full one is told again at once."""
        self._told_state = RoomState.OK

    def _look_at_store(self) -> None:
        state = self._store.room.state
        if state is not self._told_state:
            self._told_state = state
            self._session.tell()

    def _look_at_clocks(self, now_ms: int) -> None:
        if not self.clock_trust.observe(wall_ms(), now_ms):
            return
        if self.clock_trust.trusted:
            _log.info("the wall clock agrees with the monotonic clock and the cluster's")
        else:
            text = "the wall clock disagrees with the monotonic clock or the cluster's: nothing is dropped by time"
            _log.warning(text)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            self._writer.submit(ExpireProducers(wall_ms() - self.config.limits.producer_expiry_ms))

    async def _drain(self) -> None:
        """Move leaderships away, then say goodbye, so that nobody has to find out."""
        _log.info("stopping: moving leaderships away")
        await self._health.report(serving=False)
        moved = await self._session.drain(self.config.limits.shutdown_grace_ms / 1000)
        if not moved:
            _log.warning("not all leaderships moved away in time")
        self._groups.coordinators.close()
        await self._session.leave(LEAVE_TIMEOUT_S)
