"""One member of the consensus cluster: lifecycle, and the bridge between the event loop and the consensus thread.

Owns: the thread that runs the consensus machine (its fsyncs must not block the event loop), the waiters of submitted
commands, and what the event loop may read about consensus (leader, term, applied index).

Invariants: the state machine is called on the consensus thread only, in log order, each index once. Every wait has a
deadline. A command's outcome is one of three: applied (with its result), refused (definitely not applied, now or
later), unknown. The first error of journal, snapshot or apply stops the node for good (`on_fatal`); nothing is retried.

Never: gates safety on `is_leader`, which may be out of date by an election timeout. Commands carry compare-and-set;
a linearizable read calls `barrier` first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import grpc


class StateMachine(Protocol):
    """What consensus replicates. Called on the consensus thread only, in log order."""

    def apply(self, index: int, command: bytes) -> bytes:
        """Apply the command at this log index. Total and deterministic: bad input is a result, never an exception."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state, deterministically encoded."""
        ...

    def restore(self, index: int, data: bytes) -> None:
        """Replace the whole state by a snapshot taken after the command at `index` was applied."""
        ...


class Applied(NamedTuple):
    """A command's certain outcome: it is in the log at `index`, and this node's state machine answered `result`."""

    index: int
    result: bytes


class SubmitRefused(Exception):
    """The command was not applied and never will be; submitting it again is safe."""


class OutcomeUnknown(Exception):
    """The command may be applied, now or later, or never."""


@dataclass(frozen=True)
class RaftConfig:
    """How this member runs. Times are seconds."""

    node_id: int
    data_dir: Path  # the journal is in data_dir/"raft", made by RaftJournal.format
    voters: Mapping[int, str]  # node id -> "host:port" of its peer listener; the configuration in the journal wins
    dial_overrides: Mapping[int, str] = field(default_factory=dict)  # dial these addresses instead
    observer: bool = False  # receives the log; never votes or counts (until it is added as a voter)
    election_timeout_s: tuple[float, float] = (0.3, 0.6)
    heartbeat_s: float = 0.05
    tick_s: float = 0.02
    snapshot_entries: int = 8192  # entries applied since the last snapshot that make the next one due
    snapshot_tail: int = 1024  # entries kept before a snapshot, so that a follower a little behind needs none
    credentials: grpc.ChannelCredentials | None = None


class RaftNode:
    """A member of the cluster. Built, started, used and stopped on one event loop."""

    on_leadership: list[Callable[[int | None, int], None]]  # (leader, term), on the event loop at each change
    on_fatal: list[Callable[[BaseException], None]]  # on the event loop, once: consensus here has stopped for good

    def __init__(self, config: RaftConfig, machine: StateMachine) -> None:
        self.config = config
        self.machine = machine
        self.on_leadership = []
        self.on_fatal = []

    @property
    def leader(self) -> int | None:
        """The node believed to lead, if any is known."""
        raise NotImplementedError

    @property
    def is_leader(self) -> bool:
        """Whether this node believes that it leads. Call `barrier` before acting on what it has applied."""
        raise NotImplementedError

    @property
    def term(self) -> int:
        """The current term."""
        raise NotImplementedError

    @property
    def applied_index(self) -> int:
        """Index of the last log entry that this node's state machine has applied."""
        raise NotImplementedError

    @property
    def cluster_id(self) -> str:
        """The cluster that the journal belongs to."""
        raise NotImplementedError

    @property
    def journal_id(self) -> bytes:
        """Random 16 bytes, drawn when the journal was formatted."""
        raise NotImplementedError

    @property
    def voters(self) -> Mapping[int, str]:
        """The voters of the latest configuration in this node's log, and their peer addresses."""
        raise NotImplementedError

    def servicer(self) -> object:
        """Return the RaftService implementation; add it to the peer gRPC server before that starts."""
        raise NotImplementedError

    async def start(self) -> None:
        """Open the journal, restore the state machine, dial the peers. Raises JournalError when it cannot."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close streams, thread and journal. Waiters get OutcomeUnknown (SubmitRefused if not yet sent)."""
        raise NotImplementedError

    async def submit(self, command: bytes, timeout_s: float) -> Applied:
        """Replicate a command (from any node: forwarded to the leader) and wait until this node has applied it.

        Raises SubmitRefused or OutcomeUnknown.
        """
        raise NotImplementedError

    async def barrier(self, timeout_s: float) -> int:
        """Commit a no-op; at return this node has applied everything that was committed before the call."""
        raise NotImplementedError

    async def transfer_leadership(self, to: int | None = None) -> None:
        """Ask a caught-up voter to take over. Best effort; SubmitRefused when this node may not or none is fit."""
        raise NotImplementedError

    async def add_voter(self, node_id: int, address: str, journal_id: bytes, timeout_s: float) -> int:
        """Make a caught-up observer a voter; the index of the change. Raises SubmitRefused or OutcomeUnknown."""
        raise NotImplementedError

    async def remove_voter(self, node_id: int, timeout_s: float) -> int:
        """Make a voter an observer; not the leader itself (transfer first). The index of the change."""
        raise NotImplementedError
