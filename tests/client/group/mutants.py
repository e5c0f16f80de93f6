"""Deliberate bugs of the member's core that the world of a group notices. (Others its own tests do.)"""

from typing import Any

from penstock.client.group.holds import Hold, Holds
from penstock.client.group.member import MemberCore
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
