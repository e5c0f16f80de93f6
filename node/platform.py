"""What a node takes from the machine that it runs on: disk, consensus with its thread, network, chance, its own end.

One seam for all of it, so that a simulated world can run the whole of a node (tests/simulation). The clocks are the
functions of `node.clock`.
"""

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import grpc

from penstock.node.api.server import new_server
from penstock.node.clean import CleanMark
from penstock.node.cleanup.compactor import Planned, plan
from penstock.node.config import Endpoint, NodeConfig
from penstock.node.peers import channel_to, refuses
from penstock.raft.cluster import RaftConfig, RaftNode, StateMachine
from penstock.storage import Committer, Log, Outcome, Store, StoreOptions, Write, Writer
from penstock.storage.compaction_run import Task

FATAL_EXIT_CODE = 70


class WriterLike(Protocol):
    """What a node asks of its writer."""

    def start(self) -> None:
        """Begin to write."""
        ...

    def submit(self, write: Write) -> None:
        """Queue a write; never blocks."""
        ...

    def stop(self) -> bool:
        """Write what is queued and end; whether everything is durable then."""
        ...


class Platform:
    """The real machine."""

    def __init__(self) -> None:
        self.rng = random.Random()  # noqa: S311  jitter, not secrets
        self.secret_rng: random.Random = random.SystemRandom()
        """For what must not be guessed or repeated: topic ids, request ids."""

    def unique_bytes(self) -> bytes:
        """Return 16 bytes that nobody else ever has."""
        return secrets.token_bytes(16)

    def unique_name(self) -> str:
        """Return a text that nobody else ever has."""
        return str(uuid.uuid4())

    # ---- disk

    def open_store(self, config: NodeConfig) -> tuple[Store, Committer]:
        """Open the formatted store of this node. Raises StorageError."""
        store = Store.open(config.store_dir, store_options(config), node_id=config.node_id)
        return store, Committer(store)

    def clean_mark(self, config: NodeConfig, durability: str, start_ids: tuple[bytes, ...]) -> CleanMark:
        """Return what tells whether the starts before this one ended orderly."""
        return CleanMark(config.data_dir, durability, start_ids)

    def writer(
        self,
        committer: Committer,
        on_commit: Callable[[Sequence[Outcome]], None],
        on_fatal: Callable[[BaseException], None],
        sync_interval_ms: int,
    ) -> WriterLike:
        """Return a writer, not started, that calls back on the running event loop."""
        loop = asyncio.get_running_loop()
        return Writer(
            committer,
            lambda outcomes: _hop(loop, on_commit, outcomes),
            lambda error: _hop(loop, on_fatal, error),
            sync_interval_ms,
        )

    def compaction(self, config: NodeConfig, log: Log, task: Task) -> AsyncIterator[Planned]:
        """Plan a compaction; its writes, in order."""
        return plan(config.store_dir, config.limits.store_map_bytes, log, task)

    # ---- consensus

    def consensus(self, config: RaftConfig, machine: StateMachine) -> RaftNode:
        """Return this node's member of the Raft cluster, not started."""
        return RaftNode(config, machine)

    # ---- network

    def server(self) -> grpc.aio.Server:
        """Return a gRPC server that listens nowhere yet."""
        return new_server()

    def channel(self, endpoint: Endpoint) -> grpc.aio.Channel:
        """Open a channel to another node's peer listener; the caller closes it."""
        return channel_to(endpoint)

    async def refuses(self, endpoint: Endpoint | None) -> bool:
        """Whether nobody listens at the address right now."""
        return await refuses(endpoint)

    # ---- the process

    def catch_signals(self, stop: Callable[[], None]) -> None:
        """Call `stop`, and nothing that was set before, on SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)

    def end_orderly(self) -> None:
        """End now, without any further step: nothing is under way that needs one."""
        logging.shutdown()
        os._exit(0)

    def end_process(self) -> None:
        """End now, without any further step."""
        logging.shutdown()
        os._exit(FATAL_EXIT_CODE)


def store_options(config: NodeConfig) -> StoreOptions:
    """How a node opens its store."""
    limits = config.limits
    return StoreOptions(
        durability=config.durability,
        map_bytes=limits.store_map_bytes,
        limit_bytes=limits.store_bytes,
        reserve_bytes=limits.store_reserve_bytes,
        ballast_bytes=limits.store_ballast_bytes,
        nearly_full_share=limits.store_watermark_percent / 100,
    )


def _hop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], argument: object) -> None:
    """Call on the loop from another thread; nothing where the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, argument)
