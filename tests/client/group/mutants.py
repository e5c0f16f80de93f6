"""Deliberate bugs of the member's core that the world of a group notices. (Others its own tests do.)"""

from typing import Any

from penstock.client.group.holds import Hold, Holds
from penstock.client.group.member import MemberCore
from penstock.v1 import group_service_pb2 as pb
from tests.client.group.real_member import RealMember, RealWorld


def world_of(core: type[MemberCore]) -> RealWorld:
    """Give a world whose members have this core."""
    member = type("Member", (RealMember,), {"core_type": core})
    world: RealWorld = type("World", (RealWorld,), {"client_type": member})()
    return world


class _Keeping(Holds):
    @staticmethod
    def _stays(hold: Hold, key: Any, read: Any, revoked: Any) -> bool:
        return True


class KeepsWhatIsNotNamed(MemberCore):
    """What an assignment does not name is not lost."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.holds = _Keeping()


class BelievesFromTheAnswer(MemberCore):
    """A session counts from answers, not from the sending of what they answer (rule 21)."""

    def received(self, response: pb.JoinResponse, now_ms: int) -> None:
        super().received(response, now_ms)
        if response.WhichOneof("response") in {"joined", "heartbeat_ack"}:
            self._acknowledged_here(now_ms)
