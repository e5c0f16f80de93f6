"""One group's core with real metadata beside it, driven step by step in virtual time."""

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.group.events import Assign, End, Joined, Output
from penstock.node.group.joining import GroupLimits
from penstock.node.group.membership import Coordinator, GroupCore
from penstock.node.group.subscription import Catalog
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupInfo, GroupPartition, MemberInfo
from tests.node.group.metadata import GROUP, LIMITS, alter, group_of, leadership, metadata, move_leadership, wish
from tests.raft.metadata_world import World

WALL_MS = 1_700_000_000_000
SESSION_MS = 10_000


class CoreDriver:
    """Proposals are applied at once by `settle`, which goes on until nothing is left to propose."""

    def __init__(self, limits: GroupLimits = LIMITS, **topics: int) -> None:
        self.world: World = metadata(**(topics or {"t": 4}))
        self.now_ms = 1_000
        self.limits = limits
        self.outputs: list[Output] = []
        self.refusals: list[int] = []
        self.core = self.new_core()
        self._stream = 0

    def new_core(self) -> GroupCore:
        """A coordinator that takes over now."""
        catalog = Catalog.of(self.world.image.topics.values())
        return GroupCore(group_of(self.world), Coordinator(*leadership(self.world)), self.limits, catalog, self.now_ms)

    def take_over(self, node_id: int) -> GroupCore:
        """Another node coordinates from now on; the former core, which does not know."""
        former = self.core
        move_leadership(self.world, node_id)
        self.core = self.new_core()
        return former

    # ---- members

    def join(self, member_id: str, *topics: str, generation: int = 0, **fields: object) -> int:
        """Begin a stream; its number."""
        self._stream += 1
        wanted = wish(member_id, *topics, generation=generation, **fields)
        self.outputs += self.core.on_join(wanted, self._stream, self.now_ms)
        return self._stream

    def joined(self, *member_ids: str) -> None:
        """Members that have joined one after the other, and are settled."""
        for member_id in member_ids:
            self.join(member_id)
            self.settle()
            self.release_all()

    def beat(self, *member_ids: str, polls: int = 0) -> None:
        """Heartbeats."""
        for member_id in member_ids:
            self.core.on_heartbeat(member_id, polls, self.now_ms)

    def release_all(self) -> None:
        """Everybody gives up what it is to give up, and what that brings is done."""
        for member_id in list(self.group.members):
            assigned = self.core.assignment(member_id, self.now_ms)
            if assigned is not None and assigned.revoked:
                self.core.on_release(member_id, assigned.generation, assigned.revoked)
        self.settle()

    def pass_time(self, time_ms: int, *alive: str, polls: int = 0) -> None:
        """Let time pass in steps of a second at most, in which those alive send heartbeats."""
        end_ms = self.now_ms + time_ms
        while self.now_ms < end_ms:
            self.now_ms = min(end_ms, self.now_ms + 1_000)
            self.beat(*alive, polls=polls)
            self.outputs += self.core.tick(self.now_ms)
            self.settle()

    # ---- metadata

    @property
    def group(self) -> GroupInfo:
        """As the metadata has it."""
        return group_of(self.world)

    def member(self, member_id: str) -> MemberInfo:
        """As the metadata has it."""
        return self.group.members[member_id]

    def owned(self, member_id: str) -> frozenset[GroupPartition]:
        """What a member owns."""
        return frozenset(self.member(member_id).owned)

    def to_read(self, member_id: str) -> frozenset[GroupPartition]:
        """What a member is told to read."""
        assigned = self.core.assignment(member_id, self.now_ms)
        assert assigned is not None
        return frozenset(partition for partition, _ in assigned.partitions)

    def decide(self) -> pb.GroupChange | None:
        """What the core wants to propose now."""
        return self.core.decide(self.now_ms, WALL_MS + self.now_ms)

    def answer(self, change: pb.GroupChange) -> pb.ChangeResult:
        """Apply a change and show what it did."""
        (result,) = alter(self.world, [change])
        self.refusals.append(result.refusal)
        self.show()
        self.outputs += self.core.on_answer(result, self.now_ms)
        return result

    def show(self) -> None:
        """Show the core the metadata as they are."""
        self.core.on_catalog(Catalog.of(self.world.image.topics.values()))
        group = self.world.image.groups.get(GROUP)
        if group is not self.core.group and (group is not None or self.core.exists):
            self.outputs += self.core.on_group(group, self.now_ms)

    def settle(self) -> list[pb.GroupChange]:
        """Apply whatever is proposed until nothing is; what that was."""
        changes = []
        while (change := self.decide()) is not None:
            assert not self.answer(change).refusal, self.world
            changes.append(change)
            assert len(changes) < 20
        return changes

    # ---- what was said to streams

    def ended(self, stream: int) -> PenstockError | None:
        """The error that a stream ended with; it must have ended."""
        (end,) = [output for output in self.outputs if isinstance(output, End) and output.stream == stream]
        return end.error

    def is_ended(self, stream: int) -> bool:
        """Whether a stream has ended."""
        return any(isinstance(output, End) and output.stream == stream for output in self.outputs)

    def is_joined(self, stream: int) -> bool:
        """Whether its JoinStart was answered."""
        return any(isinstance(output, Joined) and output.stream == stream for output in self.outputs)

    def take_assigned(self) -> list[int]:
        """Streams that were told of an assignment since this was asked last."""
        streams = [output.stream for output in self.outputs if isinstance(output, Assign)]
        self.outputs = [output for output in self.outputs if not isinstance(output, Assign)]
        return streams


def reason_of(error: PenstockError | None) -> Reason | None:
    return None if error is None else error.reason


def commit_reasons(
    driver: CoreDriver, member_id: str, generation: int, *partitions: GroupPartition
) -> list[Reason | None]:
    return [reason_of(error) for error in driver.core.check_commit(member_id, generation, partitions)]
