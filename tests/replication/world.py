"""Three replicas of one partition: real cores, real metadata apply, a real client cursor; fake disks and links.

The actions and invariants are those of the checked model of the protocol (I1 to I12 as there): crashes, wiped disks and
restored copies, failed commits, fencing, elections and ISR commands at any moment, views that lag and that go back at a
restart, messages in order within a session and in any order between sessions. No action draws lots: what is random is
which action comes next (`schedule`), so a run is its list of actions (`World.trace`) and can be played again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from penstock.client.cursor import Cursor
from penstock.client.records import TopicPartition
from penstock.internal.v1 import metadata_pb2 as meta_pb
from penstock.node.partition.producing import Producers
from penstock.node.replication import proposals
from penstock.node.replication.events import IsrProposal, PartitionView, SessionKey, Span
from penstock.node.replication.replica import ReplicaCore
from penstock.raft import apply_nodes, apply_partitions
from penstock.raft.draft import Draft
from penstock.raft.image import NO_LEADER, Address, MetadataImage, NodeInfo, PartitionInfo, TopicConfig, TopicInfo
from penstock.storage.producers import Duplicate, Refusal
from penstock.v1 import common_pb2, consumer_service_pb2
from tests.replication import invariants
from tests.replication.disk import PRODUCERS, Disk, Entry, Write, batch_at, header_of
from tests.replication.invariants import NAMES, Violation
from tests.replication.node import Message, Node

TOPIC = bytes(16)
NODES = (1, 2, 3)
LAG_MS = 3_000
TICK_MS = 500
MESSAGES = 20
"""So many may be under way before nobody pushes more."""
COMMANDS = 4

__all__ = ["LAG_MS", "NODES", "PRODUCERS", "TICK_MS", "Limits", "Node", "Violation", "World"]


@dataclass
class Limits:
    """How much may go wrong in one run."""

    crashes: int = 6
    wipes: int = 2
    copies: int = 1
    fences: int = 5
    failures: int = 3
    elections: int = 5
    records: int = 9


@dataclass
class World:
    """Everything, and the actions on it. An action says whether it could be done; if not, it changes nothing."""

    node_ids: ClassVar[tuple[int, ...]] = NODES
    """All nodes; the founding ones are the replicas."""

    node_type: type[Node] = Node
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.now_ms = 0
        self.ids = 0
        self.messages: list[Message] = []
        self.commands: list[tuple[int, bytes, IsrProposal]] = []
        self.committed: list[Entry] = []
        self.answered: list[tuple[tuple[int, int], int]] = []
        self.used = Limits(**dict.fromkeys(vars(self.limits), 0))
        self.wiped: set[int] = set()
        """Nodes whose disk is lost, or went back, and who have not registered since."""
        self.backup: tuple[int, Disk] | None = None
        self.client = Cursor(TOPIC, TopicPartition("t", 0), 0)
        self.trace: list[Any] = []
        """The steps that were done."""
        self.nodes = {node_id: self.node_type(node_id, self) for node_id in self.node_ids}
        for node_id in self.node_ids:
            self.start(node_id)
        self.image = self._founded()
        self.history = [self.image]
        assert self.elect(NODES[0])
        for node_id in self.node_ids:
            self.learn(node_id)

    def check(self) -> None:
        invariants.check(self)

    # ---- metadata (the real apply)

    def _founded(self) -> MetadataImage:
        nodes = {}
        for node in self.nodes.values():
            known = NodeInfo(node.id, 1, node.disk.store_id, node.start_id, Address("h", 1), Address("h", 2))
            nodes[node.id] = replace(known, durability=common_pb2.DURABILITY_COMMIT)
            node.node_epoch = known.node_epoch
        info = PartitionInfo(0, NODES, NODES, (), NO_LEADER, 0, 0, 0)
        topic = TopicInfo(TOPIC, "t", TopicConfig(min_insync_replicas=2), (info,))
        return MetadataImage(1, "c", 1, nodes, {TOPIC: topic}, {"t": TOPIC})

    @property
    def info(self) -> PartitionInfo:
        return self.image.topics[TOPIC].partitions[0]

    def apply_now(self, function: Callable[..., meta_pb.MetadataResult], command: Any) -> meta_pb.MetadataResult:
        draft = Draft(self.image)
        result = function(draft, command, self.image.version + 1)
        self.image = draft.build(self.image.version + 1)
        self.history.append(self.image)
        return result

    def unique(self) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(16, "big")

    # ---- processes and disks

    def start(self, node_id: int) -> bool:
        node = self.nodes[node_id]
        if node.core is not None:
            return False
        node.start_id = self.unique()
        node.disk.start_ids.append(node.start_id)
        node.core = node.core_type(node.id, node.disk.bounds(), node.disk.acted_epoch, LAG_MS)
        node.memory = list(node.disk.entries)
        node.producers = Producers(node.disk.producer)
        node.node_epoch = 0
        node.image = None
        return True

    def register(self, node_id: int, *, unanswered: bool = False) -> bool:
        """Unanswered: applied, but the node does not hear of it and registers again."""
        node = self.nodes[node_id]
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
        self.apply_now(apply_nodes.register_node, command)
        self.wiped.discard(node.id)
        if unanswered:
            return True
        node.disk.start_ids = node.disk.start_ids[-1:]
        node.node_epoch = self.image.nodes[node.id].node_epoch
        self.reopen(node, node.core)
        return True

    def reopen(self, node: Node, core: ReplicaCore) -> None:
        """Rule 7: a node that has a new node_epoch closes its streams."""
        if node.session is not None:
            node.session = None
            node.run(core.disconnect())

    def crash(self, node_id: int) -> bool:
        node = self.nodes[node_id]
        if node.core is None or not self._spend("crashes"):
            return False
        node.core = None
        node.disk.queue.clear()
        node.outcomes.clear()
        node.slots.clear()
        node.session = None
        return True

    def wipe(self, node_id: int) -> bool:
        """Within the guarantee: no other disk is outstanding, and another member of ISR or ELR remains."""
        node = self.nodes[node_id]
        if node.core is not None or not self._may_lose(node_id) or not self._spend("wipes"):
            return False
        node.disk = node.disk_type(self.unique())
        self.wiped.add(node_id)
        return True

    def copy(self, node_id: int) -> bool:
        """Somebody backs up a node's files."""
        if node_id in self.wiped or not self._spend("copies"):
            return False
        self.backup = (node_id, self.nodes[node_id].disk.copy())
        return True

    def restore(self, node_id: int) -> bool:
        """Somebody puts the copy in the disk's place, without the restore tool.

        Within the guarantee: as `wipe`, and the copy is older than the present start.
        """
        node = self.nodes[node_id]
        if node.core is not None or self.backup is None or self.backup[0] != node_id or not self._may_lose(node_id):
            return False
        if self.image.nodes[node_id].start_id in self.backup[1].start_ids:
            return False
        node.disk, self.backup = self.backup[1], None
        self.wiped.add(node_id)
        return True

    def _may_lose(self, node_id: int) -> bool:
        return not self.wiped and {*self.info.isr, *self.info.elr} != {node_id}

    def _spend(self, what: str) -> bool:
        used = getattr(self.used, what)
        if used >= getattr(self.limits, what):
            return False
        setattr(self.used, what, used + 1)
        return True

    def flush(self, node_id: int, *, fail: int | None = None) -> bool:
        """The disk commits what is queued. `fail`: from this write of the queue on it fails."""
        node = self.nodes[node_id]
        if node.core is None or not node.disk.queue:
            return False
        if fail is not None:
            queue = node.disk.queue
            if fail >= len(queue) or queue[fail].kind != "append" or not self._spend("failures"):
                return False
        node.outcomes += node.disk.commit(fail)
        return True

    def outcomes(self, node_id: int) -> bool:
        """The node hears what became of its writes."""
        node = self.nodes[node_id]
        if node.core is None or not node.outcomes:
            return False
        node.take_outcomes()
        return True

    # ---- controller

    def fence(self, node_id: int) -> bool:
        known = self.image.nodes[node_id]
        if known.fenced or not self._spend("fences"):
            return False
        self.apply_now(apply_nodes.fence_node, meta_pb.FenceNode(node_id=node_id, node_epoch=known.node_epoch))
        return True

    def elect(self, leader: int, *, free: bool = False) -> bool:
        """Any live member of the ISR at any moment; of the ELR where the ISR has none. Free: it does not count."""
        info = self.info
        live = {node.node_id for node in self.image.nodes.values() if not node.fenced}
        if leader not in (live & set(info.isr) or live & set(info.elr)):
            return False
        if info.leader != NO_LEADER and not free and not self._spend("elections"):
            return False
        election = meta_pb.Election(
            topic_id=TOPIC,
            partition=0,
            partition_epoch=info.partition_epoch,
            leader=leader,
            leader_node_epoch=self.image.nodes[leader].node_epoch,
            isr=sorted((live & set(info.isr)) | {leader}),
        )
        result = self.apply_now(apply_partitions.elect_leaders, meta_pb.ElectLeaders(elections=[election]))
        return not result.changes[0].refusal

    def commands_of(self, node_id: int) -> list[int]:
        return [i for i, (sender, _, _) in enumerate(self.commands) if sender == node_id]

    def apply(self, node_id: int, nth: int = 0, *, unanswered: bool = False) -> bool:
        """The metadata apply an ISR change that this node sent, the oldest or the `nth` after it."""
        indexes = self.commands_of(node_id)
        if nth >= len(indexes):
            return False
        _, start_id, proposal = self.commands.pop(indexes[nth])
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
        result = self.apply_now(apply_partitions.alter_isr, meta_pb.AlterIsr(changes=[change]))
        node = self.nodes[node_id]
        if not unanswered and node.core is not None and node.start_id == start_id:
            self.answer(node, node.core, proposal, result.changes[0].refusal)
        return True

    def answer(self, node: Node, core: ReplicaCore, proposal: IsrProposal, refusal: int) -> None:
        """As Proposals does: what is refused for good is told to the core."""
        if refusal not in proposals._BY_VIEW and core.leader is not None:
            node.run(core.leader.on_proposal_refused(proposal))

    def resend(self, node_id: int) -> bool:
        """A leader has no answer yet and asks again."""
        node = self.nodes[node_id]
        leader = None if node.core is None else node.core.leader
        if leader is None or leader.pending is None or len(self.commands) >= COMMANDS:
            return False
        self.commands.append((node.id, node.start_id, leader.pending))
        return True

    # ---- views

    def learn(self, node_id: int, back: int = 0) -> bool:
        """A node's applied state moves on to the newest image, or to one that is `back` images older."""
        node = self.nodes[node_id]
        if node.core is None or back >= len(self.history):
            return False
        image = self.history[-1 - back]
        if node.image is not None and image.version <= node.image.version:
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

    # ---- clients

    def produce(self, node_id: int, producer: int) -> bool:
        """A client sends the next sequence that this leader does not know (which includes every retry)."""
        node = self.nodes[node_id]
        if node.core is None or node.core.leader is None:
            return False
        sequence = 0
        while isinstance(node.producers.check(header_of(producer, sequence)), Duplicate | Refusal):
            sequence += 1
            if sequence > self.limits.records:
                return False
        return self.submit(node_id, producer, sequence)

    def submit(self, node_id: int, producer: int, sequence: int) -> bool:
        """A client sends this record, whatever became of those before it that were under way with it."""
        node = self.nodes[node_id]
        core = node.core
        if core is None or core.append_refusal() is not None or self.used.records >= self.limits.records:
            return False
        if isinstance(node.producers.check(header_of(producer, sequence)), Duplicate | Refusal):
            return False
        self.used.records += 1
        assert core.leader is not None
        entry = Entry(core.leader.leader_epoch, producer, sequence)
        base = core.append(1)
        node.producers.note(batch_at(base, entry), core.log.durable_end)
        node.memory.append(entry)
        node.disk.queue.append(Write("append", entry.leader_epoch, base, (entry,), as_leader=True))
        return True

    def repeat(self, node_id: int, producer: int, sequence: int) -> bool:
        """A client repeats a batch: if it is a duplicate it is answered below HW only (rule 14)."""
        node = self.nodes[node_id]
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

    def ask(self, node_id: int) -> bool:
        """A reader asks a leader, or who takes itself for one, for the end (rule 12)."""
        core = self.nodes[node_id].core
        if core is None or core.leader is None or not core.leader.end_is_known:
            return False
        epoch, end = core.leader.leader_epoch, core.log.high_watermark
        answer = consumer_service_pb2.ConsumedPartition(leader_epoch=epoch, high_watermark=end)
        if self.client.is_stale(answer):
            return False
        if end < self.client.high_watermark:
            raise Violation(f"I6 a reader sees the end go back from {self.client.high_watermark} to {end}")
        self.client.accept(answer, None, check_crc=False)
        return True

    # ---- replication

    def open(self, node_id: int) -> bool:
        """A follower opens a stream to its leader; the one that it has, if any, is dead."""
        node = self.nodes[node_id]
        core = node.core
        if core is None or core.follower is None or len(self.messages) >= MESSAGES:
            return False
        node.streams += 1
        node.session = SessionKey(node.node_epoch, node.streams, 1)
        node.run(core.connect(node.session))
        return True

    def push(self, node_id: int, follower: int) -> bool:
        """As the source does: batches, then the high watermark if it is news."""
        node = self.nodes[node_id]
        core = node.core
        session = node.session_of(follower)
        if core is None or core.leader is None or session is None or len(self.messages) >= MESSAGES:
            return False
        start = core.leader.next_push(follower, session)
        if start is None:
            return False
        entries = tuple(node.memory[start : start + 2])
        mark = core.log.high_watermark
        if not entries and node.sent_marks.get(session, -1) == mark:
            return False
        if entries:
            core.leader.on_pushed(follower, session, start + len(entries))
            self.send(Message(node.id, follower, session, "append", (start, entries)))
        node.sent_marks[session] = mark
        self.send(Message(node.id, follower, session, "progress", (mark, core.log.log_start_offset)))
        return True

    def unreachable(self, node_id: int, follower: int) -> bool:
        """A leader finds a follower's address refusing connections (rule 29): the stream that it knows is dead."""
        core = self.nodes[node_id].core
        if core is None or core.leader is None:
            return False
        progress = core.leader._progress.get(follower)
        if progress is None or progress.unreachable or progress.session == self.nodes[follower].session:
            return False
        self.nodes[node_id].run(core.leader.on_unreachable(follower))
        return True

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def channel_of(self, message: Message) -> tuple[int, int, int]:
        """From, to, and how many streams ago: in it messages keep their order."""
        follower = self.nodes[message.sender if message.up else message.to]
        return message.sender, message.to, follower.streams - message.session.stream_number

    def first_in(self, channel: tuple[int, int, int]) -> Message | None:
        return next((message for message in self.messages if self.channel_of(message) == channel), None)

    def deliver(self, sender: int, to: int, back: int = 0) -> bool:
        """The oldest message of a stream arrives: of the receiving or sending follower's newest, or one `back`."""
        message = self.first_in((sender, to, back))
        if message is None:
            return False
        self.messages.remove(message)
        node = self.nodes[to]
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
            spans = [Span(base + i, base + i + 1, entry.leader_epoch) for i, entry in enumerate(entries)]
            node.run(core.on_batches(session, spans))
            node.received = ()
        elif message.kind == "progress":
            node.run(core.on_progress(session, *body))
        elif message.kind == "diverge":
            node.run(core.on_divergence(session, *body))
        elif message.kind == "seed":
            node.run(core.on_seed(session, 0, ()))
        else:
            node.run(core.on_refused(session))

    def lose(self, sender: int, to: int, back: int = 0) -> bool:
        """Only messages of a session that is dead at the follower."""
        message = self.first_in((sender, to, back))
        if message is None or self.nodes[sender if message.up else to].session == message.session:
            return False
        self.messages.remove(message)
        return True

    # ---- time

    def wait(self) -> bool:
        self.now_ms += TICK_MS
        return True

    def tick(self, node_id: int) -> bool:
        node = self.nodes[node_id]
        if node.core is None:
            return False
        node.run(node.core.tick(self.now_ms))
        return True

    # ---- several at once

    def exchange(self, *among: int) -> bool:
        """These nodes do all they can among themselves; messages from and to others stay under way."""
        busy = any_done = True
        any_done = False
        while busy:
            busy = any(list(self._exchange_once(among)))
            any_done |= busy
            self.check()
        return any_done

    def _exchange_once(self, among: tuple[int, ...]) -> Iterator[bool]:
        for node_id in among:
            node = self.nodes[node_id]
            core = node.core
            if core is not None and core.follower is not None and core.follower.leader in among and not node.session:
                yield self.open(node_id)
            yield self.flush(node_id) | self.outcomes(node_id)
            for other in among:
                yield self.push(node_id, other)
        channels = dict.fromkeys(self.channel_of(message) for message in self.messages)
        for sender, to, back in channels:
            if sender in among and to in among:
                yield self.deliver(sender, to, back)

    def describe(self) -> str:
        info = self.info
        leader = NAMES[info.leader] if info.leader != NO_LEADER else "none"
        isr, elr = ("".join(NAMES[node_id] for node_id in members) for members in (info.isr, info.elr))
        return f"leader {leader}, leader epoch {info.leader_epoch}, ISR {isr or '-'}, ELR {elr or '-'}"
