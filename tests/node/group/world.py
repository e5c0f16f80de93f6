"""A group, its coordinators and its members, where everything that may go wrong does: driven by a seed, virtual time.

Real are the cores of the coordinators and the metadata's state machine. Coordinators that were deposed go on for a
while, on what they saw last; changes of the group are delayed, lost, repeated; streams break; members stand still,
crash, leave, come back; commits are in flight. After each step the invariants are checked:

    I1  no partition has two members that believe to have it (rule 21)
    I2  no coordinator proposes what the metadata must refuse
    I3  a partition is granted at most once a generation
    I4  nothing is taken from a member that is to keep it
    I5  a member that comes, or goes, moves no partition between those that stay
    I6  a commit that succeeds is of the owner at that time, or of nobody where there is none (rules 20, 31)
    I7  in the end every live member is in, and every partition has an owner who knows
"""

import random
from collections import deque
from dataclasses import dataclass, field

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.events import Assign, Assigned, End, Joined, Outputs
from penstock.node.group.joining import GroupLimits, Wish
from penstock.node.group.membership import Coordinator, GroupCore
from penstock.node.group.subscription import Catalog
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MetadataImage
from tests.node.group.client import Client
from tests.node.group.metadata import GROUP, alter, create, group_of, grow, leadership, metadata, move_leadership

WALL_MS = 1_700_000_000_000
GRACE_MS = 1_000
LIMITS = GroupLimits(takeover_grace_ms=GRACE_MS)
NODES = (1, 2, 3)
HARMLESS = {pb.REFUSAL_UNSPECIFIED, pb.REFUSAL_STALE, pb.REFUSAL_NOT_COORDINATOR}


class Violation(Exception):  # noqa: N818  it is what is looked for
    """An invariant does not hold; the message begins with its number."""


@dataclass
class Message:
    """On a stream: to the coordinator or to the member."""

    kind: str
    content: object = None
    sent_ms: int = 0


@dataclass
class Stream:
    """A Join stream. What was sent on it is lost when it breaks."""

    number: int
    client: Client
    member_id: str
    seat: "Seat"
    up: deque[Message] = field(default_factory=deque)
    down: deque[Message] = field(default_factory=deque)
    is_known: bool = False
    """The coordinator has met it, and does not know that it ended."""
    is_broken: bool = False


@dataclass
class Command:
    """A change on its way to the metadata."""

    seat: "Seat"
    change: pb.GroupChange
    result: pb.ChangeResult | None = None
    answered: bool = False


@dataclass
class Commit:
    """Sent outside of any stream, so that it may come late."""

    seat: "Seat"
    member_id: str
    generation: int
    partition: GroupPartition
    in_flight: bool = False


@dataclass
class Beat:
    """A heartbeat outside of the stream, or its acknowledgement on the way back."""

    seat: "Seat"
    client: Client
    member_id: str
    sequence: int
    polls: int
    acknowledged: bool = False


@dataclass
class Seat:
    """A coordinator in one leader epoch.

    `ends_ms`: from then on it knows that it may be deposed, and acknowledges nothing; it may decide for longer.
    """

    place: tuple[int, int]
    core: GroupCore
    ends_ms: int | None = None
    over: bool = False
    paused_ms: int | None = None
    """Since when it stands still."""
    image: MetadataImage | None = None


class GroupWorld:
    """Everything, and what may happen to it: one method a step. Only the schedule draws lots."""

    core_type: type[GroupCore] = GroupCore
    client_type: type[Client] = Client

    def __init__(self) -> None:
        self.metadata = metadata(t=4, u=2)
        self.now_ms = 10_000
        self.clients: list[Client] = []
        self.streams: dict[int, Stream] = {}
        self.commands: list[Command] = []
        self.commits: list[Commit] = []
        self.beats: list[Beat] = []
        self.seats: list[Seat] = []
        self.grants: set[tuple[GroupPartition, int]] = set()
        self.commits_done = 0
        self.trace: list[str] = []
        self._numbers = 0
        self._topics = 1
        self._open_seat()

    def note(self, *what: object) -> None:
        """Tell what happens."""
        self.trace.append(f"{self.now_ms} " + " ".join(map(str, what)))

    @property
    def group(self) -> GroupInfo:
        """As the metadata has it."""
        return group_of(self.metadata)

    @property
    def present(self) -> Seat | None:
        """Who coordinates, if it is ready."""
        place = leadership(self.metadata)
        return next((seat for seat in self.seats if seat.place == place and not seat.over), None)

    def catalog(self) -> Catalog:
        """Of the present topics."""
        return Catalog.of(self.metadata.image.topics.values())

    # ---- coordinators

    def _open_seat(self) -> None:
        place = leadership(self.metadata)
        core = self.core_type(self.group, Coordinator(*place), LIMITS, self.catalog(), self.now_ms)
        self.seats.append(Seat(place, core, image=self.metadata.image))

    def elect(self, node_id: int, blind_ms: int, fates: random.Random) -> None:
        """Another leadership; who led before serves for `blind_ms`. What it has in flight is in the log, or not."""
        former = self.present
        place = move_leadership(self.metadata, node_id)
        self.note("elect", place, "former blind for", blind_ms)
        if former is not None:
            former.ends_ms = self.now_ms + blind_ms
            for commit in [commit for commit in self.commits if commit.seat is former and commit.in_flight]:
                if fates.random() < 0.5:
                    self._committed(commit)
                self.commits.remove(commit)

    def load(self) -> None:
        """The new coordinator has read the offsets."""
        if self.present is None:
            self._open_seat()

    def close(self, seat: Seat) -> None:
        """It knows that it coordinates no more."""
        self.note("close", seat.place)
        seat.over = True
        error = PenstockError(Reason.NOT_COORDINATOR, "another")
        for stream in [stream for stream in self.streams.values() if stream.seat is seat]:
            stream.down.append(Message("end", error))
            stream.is_known = False
        self.seats.remove(seat)
        self.commits = [commit for commit in self.commits if commit.seat is not seat]

    def _is_cut_off(self, seat: Seat) -> bool:
        return seat.ends_ms is not None and self.now_ms >= seat.ends_ms

    def show(self, seat: Seat) -> None:
        """It sees the metadata as they are."""
        if seat.paused_ms is not None:
            return
        if leadership(self.metadata) != seat.place:
            self.close(seat)
            return
        former, seat.image = seat.image, self.metadata.image
        if former is None or former.topics is not seat.image.topics:
            seat.core.on_catalog(self.catalog())
        group = self.metadata.image.groups.get(GROUP)
        if group is not seat.core.group and (group is not None or seat.core.exists):
            self.perform(seat, seat.core.on_group(group, self.now_ms))

    def tick(self, seat: Seat) -> None:
        """Its time passes."""
        if seat.paused_ms is None:
            self.perform(seat, seat.core.tick(self.now_ms))

    def pause(self, seat: Seat) -> None:
        """Its process stands still."""
        if seat.paused_ms is None:
            self.note("pause", seat.place)
            seat.paused_ms = self.now_ms

    def resume(self, seat: Seat) -> None:
        """It goes on, and notices."""
        if seat.paused_ms is not None:
            self.note("resume", seat.place)
            seat.core.on_pause(self.now_ms - seat.paused_ms)
            seat.paused_ms = None

    def propose(self, seat: Seat) -> None:
        """Send what it wants to change."""
        if seat.paused_ms is not None:
            return
        change = seat.core.decide(self.now_ms, WALL_MS + self.now_ms)
        if change is not None:
            self.note("propose", seat.place, change.cause, [put.member_id for put in change.put], list(change.removed))
            self.commands.append(Command(seat, change))

    def apply(self, command: Command) -> None:
        """The command reaches the metadata, for the first time or again."""
        before = self.group
        (command_result,) = alter(self.metadata, [command.change])
        if command.result is None:
            command.result = command_result
        if command_result.refusal not in HARMLESS:
            raise Violation(f"I2 refused: {command_result.detail}")
        self.note("apply", command.seat.place, command_result.detail)
        if self.group is not before:
            self._check_step(before, self.group)

    def answer(self, command: Command, *, lost: bool) -> None:
        """Its answer reaches the coordinator, or a timeout does."""
        if command.answered or (command.result is None and not lost):
            return
        command.answered = True
        self.note("answer", command.seat.place, "lost" if lost else "")
        if not command.seat.over:
            result = None if lost else command.result
            self.perform(command.seat, command.seat.core.on_answer(result, self.now_ms))

    def perform(self, seat: Seat, outputs: Outputs) -> None:
        """What the shell does."""
        for output in outputs:
            stream = self.streams.get(output.stream)
            if stream is None or not stream.is_known:
                continue
            if isinstance(output, Joined):
                stream.down.append(Message("joined", output.generation))
            elif isinstance(output, Assign):
                assigned = seat.core.assignment(stream.member_id, self.now_ms)
                if assigned is not None:
                    stream.down.append(Message("assigned", assigned))
            elif isinstance(output, End):
                stream.down.append(Message("end", output.error))
                stream.is_known = False

    # ---- streams

    def connect(self, client: Client, seat: Seat) -> None:
        """Begin a stream with a JoinStart."""
        self._numbers += 1
        stream = Stream(self._numbers, client, client.member_id, seat)
        self.streams[stream.number] = stream
        client.stream, client.is_joined, client.left = stream.number, False, False
        stream.up.append(Message("start", client.wish(), self.now_ms))
        self.note("connect", client.member_id, client.generation, "to", seat.place, "stream", stream.number)

    def break_stream(self, stream: Stream) -> None:
        """What is under way on it is lost; the member knows, the coordinator will."""
        self.note("break", stream.number)
        stream.is_broken = True
        stream.up.clear()
        stream.down.clear()
        if stream.client.stream == stream.number:
            stream.client.on_end(None, self.now_ms)

    def notice(self, stream: Stream) -> None:
        """The coordinator learns that a stream is broken."""
        if stream.is_broken:
            if stream.is_known and not stream.seat.over:
                stream.seat.core.on_stream_gone(stream.member_id, stream.number)
            del self.streams[stream.number]

    def deliver_up(self, stream: Stream) -> None:
        """The coordinator reads one message."""
        seat = stream.seat
        if not stream.up or seat.paused_ms is not None:
            return
        message = stream.up.popleft()
        if message.kind != "start" and not stream.is_known:
            return
        if seat.over or self._is_cut_off(seat):
            stream.is_known = False
            stream.down.append(Message("end", PenstockError(Reason.NOT_COORDINATOR, "another")))
            return
        try:
            self._take(stream, message)
        except PenstockError as error:
            stream.down.append(Message("end", error))
            if stream.is_known:
                stream.is_known = False
                seat.core.on_stream_gone(stream.member_id, stream.number)

    def _take(self, stream: Stream, message: Message) -> None:
        core, member_id, content = stream.seat.core, stream.member_id, message.content
        self.note("take", message.kind, member_id, "at", stream.seat.place)
        if message.kind == "start":
            assert isinstance(content, Wish)
            outputs = core.on_join(content, stream.number, self.now_ms)
            stream.is_known = True
            stream.down.append(Message("start sent", message.sent_ms))
            self.perform(stream.seat, outputs)
        elif message.kind == "beat":
            assert isinstance(content, tuple)
            sequence, polls = content
            core.on_heartbeat(member_id, polls, self.now_ms)
            stream.down.append(Message("ack", sequence))
        elif message.kind == "release":
            assert isinstance(content, tuple)
            core.on_release(member_id, *content)
        else:
            self.perform(stream.seat, core.on_leave(member_id, "", self.now_ms, returning=bool(content)))

    def deliver_down(self, stream: Stream) -> None:
        """The member reads one message."""
        client = stream.client
        if not stream.down or not client.alive or self.now_ms < client.paused_until_ms:
            return
        client.expire(self.now_ms)
        message = stream.down.popleft()
        is_present = client.stream == stream.number
        if message.kind == "start sent":
            stream.__dict__["start_ms"] = message.content
        elif message.kind == "end":
            self.streams.pop(stream.number, None)
            if is_present:
                assert message.content is None or isinstance(message.content, PenstockError)
                self.note("ended", stream.member_id, message.content)
                client.on_end(message.content, self.now_ms)
        elif is_present and not client.left:
            self._tell(client, stream, message)

    def _tell(self, client: Client, stream: Stream, message: Message) -> None:
        self.note("tell", client.member_id, message.kind, message.content)
        if message.kind == "joined":
            assert isinstance(message.content, int)
            client.on_joined(message.content, stream.__dict__["start_ms"])
        elif message.kind == "ack":
            assert isinstance(message.content, int)
            client.on_ack(message.content)
        elif message.kind == "assigned":
            assert isinstance(message.content, Assigned)
            lost = [p for p in client.on_assigned(message.content) if p.topic_id in self.metadata.image.topics]
            if lost:
                raise Violation(f"I4 {client.member_id} is told nothing of {lost}")

    # ---- members

    def add_client(self, client: Client) -> None:
        """A process starts."""
        client.polled_ms = self.now_ms
        self.clients.append(client)

    def beat(self, client: Client, *, apart: bool) -> None:
        """Send a heartbeat, on the stream or outside of it."""
        client.sequence += 1
        client.sent[client.sequence] = client.beat_ms = self.now_ms
        stream = self.streams.get(client.stream or 0)
        if stream is not None and not stream.is_broken and not apart:
            stream.up.append(Message("beat", (client.sequence, client.polls)))
        elif apart and self.seats:
            seat = stream.seat if stream is not None else self.seats[-1]
            self.beats.append(Beat(seat, client, client.member_id, client.sequence, client.polls))

    def carry_beat(self, beat: Beat) -> None:
        """A heartbeat outside of the stream gets there, or its answer back."""
        if beat.acknowledged:
            self.beats.remove(beat)
            if beat.client.member_id == beat.member_id and beat.client.alive:
                beat.client.on_ack(beat.sequence)
            return
        if beat.seat.paused_ms is not None:
            return
        if beat.seat.over or self._is_cut_off(beat.seat):
            self.beats.remove(beat)
            return
        try:
            beat.seat.core.on_heartbeat(beat.member_id, beat.polls, self.now_ms)
            beat.acknowledged = True
        except PenstockError:
            self.beats.remove(beat)
            if beat.client.member_id == beat.member_id and beat.client.is_joined:
                beat.client.begin_anew()

    def poll(self, client: Client) -> None:
        """The application asks for records."""
        client.expire(self.now_ms)
        client.polls += 1
        client.polled_ms = self.now_ms

    def release(self, client: Client) -> None:
        """Give up what is to be given up."""
        client.expire(self.now_ms)
        stream = self.streams.get(client.stream or 0)
        if stream is None or stream.is_broken or not client.is_joined:
            return
        for partition, generation in client.release().items():
            stream.up.append(Message("release", (generation, [partition])))

    def leave(self, client: Client, *, returning: bool) -> None:
        """Stop in order."""
        stream = self.streams.get(client.stream or 0)
        if stream is not None and not stream.is_broken and client.is_joined:
            client.lose_all()
            client.left = True
            stream.up.append(Message("leave", returning))

    def crash(self, client: Client) -> None:
        """The process is gone; its streams break sooner or later."""
        self.note("crash", client.member_id)
        client.alive = False
        for stream in list(self.streams.values()):
            if stream.client is client:
                self.break_stream(stream)

    def restart(self, client: Client) -> None:
        """Another process in its place."""
        self.note("restart", client.member_id)
        client.begin_anew()
        client.alive, client.left = True, False
        client.polled_ms = client.retry_ms = self.now_ms

    def send_commit(self, client: Client, partition: GroupPartition) -> None:
        """Commit what was read."""
        if client.believes(self.now_ms) and self.seats:
            self.commits.append(Commit(self.seats[-1], client.member_id, client.generation, partition))

    def send_bare_commit(self, partition: GroupPartition) -> None:
        """Somebody sets an offset who is no member."""
        if self.seats:
            self.commits.append(Commit(self.seats[-1], "", 0, partition))

    def carry_commit(self, commit: Commit) -> None:
        """A commit gets to the coordinator, or it becomes durable."""
        if commit.seat.paused_ms is not None or commit not in self.commits:
            return
        if not commit.in_flight:
            (error,) = commit.seat.core.check_commit(commit.member_id, commit.generation, [commit.partition])
            if error is not None:
                self.commits.remove(commit)
                return
            commit.in_flight = True
            commit.seat.core.commit_began([commit.partition])
            return
        if commit.seat is not self.present:
            return  # it can get no high watermark any more; what became of it was found out by the election
        self._committed(commit)
        self.commits.remove(commit)
        commit.seat.core.commit_ended([commit.partition])

    def _committed(self, commit: Commit) -> None:
        self.note("committed", commit.member_id, commit.generation, commit.partition)
        self.commits_done += 1
        owners = {
            member_id: member.owned[commit.partition]
            for member_id, member in self.group.members.items()
            if commit.partition in member.owned
        }
        if not commit.member_id:
            if owners:
                raise Violation(f"I6 {commit.partition} is owned by {owners}, and nobody commits for it")
            return
        granted = owners.get(commit.member_id)
        if commit.partition.topic_id not in self.metadata.image.topics:
            return
        if granted is None or commit.generation < granted:
            raise Violation(f"I6 {commit.member_id} commits {commit.partition} in {commit.generation}: {owners}")

    # ---- topics

    def change_topics(self) -> None:
        """Partitions are added, or the second topic is deleted and comes back as another."""
        image = self.metadata.image
        self.note("topics change")
        if "u" in image.topic_ids and self._topics % 2:
            self.metadata.do(delete_topic=pb.DeleteTopic(topic_id=image.topic_ids["u"]))
        elif "u" not in image.topic_ids:
            create(self.metadata, "u", 2, topic_id=f"u-{self._topics}")
        elif len(self.metadata.topic("t").partitions) < 8:
            grow(self.metadata, "t", len(self.metadata.topic("t").partitions) + 1)
        self._topics += 1

    # ---- invariants

    def check(self) -> None:
        """I1."""
        readers: dict[GroupPartition, str] = {}
        for client in self.clients:
            for partition in client.believes(self.now_ms):
                if partition.topic_id not in self.metadata.image.topics:
                    continue
                other = readers.setdefault(partition, client.member_id)
                if other != client.member_id:
                    raise Violation(f"I1 {partition} is read by {other} and by {client.member_id}")

    def _check_step(self, before: GroupInfo, after: GroupInfo) -> None:
        for member_id, member in after.members.items():
            former = before.members.get(member_id)
            owned = former.owned if former is not None else {}
            for partition, granted in member.owned.items():
                if owned.get(partition) != granted:
                    if (partition, granted) in self.grants:
                        raise Violation(f"I3 {partition} is granted twice in generation {granted}")
                    self.grants.add((partition, granted))
            if former is not None:
                kept = former.target & member.target & former.owned.keys()
                for partition in kept:
                    if member.owned.get(partition) != former.owned[partition]:
                        self._check_given_up(member_id, partition, former.owned[partition])
        if after.generation > before.generation:
            self._check_movement(before, after)

    def _check_given_up(self, member_id: str, partition: GroupPartition, granted: int) -> None:
        client = next((client for client in self.clients if client.member_id == member_id), None)
        if client is None or partition.topic_id not in self.metadata.image.topics:
            return
        if client.alive and client.released.get(partition, 0) <= granted:
            raise Violation(f"I4 {partition} is taken from {member_id}, which is to keep it")

    def _check_movement(self, before: GroupInfo, after: GroupInfo) -> None:
        members = [*before.members.values(), *after.members.values()]
        if len({(member.topics, member.pattern) for member in members}) != 1:
            return
        targets = [sum(len(m.target) for m in group.members.values()) for group in (before, after)]
        topics = [{p.topic_id for m in group.members.values() for p in m.target} for group in (before, after)]
        if targets[0] != targets[1] or topics[0] != topics[1]:
            return
        settled = {member_id for member_id, member in before.members.items() if member.target}
        for member_id, member in after.members.items():
            former = before.members.get(member_id)
            if former is None or member_id not in settled:
                continue
            for partition in member.target - former.target:
                holder = next((m for m in before.members.values() if partition in m.target), None)
                if (
                    holder is not None
                    and after.members.get(holder.member_id, holder).target
                    and (holder.member_id in after.members)
                ):
                    raise Violation(f"I5 {partition} moves from {holder.member_id} to {member_id}, and both stay")

    def check_end(self) -> None:
        """I7, after everything had its time."""
        alive = {client.member_id: client for client in self.clients if client.alive and not client.left}
        group = self.group
        missing = alive.keys() - group.members.keys()
        if missing or group.members.keys() - alive.keys():
            raise Violation(f"I7 members are {sorted(group.members)}, alive are {sorted(alive)}")
        for member_id, member in group.members.items():
            believed = set(alive[member_id].believes(self.now_ms))
            if not believed == member.owned.keys() == member.target:
                text = f"has {sorted(believed)}, owns {sorted(member.owned)}, target {sorted(member.target)}"
                raise Violation(f"I7 {member_id} {text}")
        wanted = set()
        catalog = self.catalog()
        for client in alive.values():
            for topic_id in client.wish().subscribed.selected(catalog):
                wanted |= {GroupPartition(topic_id, index) for index in range(catalog.counts[topic_id])}
        owned = set().union(*(member.owned for member in group.members.values()))
        if wanted != owned:
            raise Violation(f"I7 {sorted(wanted ^ owned)} have no owner, or one too many")
