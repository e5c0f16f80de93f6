"""What goes into the replication cores and what comes out: plain values, no behaviour.

Outputs are performed by the shell in their order. Offsets: an end is the offset after the last record.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

NO_LEADER = -1
NO_EPOCH = -1


class InvariantViolationError(Exception):
    """The code contradicts a rule. The process must not go on with this partition."""


class SessionKey(NamedTuple):
    """A partition being followed once: rule 11. Ordered in time for one follower.

    `node_epoch`: the follower's registration; `stream_number`: its stream to this leader; `slot`: the place in it.
    """

    node_epoch: int
    stream_number: int
    slot: int


class Position(NamedTuple):
    """Where a follower stands (rule 3). Everything below `fetch_offset` is durable there (rule 10)."""

    leader_epoch: int
    fetch_offset: int
    last_epoch: int
    log_start_offset: int
    tombstones_below: int = 0
    """Of what it began with (rule 19)."""


class PartitionView(NamedTuple):
    """The partition's metadata in this node's view. `leader_node_epoch`: whom the epoch is granted to (rule 26)."""

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: frozenset[int]
    leader_node_epoch: int
    min_insync_replicas: int


class RefusalKind(Enum):
    """Why an open is refused."""

    NOT_LEADER = 1
    NOT_REPLICA = 2
    UNKNOWN_PARTITION = 3


class AppendRefusal(Enum):
    """Why the leader core takes no append now."""

    NOT_LEADER = "this node does not lead the partition"
    RESIGNED = "the leader resigned after a failed commit"
    RECOVERING = "the leader's log recovers from a failed commit"
    NOT_ENOUGH_REPLICAS = "fewer replicas are in sync than min_insync_replicas"


# ---- outputs of the leader core


class Advance(NamedTuple):  # not a dataclass: the hot path makes many
    """The high watermark moved, or the log start did."""

    high_watermark: int


@dataclass(frozen=True, slots=True)
class Align:
    """The logs agree: send this follower batches from `next_offset` on, and the high watermark."""

    follower: int
    session: SessionKey
    next_offset: int


@dataclass(frozen=True, slots=True)
class Diverge:
    """Tell the follower where the leader's log left its epoch."""

    follower: int
    session: SessionKey
    leader_epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class SendSeed:
    """Send the follower the state as of the leader's log start; it starts anew there (rules 14, 28)."""

    follower: int
    session: SessionKey


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse an open, or end a session whose follower is a replica no more."""

    follower: int
    session: SessionKey
    reason: RefusalKind


@dataclass(frozen=True, slots=True)
class IsrProposal:
    """An ISR change for the metadata, compare-and-set on both epochs.

    `node_epochs`: of each member that is added, the node_epoch of the fetch it was counted by (rule 7). `lost`: members
    removed because they came back without records they had; they do not enter the ELR (rule 27).
    """

    leader: int
    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    node_epochs: tuple[tuple[int, int], ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Propose:
    """Send this ISR change to the controller."""

    proposal: IsrProposal


@dataclass(frozen=True, slots=True)
class Resign:
    """Ask the controller for another leadership: this one appends no more (rule 26)."""

    leader_epoch: int


# ---- outputs of the follower core


@dataclass(frozen=True, slots=True)
class SendOpen:
    """Send an open in this session."""

    session: SessionKey
    position: Position


class SendFetch(NamedTuple):  # not a dataclass: the hot path makes many
    """Send a fetch, which is also the acknowledgement of what is durable."""

    session: SessionKey
    position: Position


@dataclass(frozen=True, slots=True)
class Leave:
    """The session is over; the slot is closed. `retry`: a new one is wanted."""

    session: SessionKey
    retry: bool


class Span(NamedTuple):
    """Place of one received batch."""

    base_offset: int
    end_offset: int
    leader_epoch: int


class WriteAppend(NamedTuple):  # not a dataclass: the hot path makes many
    """Append the received batches; report the outcome."""

    leader_epoch: int


@dataclass(frozen=True, slots=True)
class WriteTruncate:
    """Cut the log, durably; report the outcome."""

    leader_epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class WriteReset:
    """Drop the log and start at `start_offset` with the seed at hand, durably; report the outcome."""

    leader_epoch: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class WriteStart:
    """Move the log start, durably (rule 22); report the outcome."""

    leader_epoch: int
    log_start_offset: int


# ---- outputs of the replica core


@dataclass(frozen=True, slots=True)
class WriteActIn:
    """Record durably that this epoch is acted in; report the outcome, which comes after all earlier writes'."""

    leader_epoch: int


@dataclass(frozen=True, slots=True)
class WriteCheckpoint:
    """Record the high watermark."""

    high_watermark: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The former role is over: what waited in it has an unknown outcome."""


@dataclass(frozen=True, slots=True)
class Lead:
    """This node leads from now on."""

    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Follow:
    """This node follows from now on: give the core a session with the leader."""

    leader: int
    leader_epoch: int


Output = (
    Advance
    | Align
    | Diverge
    | SendSeed
    | Refuse
    | Propose
    | Resign
    | SendOpen
    | SendFetch
    | Leave
    | WriteAppend
    | WriteTruncate
    | WriteReset
    | WriteStart
    | WriteActIn
    | WriteCheckpoint
    | Ended
    | Lead
    | Follow
)
Outputs = list[Output]
