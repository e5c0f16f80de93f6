"""What a coordinator says, for tests of the member's core, and a core that hears it. Times are the test's."""

from itertools import count
from typing import Any

from penstock.client.group.member import MemberCore
from penstock.client.group.options import GroupConfig
from penstock.client.records import TopicPartition
from penstock.v1 import group_service_pb2 as pb

TOPIC = b"t" * 16
SESSION_MS, REBALANCE_MS, POLL_MS = 9_000, 30_000, 20_000


def partition(index: int) -> TopicPartition:
    return TopicPartition("orders", index)


def joined(generation: int = 1) -> pb.JoinResponse:
    response = pb.JoinResponse(joined=pb.MemberJoined(generation=generation))
    response.joined.session_timeout.FromMilliseconds(SESSION_MS)
    response.joined.rebalance_timeout.FromMilliseconds(REBALANCE_MS)
    response.joined.heartbeat_interval.FromMilliseconds(3_000)
    return response


def assignment(
    generation: int, read: dict[int, int], revoked: tuple[int, ...] = (), within_ms: int = REBALANCE_MS
) -> pb.JoinResponse:
    """`read`: generation in which each partition was granted."""
    assigned = pb.Assignment(generation=generation)
    for index, granted in read.items():
        assigned.partitions.add(topic_id=TOPIC, topic="orders", partition=index, granted_generation=granted)
    for index in revoked:
        assigned.revoked.add(topic_id=TOPIC, partition=index)
    assigned.release_within.FromMilliseconds(within_ms)
    return pb.JoinResponse(assignment=assigned)


def ack(sequence: int) -> pb.JoinResponse:
    return pb.JoinResponse(heartbeat_ack=pb.HeartbeatAck(sequence=sequence))


class Member:
    """A core, and what it said and did so far."""

    def __init__(self, now_ms: int = 0, **config: Any) -> None:
        ids = count(1)
        settings: dict[str, Any] = {
            "group": "g",
            "topics": "orders",
            "session_timeout_ms": SESSION_MS,
            "rebalance_timeout_ms": REBALANCE_MS,
            "max_poll_interval_ms": POLL_MS,
        }
        self.core = MemberCore(GroupConfig(**(settings | config)), lambda: f"m{next(ids)}", now_ms)
        self.changes: list[tuple[str, tuple[int, ...]]] = []

    def join(self, now_ms: int = 0, generation: int = 1, read: dict[int, int] | None = None) -> "Member":
        self.core.open(now_ms)
        self.hear(joined(generation), now_ms)
        if read is not None:
            self.hear(assignment(generation, read), now_ms)
        return self

    def hear(self, response: pb.JoinResponse, now_ms: int) -> None:
        self.core.received(response, now_ms)
        self.note()

    def tick(self, now_ms: int) -> None:
        self.core.tick(now_ms)
        self.note()

    def note(self) -> None:
        for change in self.core.take_changes():
            self.changes.append((change.kind, tuple(hold.partition.partition for hold in change.holds)))

    def said(self) -> list[tuple[str, Any]]:
        requests = self.core.take_requests()
        kinds = [(str(request.WhichOneof("request")), request) for request in requests]
        return [(kind, getattr(request, kind)) for kind, request in kinds]

    def beat(self, now_ms: int) -> int:
        """Send the heartbeat that is due; gives its sequence."""
        self.tick(now_ms)
        (sequence,) = [said.sequence for kind, said in self.said() if kind == "heartbeat"]
        return int(sequence)

    @property
    def held(self) -> set[int]:
        return {hold.partition.partition for hold in self.core.holds}
