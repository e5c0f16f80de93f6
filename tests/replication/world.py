"""Three replicas of one partition in a world of seeded chance: real cores, real metadata; fake disks and links.

The actions and invariants are those of the checked model of the protocol (numbers I1 to I12 as there): crashes, wiped
disks, failed commits, fencing, elections and ISR commands at any moment, views that lag and that go back at a restart,
messages in order within a session and in any order between sessions. Nothing here reads a clock or random but by seed.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from penstock.internal.v1 import metadata_pb2 as meta_pb
from penstock.node.partition.producing import Producers
from penstock.node.replication import events as ev
from penstock.node.replication.epochs import EpochTable, LogBounds
from penstock.node.replication.events import IsrProposal, PartitionView, Position, SessionKey, Span
from penstock.node.replication.replica import ReplicaCore, Role
from penstock.protocol.batch import BatchHeader
from penstock.raft.apply_nodes import fence_node, register_node
from penstock.raft.apply_partitions import alter_isr, elect_leaders
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, Address, MetadataImage, NodeInfo, PartitionInfo, TopicConfig, TopicInfo
from penstock.storage import LogBatch
from penstock.storage.producers import Duplicate, ProducerState, Refusal, advance
from penstock.v1 import common_pb2, record_pb2

TOPIC = bytes(16)
NODES = (1, 2, 3)
LAG_MS = 3_000
TICK_MS = 500
PRODUCERS = (0, 1)


class Violation(AssertionError):  # noqa: N818  what the checks are for
    """An invariant does not hold."""


class Entry(NamedTuple):
    """One record: the epoch that wrote it, and which producer's which sequence it is."""

    leader_epoch: int
    producer: int
    sequence: int

    @property
    def value(self) -> tuple[int, int]:
        return self.producer, self.sequence


def header_of(producer: int, sequence: int) -> BatchHeader:
    return BatchHeader(
        record_pb2.COMPRESSION_NONE, 1, 0, 0, 0, producer, 0, sequence, transactional=False, control=False
    )


def batch_at(offset: int, entry: Entry) -> LogBatch:
    return LogBatch(offset, offset, entry.leader_epoch, 0, header_of(entry.producer, entry.sequence), b"")


class Write(NamedTuple):
    """Queued at a disk. `kind` is append, truncate, reset, act or mark."""

    kind: str
    leader_epoch: int
    at: int = 0
    entries: tuple[Entry, ...] = ()


class Disk:
    """What a node has durably, and its queue of writes."""

    def __init__(self, store_id: bytes) -> None:
        self.store_id = store_id
        self.entries: list[Entry] = []
        self.acted_epoch = -1
        self.high_watermark = 0
        self.start_ids: list[bytes] = []
        self.queue: list[Write] = []
        self.fences = True
        """A write of a lower leader epoch than the one acted in fails."""
        self.keeps_producers = False
        """Rule 13 removed: truncation leaves the producers' state as it is."""
        self.stale_producers: dict[int, ProducerState] = {}

    def commit(self, fail_at: int | None) -> list[tuple[Write, bool]]:
        """One group: all that is queued; from the write `fail_at` on, the log's writes fail."""
        queue, self.queue = self.queue, []
        outcomes = []
        failing = False
        for i, write in enumerate(queue):
            failing = failing or i == fail_at
            done = not failing and self._apply(write)
            failing = failing or (not done and write.kind == "append")
            outcomes.append((write, done))
        return outcomes

    def _apply(self, write: Write) -> bool:
        if write.kind == "mark":
            self.high_watermark = max(self.high_watermark, write.at)
            return True
        if self.fences and write.leader_epoch < self.acted_epoch:
            return False
        if write.kind == "append":
            if write.at != len(self.entries):
                return False
            self.entries += write.entries
            self._note_stale()
        elif write.kind == "truncate":
            del self.entries[write.at :]
        elif write.kind == "reset":
            self.entries.clear()
        elif write.kind == "act":
            self.acted_epoch = max(self.acted_epoch, write.leader_epoch)
        return True

    def _note_stale(self) -> None:
        if self.keeps_producers:
            self.stale_producers = {p: s for p in PRODUCERS if (s := self._fold(p)) is not None}

    def producer(self, producer: int) -> ProducerState | None:
        if self.keeps_producers:
            return self.stale_producers.get(producer)
        return self._fold(producer)

    def _fold(self, producer: int) -> ProducerState | None:
        state = None
        for offset, entry in enumerate(self.entries):
            if entry.producer == producer:
                state = advance(state, header_of(producer, entry.sequence), offset, 0)
        return state

    def starts(self) -> list[tuple[int, int]]:
        starts: list[tuple[int, int]] = []
        for offset, entry in enumerate(self.entries):
            if not starts or starts[-1][0] != entry.leader_epoch:
                starts.append((entry.leader_epoch, offset))
        return starts

    def bounds(self) -> LogBounds:
        end = len(self.entries)
        return LogBounds(EpochTable(self.starts(), end), 0, end, min(self.high_watermark, end))


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

    def __init__(self, node_id: int, world: "World") -> None:
        self.id = node_id
        self.world = world
        self.disk = Disk(world.unique())
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
        self.world.expose(self)

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
        self.world.expose(self)

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
                if ok:
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


@dataclass
class Limits:
    """How much may go wrong in one run."""

    crashes: int = 6
    wipes: int = 2
    fences: int = 5
    failures: int = 3
    elections: int = 5
    records: int = 9


@dataclass
class World:
    """Everything, and the actions on it."""

    seed: int
    node_type: type[Node] = Node
    limits: Limits = field(default_factory=Limits)
    keeps_producers: bool = False
    pseudo_wiped_keep: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.now_ms = 0
        self.ids = 0
        self.messages: list[Message] = []
        self.commands: list[tuple[int, bytes, IsrProposal]] = []
        self.committed: list[Entry] = []
        self.answered: list[tuple[tuple[int, int], int]] = []
        self.used = replace(self.limits, crashes=0, wipes=0, fences=0, failures=0, elections=0, records=0)
        self.wiped: set[int] = set()
        self.trace: list[str] = []
        self.nodes = {node_id: self.node_type(node_id, self) for node_id in NODES}
        self.image = self._founded()
        self.history = [self.image]
        for node in self.nodes.values():
            node.disk.keeps_producers = self.keeps_producers
            self.start(node)
            self.register(node)
        self._elect_first()

    # ---- metadata (the real apply)

    def _founded(self) -> MetadataImage:
        nodes = {
            node.id: NodeInfo(node.id, 1, node.disk.store_id, self.unique(), Address("h", 1), Address("h", 2))
            for node in self.nodes.values()
        }
        info = PartitionInfo(0, NODES, NODES, (), NO_LEADER, 0, 0, 0)
        topic = TopicInfo(TOPIC, "t", TopicConfig(min_insync_replicas=2), (info,))
        for node in self.nodes.values():
            node.disk.start_ids.append(nodes[node.id].start_id)
            nodes[node.id] = replace(nodes[node.id], durability=common_pb2.DURABILITY_COMMIT)
        return MetadataImage(1, "c", 1, nodes, {TOPIC: topic}, {"t": TOPIC})

    def _elect_first(self) -> None:
        assert self.elect(1)
        for node in self.nodes.values():
            self.learn(node)

    @property
    def info(self) -> PartitionInfo:
        return self.image.topics[TOPIC].partitions[0]

    def apply(self, function: Any, command: Any) -> Any:
        draft = Draft(self.image)
        result = function(draft, command, self.image.version + 1)
        self.image = draft.build(self.image.version + 1)
        self.history.append(self.image)
        return result

    def unique(self) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(16, "big")

    # ---- actions; each says whether it did something

    def start(self, node: Node) -> bool:
        if node.core is not None:
            return False
        node.start_id = self.unique()
        node.disk.start_ids.append(node.start_id)
        bounds = node.disk.bounds()
        node.core = node.core_type(node.id, bounds, node.disk.acted_epoch, LAG_MS)
        node.memory = list(node.disk.entries)
        node.producers = Producers(node.disk.producer)
        node.node_epoch = 0
        node.image = None
        return True

    def register(self, node: Node) -> bool:
        known = self.image.nodes[node.id]
        if node.core is None or (node.node_epoch == known.node_epoch and not known.fenced):
            return False
        registration = meta_pb.Registration(
            node_id=node.id,
            cluster_id="c",
            store_id=node.disk.store_id,
            start_ids=node.disk.start_ids,
            durability=common_pb2.DURABILITY_COMMIT,
            supported_level=1,
        )
        registration.client_address.host = registration.peer_address.host = "h"
        registration.client_address.port = registration.peer_address.port = 1
        command = meta_pb.RegisterNode(registration=registration, previous_node_epoch=known.node_epoch)
        self.apply(register_node, command)
        self.wiped.discard(node.id)
        if self.rng.random() < 0.1:
            return True  # the answer is lost: it registers again
        node.disk.start_ids = node.disk.start_ids[-1:]
        node.node_epoch = self.image.version
        if node.session is not None:  # rule 7
            node.session = None
            node.run(node.core.disconnect())
        return True

    def learn(self, node: Node, image: MetadataImage | None = None) -> bool:
        image = image or self.image
        if node.core is None or (node.image is not None and image.version <= node.image.version):
            return False
        node.image = image
        self.act(node)
        return True

    def act(self, node: Node) -> None:
        """As Replicas.apply does."""
        if node.image is None or node.core is None or not self.includes_registration(node, node.image):
            return
        info = node.image.topics[TOPIC].partitions[0]
        view = PartitionView(
            info.leader,
            info.leader_epoch,
            info.partition_epoch,
            info.replicas,
            frozenset(info.isr),
            info.leader_node_epoch,
            2,
        )
        node.run(node.core.on_view(view, node.node_epoch, self.now_ms))

    def includes_registration(self, node: Node, image: MetadataImage) -> bool:
        """Rule 26."""
        return image.nodes[node.id].node_epoch == node.node_epoch

    def crash(self, node: Node) -> bool:
        if node.core is None or self.used.crashes >= self.limits.crashes:
            return False
        self.used.crashes += 1
        node.core = None
        node.disk.queue.clear()
        node.outcomes.clear()
        node.slots.clear()
        node.session = None
        return True

    def wipe(self, node: Node) -> bool:
        """Within the guarantee: no other disk is outstanding, and another member of ISR or ELR remains."""
        places = {*self.info.isr, *self.info.elr}
        if node.core is not None or self.used.wipes >= self.limits.wipes or self.wiped or places == {node.id}:
            return False
        self.used.wipes += 1
        store_id = node.disk.store_id if self.pseudo_wiped_keep else self.unique()
        starts = node.disk.start_ids if self.pseudo_wiped_keep else []
        node.disk = Disk(store_id)
        node.disk.start_ids = starts
        node.disk.keeps_producers = self.keeps_producers
        self.wiped.add(node.id)
        return True

    def fence(self, node: Node) -> bool:
        known = self.image.nodes[node.id]
        if known.fenced or self.used.fences >= self.limits.fences:
            return False
        self.used.fences += 1
        self.apply(fence_node, meta_pb.FenceNode(node_id=node.id, node_epoch=known.node_epoch))
        return True

    def elect(self, leader: int, *, free: bool = False) -> bool:
        """Any live member of the ISR at any moment; of the ELR where the ISR has none."""
        info = self.info
        live = {node.node_id for node in self.image.nodes.values() if not node.fenced}
        candidates = live & set(info.isr) or live & set(info.elr)
        if leader not in candidates:
            return False
        if info.leader != NO_LEADER and not free:
            if self.used.elections >= self.limits.elections:
                return False
            self.used.elections += 1
        isr = sorted((live & set(info.isr)) | {leader})
        election = meta_pb.Election(
            topic_id=TOPIC,
            partition=0,
            partition_epoch=info.partition_epoch,
            leader=leader,
            leader_node_epoch=self.image.nodes[leader].node_epoch,
            isr=isr,
        )
        result = self.apply(elect_leaders, meta_pb.ElectLeaders(elections=[election]))
        return not result.changes[0].refusal

    def apply_command(self, index: int, *, lose_answer: bool) -> bool:
        node_id, start_id, proposal = self.commands.pop(index)
        change = meta_pb.IsrChange(
            topic_id=TOPIC,
            partition=0,
            leader=proposal.leader,
            leader_epoch=proposal.leader_epoch,
            partition_epoch=proposal.partition_epoch,
            isr=proposal.isr,
            lost=proposal.lost,
        )
        for member, node_epoch in proposal.node_epochs:
            change.node_epochs.add(node_id=member, node_epoch=node_epoch)
        result = self.apply(alter_isr, meta_pb.AlterIsr(changes=[change]))
        node = self.nodes[node_id]
        core = node.core
        if lose_answer or core is None or node.start_id != start_id or core.leader is None:
            return True
        if result.changes[0].refusal == meta_pb.REFUSAL_INELIGIBLE_MEMBER:
            node.run(core.leader.on_proposal_refused(proposal))
        return True

    def resend(self, node: Node) -> bool:
        leader = None if node.core is None else node.core.leader
        if leader is None or leader.pending is None or len(self.commands) >= 4:
            return False
        self.commands.append((node.id, node.start_id, leader.pending))
        return True

    def flush(self, node: Node, fail_at: int | None = None) -> bool:
        if node.core is None or not node.disk.queue:
            return False
        if fail_at is not None:
            if self.used.failures >= self.limits.failures or node.disk.queue[fail_at].kind != "append":
                return False
            self.used.failures += 1
        node.outcomes += node.disk.commit(fail_at)
        return True

    def outcomes(self, node: Node) -> bool:
        if node.core is None or not node.outcomes:
            return False
        node.take_outcomes()
        return True

    def produce(self, node: Node, producer: int) -> bool:
        """A client sends the next sequence that this leader does not know (which includes every retry)."""
        core = node.core
        if core is None or core.append_refusal() is not None or self.used.records >= self.limits.records:
            return False
        sequence = 0
        while isinstance(node.producers.check(header_of(producer, sequence)), Duplicate | Refusal):
            sequence += 1
            if sequence > 20:
                return False
        self.append(node, core, producer, sequence)
        self.used.records += 1
        return True

    def append(self, node: Node, core: ReplicaCore, producer: int, sequence: int) -> None:
        assert core.leader is not None
        entry = Entry(core.leader.leader_epoch, producer, sequence)
        base = core.append(1)
        node.producers.note(batch_at(base, entry), core.log.durable_end)
        node.memory.append(entry)
        node.disk.queue.append(Write("append", entry.leader_epoch, base, (entry,)))

    def ask_again(self, node: Node, producer: int, sequence: int) -> bool:
        """A client repeats a batch: if it is a duplicate it is answered below HW only (rule 14)."""
        core = node.core
        if core is None or core.leader is None:
            return False
        verdict = node.producers.check(header_of(producer, sequence))
        if not isinstance(verdict, Duplicate) or not core.leader.may_answer_duplicate(verdict.last_offset):
            return False
        if ((producer, sequence), verdict.base_offset) in self.answered:
            return False
        self.answered.append(((producer, sequence), verdict.base_offset))
        return True

    def open(self, node: Node) -> bool:
        core = node.core
        if core is None or core.follower is None or len(self.messages) > 12:
            return False
        node.streams += 1
        node.session = SessionKey(node.node_epoch, node.streams, 1)
        node.run(core.connect(node.session))
        return True

    def push(self, node: Node, follower: int, *, most: int = 2) -> bool:
        """As the source does: batches, then the high watermark if it is news."""
        core = node.core
        session = node.session_of(follower)
        if core is None or core.leader is None or session is None or len(self.messages) > 20:
            return False
        start = core.leader.next_push(follower, session)
        if start is None:
            return False
        entries = tuple(node.memory[start : start + most])
        mark = core.log.high_watermark
        if not entries and node.sent_marks.get(session, -1) == mark:
            return False
        if entries:
            core.leader.on_pushed(follower, session, start + len(entries))
            self.send(Message(node.id, follower, session, "append", (start, entries)))
        node.sent_marks[session] = mark
        self.send(Message(node.id, follower, session, "progress", (mark, core.log.log_start_offset)))
        return True

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def deliver(self, index: int) -> bool:
        """In order within a session and direction."""
        message = self.messages[index]
        for earlier in self.messages[:index]:
            if earlier.session == message.session and (earlier.sender, earlier.to) == (message.sender, message.to):
                return False
        del self.messages[index]
        node = self.nodes[message.to]
        if node.core is None:
            return True
        if message.up:
            self._deliver_up(node, node.core, message)
        else:
            self._deliver_down(node, node.core, message)
        return True

    def _deliver_up(self, node: Node, core: ReplicaCore, message: Message) -> None:
        follower = message.sender
        if message.kind == "open":
            known = node.session_of(follower)
            if known is None or known < message.session:
                node.slots[follower] = (message.session, message.body.leader_epoch)
            node.run(core.on_open(follower, message.session, message.body))
        else:
            node.run(core.on_fetch(follower, message.session, message.body))

    def _deliver_down(self, node: Node, core: ReplicaCore, message: Message) -> None:
        session, body = message.session, message.body
        if message.kind == "append":
            base, entries = body
            node.received = entries
            node.run(
                core.on_batches(session, [Span(base + i, base + i + 1, e.leader_epoch) for i, e in enumerate(entries)])
            )
            node.received = ()
        elif message.kind == "progress":
            node.run(core.on_progress(session, *body))
        elif message.kind == "diverge":
            node.run(core.on_divergence(session, *body))
        elif message.kind == "seed":
            node.run(core.on_seed(session, 0, ()))
        else:
            node.run(core.on_refused(session))

    def lose(self, index: int) -> bool:
        """Only messages of a session that is dead at the follower."""
        message = self.messages[index]
        follower = self.nodes[message.sender if message.up else message.to]
        if follower.session == message.session:
            return False
        del self.messages[index]
        return True

    def tick(self, node: Node) -> bool:
        if node.core is None:
            return False
        node.run(node.core.tick(self.now_ms))
        return True

    # ---- checking

    def expose(self, node: Node) -> None:
        """A leader's high watermark: what is below was readable and acknowledged from now on."""
        core = node.core
        if core is None or core.leader is None:
            return
        for offset in range(core.log.high_watermark):
            entry = node.memory[offset]
            if offset < len(self.committed):
                self.require(self.committed[offset] == entry, f"I1 node {node.id} commits another record at {offset}")
            else:
                twice = any(entry.value == other.value for other in self.committed)
                self.require(not twice, f"I5 {entry.value} is committed twice")
                self.committed.append(entry)

    def require(self, holds: bool, text: str) -> None:
        if not holds:
            raise Violation(f"seed {self.seed}: {text}")

    def check(self) -> None:
        self._check_nodes()
        self._check_places()
        self._check_answers()

    def _check_nodes(self) -> None:
        leaders: dict[int, int] = {}
        for node in self.nodes.values():
            core = node.core
            if core is None:
                continue
            if core.role is not Role.ENTERING and core.leader is not None:
                epoch = core.leader.leader_epoch
                self.require(epoch not in leaders, f"I4 nodes {leaders.get(epoch)} and {node.id} lead epoch {epoch}")
                leaders[epoch] = node.id
                current = self.info.leader == node.id and self.info.leader_epoch == epoch
                if current and core.leader.end_is_known:
                    text = f"I6 leader {node.id} would answer an end below the committed one"
                    self.require(core.log.high_watermark >= len(self.committed), text)
            if core.role in {Role.LEADING, Role.FOLLOWING}:
                mark = core.log.high_watermark
                self.require(mark <= len(self.committed), f"I11 node {node.id} has a HW above any leader's")
                self.require(node.memory[:mark] == self.committed[:mark], f"I1 HW of node {node.id} covers others")
        logs = [node.disk.entries for node in self.nodes.values()]
        logs += [node.memory for node in self.nodes.values() if node.core is not None]
        seen: dict[tuple[int, int], Entry] = {}
        for log in logs:
            for offset, entry in enumerate(log):
                other = seen.setdefault((entry.leader_epoch, offset), entry)
                self.require(other == entry, f"I8 epoch {entry.leader_epoch} has two values at offset {offset}")

    def _complete(self, node_id: int) -> bool:
        return self.nodes[node_id].disk.entries[: len(self.committed)] == self.committed

    def _check_places(self) -> None:
        info = self.info
        self.require(info.leader == NO_LEADER or info.leader in info.isr, "I12 the leader is outside the ISR")
        places = {*info.isr, *info.elr}
        for node_id in places - self.wiped:
            name = "I2 the leader" if info.leader == node_id else "I3 a member of ISR or ELR"
            self.require(self._complete(node_id), f"{name}, node {node_id}, lacks committed records")
        if not places - self.wiped:
            intact = [node_id for node_id in NODES if node_id not in self.wiped and self._complete(node_id)]
            self.require(not intact, f"I7 nobody is electable though {intact} is intact and complete")

    def _check_answers(self) -> None:
        for value, offset in self.answered:
            ok = offset < len(self.committed) and self.committed[offset].value == value
            self.require(ok, f"I9 {value} was answered as appended at {offset}, and is not")
