"""What people are told of a group beyond what the metadata has. Pure."""

from penstock.raft.image import GroupInfo
from penstock.v1 import group_service_pb2 as pb


def group_state(group: GroupInfo) -> "pb.GroupState.ValueType":
    """Return the state of a group, from the metadata of any node."""
    if not group.members:
        return pb.GROUP_STATE_EMPTY
    settled = all(member.owned.keys() == member.target for member in group.members.values())
    return pb.GROUP_STATE_STABLE if settled else pb.GROUP_STATE_REBALANCING
