"""A process of the replication world: a real ReplicaCore, and around it what ReplicaShell and its kin do."""

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from penstock.node.partition.producing import Producers
from penstock.node.replication import events as ev
from penstock.node.replication.events import IsrProposal, Position, SessionKey
from penstock.node.replication.replica import ReplicaCore, Role
from penstock.raft.image import MetadataImage
from tests.replication import invariants
from tests.replication.disk import Disk, Entry, Write

if TYPE_CHECKING:
    from tests.replication.world import World


class Message(NamedTuple):
    """On its way. `up`: from the follower to the leader."""

    sender: int
    to: int
    session: SessionKey
    kind: str
    body: Any
    up: bool = False


class Node:
    """A process with its disk. `core` is None while it is down."""

    core_type: type[ReplicaCore] = ReplicaCore
    disk_type: type[Disk] = Disk

    def __init__(self, node_id: int, world: "World") -> None:
        self.id = node_id
        self.world = world
        self.disk = self.disk_type(world.unique())
        self.core: ReplicaCore | None = None
        self.start_id = b""
        self.node_epoch = 0
        self.image: MetadataImage | None = None
        self.memory: list[Entry] = []
        self.producers = Producers(self.disk.producer)
        self.outcomes: deque[tuple[Write, bool]] = deque()
        self.slots: dict[int, tuple[SessionKey, int]] = {}
        self.session: SessionKey | None = None
        self.streams = 0
        self.sent_marks: dict[SessionKey, int] = {}
        self.received: tuple[Entry, ...] = ()
        self.proposal: IsrProposal | None = None
        self.resigned = -1

    # ---- running the core

    def run(self, outputs: ev.Outputs) -> None:
        for out in outputs:
            getattr(self, f"_on_{type(out).__name__.lower()}")(out)

    def up(self) -> ReplicaCore:
        assert self.core is not None
        return self.core

    def _on_advance(self, out: ev.Advance) -> None:
        invariants.expose(self.world, self)

    def _on_align(self, out: ev.Align) -> None:
        pass

    def _on_diverge(self, out: ev.Diverge) -> None:
        self._down(out.follower, out.session, "diverge", (out.leader_epoch, out.end_offset))

    def _on_sendseed(self, out: ev.SendSeed) -> None:
        self._down(out.follower, out.session, "seed", None)

    def _on_refuse(self, out: ev.Refuse) -> None:
        self._down(out.follower, out.session, "refuse", None)

    def _on_propose(self, out: ev.Propose) -> None:
        self.proposal = out.proposal
        self.world.commands.append((self.id, self.start_id, out.proposal))

    def _on_resign(self, out: ev.Resign) -> None:
        self.resigned = out.leader_epoch

    def _on_sendopen(self, out: ev.SendOpen) -> None:
        self._up(out.session, "open", out.position)

    def _on_sendfetch(self, out: ev.SendFetch) -> None:
        self._up(out.session, "fetch", out.position)

    def _on_leave(self, out: ev.Leave) -> None:
        self.session = None

    def _on_writeappend(self, out: ev.WriteAppend) -> None:
        entries, self.received = self.received, ()
        self.disk.queue.append(Write("append", out.leader_epoch, len(self.memory), entries))
        self.memory += entries

    def _on_writetruncate(self, out: ev.WriteTruncate) -> None:
        self.disk.queue.append(Write("truncate", out.leader_epoch, out.end_offset))

    def _on_writereset(self, out: ev.WriteReset) -> None:
        self.disk.queue.append(Write("reset", out.leader_epoch, out.start_offset))

    def _on_writeactin(self, out: ev.WriteActIn) -> None:
        self.disk.queue.append(Write("act", out.leader_epoch))

    def _on_writecheckpoint(self, out: ev.WriteCheckpoint) -> None:
        self.disk.queue.append(Write("mark", 0, out.high_watermark))

    def _on_ended(self, out: ev.Ended) -> None:
        view = self.up().view
        assert view is not None
        self.slots = {node: slot for node, slot in self.slots.items() if slot[1] >= view.leader_epoch}
        self.producers.clear()

    def _on_lead(self, out: ev.Lead) -> None:
        self.producers.clear()
        invariants.expose(self.world, self)

    def _on_follow(self, out: ev.Follow) -> None:
        self.producers.clear()
        self.session = None

    def _down(self, follower: int, session: SessionKey, kind: str, body: object) -> None:
        if self.session_of(follower) == session:
            self.world.send(Message(self.id, follower, session, kind, body))

    def session_of(self, follower: int) -> SessionKey | None:
        slot = self.slots.get(follower)
        return None if slot is None else slot[0]

    def _up(self, session: SessionKey, kind: str, position: Position) -> None:
        follower = self.up().follower
        assert follower is not None
        self.world.send(Message(self.id, follower.leader, session, kind, position, up=True))

    # ---- outcomes

    def take_outcomes(self) -> None:
        """As ReplicaShell does: appends are counted, everything else in its turn."""
        done = failed = 0
        end = 0
        while self.outcomes:
            write, ok = self.outcomes.popleft()
            if write.kind == "append":
                done, failed = done + ok, failed + (not ok)
                end = write.at + len(write.entries) if ok else end
                continue
            self._settle(done, failed, end)
            done = failed = 0
            if write.kind == "act":
                if ok and self.up().role is Role.ENTERING:  # else it is of a role that was over before
                    self.memory = list(self.disk.entries)
                bounds = self.disk.bounds() if ok else None
                self.run(self.up().on_acted(write.leader_epoch, bounds, self.world.now_ms))
            elif write.kind in {"truncate", "reset"}:
                self.run(self.up().on_cut(succeeded=ok))
                del self.memory[self.up().log.log_end_offset :]
        self._settle(done, failed, end)

    def _settle(self, done: int, failed: int, end: int) -> None:
        if not done and not failed:
            return
        durable = self.up().log.durable_end
        self.run(self.up().on_commits(done, failed, max(end, durable) if done else durable))
        if failed:
            del self.memory[self.up().log.log_end_offset :]
            self.producers.clear()
