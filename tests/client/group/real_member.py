"""The real member's core in the place of the model's, in the world of a group and its real coordinators."""

from itertools import count
from typing import Any

from penstock.client.group.holds import HoldState
from penstock.client.group.member import MemberCore, Phase
from penstock.client.group.options import GroupConfig
from penstock.node.group.events import Assigned
from penstock.node.group.joining import Wish
from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb
from tests.node.group.client import Client, Held
from tests.node.group.world import GroupWorld

UNWATCHED_MS = 86_400_000


class RealMember(Client):
    """What the world asks of a member, answered by MemberCore. Times are the world's."""

    core_type: type[MemberCore] = MemberCore

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.apart: set[int] = set()
        """Heartbeats sent outside of the stream."""
        self._incarnations = count(1)
        self.begin_anew()

    @property
    def member_id(self) -> str:
        return self.core.member_id

    def believes(self, now_ms: int) -> list[GroupPartition]:
        if not self.alive or now_ms >= self.core.valid_until_ms:
            return []
        return [
            GroupPartition(*hold.key)
            for hold in self.core.holds
            if hold.state is HoldState.READ or now_ms < hold.deadline_ms
        ]

    def wish(self) -> Wish:
        """A stream begins."""
        if self.core.phase is Phase.RESTING:
            self.core.asked(self.now_ms)
        self.generation = self.core.open(self.now_ms).start.generation
        return super().wish()

    def begin_anew(self) -> None:
        topics = self.topics if self.topics else ()
        config = GroupConfig(
            "g",
            topics=topics,
            pattern=self.pattern or None,
            instance_id=self.instance_id or None,
            session_timeout_ms=self.session_ms,
            rebalance_timeout_ms=self.rebalance_ms,
            max_poll_interval_ms=self.poll_ms or UNWATCHED_MS,
        )
        self.core = self.core_type(config, lambda: f"c{self.number}.{next(self._incarnations)}", self.now_ms)
        self.released.clear()
        self.is_joined = self.must_rejoin = False
        self.stream = None
        self.polls = 0
        self._look()

    def lose_all(self) -> None:
        """It leaves."""
        self.core.leave("", returning=False)
        self._look()

    def on_joined(self, generation: int, sent_ms: int) -> None:
        del sent_ms  # the core knows
        joined = pb.MemberJoined(generation=generation)
        joined.session_timeout.FromMilliseconds(self.session_ms)
        joined.rebalance_timeout.FromMilliseconds(self.rebalance_ms)
        self.is_joined = True
        self._hear(pb.JoinResponse(joined=joined))

    def on_ack(self, sequence: int) -> None:
        if sequence in self.apart:
            self.core.acknowledged(self.sent[sequence])
            return
        self.core._sent[sequence] = self.sent[sequence]
        self._hear(pb.JoinResponse(heartbeat_ack=pb.HeartbeatAck(sequence=sequence)))

    def on_assigned(self, assigned: Assigned) -> list[GroupPartition]:
        message = pb.Assignment(generation=assigned.generation)
        message.release_within.FromMilliseconds(assigned.release_within_ms)
        for partition, granted in assigned.partitions:
            message.partitions.add(
                topic_id=partition.topic_id,
                topic=partition.topic_id.hex(),
                partition=partition.partition,
                granted_generation=granted,
            )
        for partition in assigned.revoked:
            message.revoked.add(topic_id=partition.topic_id, partition=partition.partition)
        before = list(self.held)
        self._hear(pb.JoinResponse(assignment=message))
        told = {partition for partition, _ in assigned.partitions} | set(assigned.revoked)
        return [partition for partition in before if partition not in told and not self.must_rejoin]

    def on_end(self, error: PenstockError | None, now_ms: int) -> None:
        self.now_ms = max(self.now_ms, now_ms)
        self.core.ended(error, self.now_ms)
        if self.core.phase is Phase.ENDED:  # the application is told, and starts again
            self.begin_anew()
        self.stream, self.is_joined, self.must_rejoin = None, False, False
        self.retry_ms = now_ms + 200
        self._look()

    def expire(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.core.tick(now_ms)
        self._look()
        self.must_rejoin = self.core.wants_new_stream or not self.core.wants_stream

    def release(self) -> dict[GroupPartition, int]:
        self.core.release(hold for hold in self.core.holds if hold.state is HoldState.REVOKED)
        self._look()
        owed, self.owed = self.owed, {}
        return owed

    def _hear(self, response: pb.JoinResponse) -> None:
        self.core.received(response, self.now_ms)
        self._look()

    def _look(self) -> None:
        """Show the world how the core stands, and keep what it wants to release. The world sends the heartbeats."""
        self.core.take_changes()
        self.core.take_error()
        for request in self.core.take_requests():
            release = request.release
            for partition in release.partitions:
                at = GroupPartition(partition.topic_id, partition.partition)
                self.owed[at] = self.released[at] = release.generation
        self.generation = self.core.generation
        self.held = {GroupPartition(*hold.key): Held(hold.granted_generation) for hold in self.core.holds}


class RealWorld(GroupWorld):
    """Everything real but the network and the clock."""

    client_type = RealMember

    def beat(self, client: Client, *, apart: bool) -> None:
        super().beat(client, apart=apart)
        assert isinstance(client, RealMember)
        if apart:
            client.apart.add(client.sequence)

    def poll(self, client: Client) -> None:
        super().poll(client)
        assert isinstance(client, RealMember)
        client.core.asked(self.now_ms)
        client._look()
