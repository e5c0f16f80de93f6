"""Consumer groups, broken: the coordinator, its log, and what the metadata state machine checks of groups."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from penstock.node.group import commits, deciding
from penstock.node.group.commits import OffsetsLog
from penstock.node.group.deciding import Decision, Facts, decide
from penstock.node.group.events import Assigned
from penstock.node.group.membership import GroupCore
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.session import Condemned, Session
from penstock.node.partition import AppendRequest, Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import GroupPartition, MemberInfo
from penstock.v1 import common_pb2

# ---- who has what


def give_up_unasked(decision: Decision) -> None:
    """Rule 21: what is to be given up is taken at once."""
    for member_id, member in list(decision.members.items()):
        kept = {partition: granted for partition, granted in member.owned.items() if partition in member.target}
        decision.members[member_id] = replace(member, owned=kept)


_share_out = deciding._share_out


def share_out_and_take(decision: Decision) -> None:
    """Rule 21: what gets another target changes its owner in the same change."""
    _share_out(decision)
    give_up_unasked(decision)


def condemn_at_once(self: Session, member: MemberInfo, cause: str, reason: Reason = Reason.UNKNOWN_MEMBER) -> None:
    """Rule 21: who cannot stay is taken out at once, though it may not know yet."""
    del member
    self.condemned = self.condemned or Condemned(cause, 0, reason)


def half_a_session(self: Session, member: MemberInfo) -> int:
    """Rule 21: a session is shorter than its member was told."""
    return self.heard_ms + member.session_timeout_ms // 2


_begin = GroupCore.__init__


def no_new_sessions(self: GroupCore, *arguments: Any) -> None:
    """Rule 31: a new coordinator takes it that members were silent for nearly as long as they may be."""
    _begin(self, *arguments)
    now_ms = arguments[-1]
    for member_id, session in self.sessions.items():
        session.heard_ms = now_ms + 50 - self.group.members[member_id].session_timeout_ms


_heartbeat = GroupCore.on_heartbeat


def hear_the_condemned(self: GroupCore, member_id: str, polls: int, now_ms: int) -> None:
    """Rule 21: a member that is to be taken out is told that it lives."""
    if member_id not in self.sessions:
        _heartbeat(self, member_id, polls, now_ms)


_assignment = GroupCore.assignment


def assign_the_target(self: GroupCore, member_id: str, now_ms: int) -> Assigned | None:
    """Rule 21: a member is told that it has what it is to have."""
    assigned = _assignment(self, member_id, now_ms)
    if assigned is None:
        return None
    generation = self.group.generation
    has = dict(assigned.partitions)
    target = sorted(self.group.members[member_id].target)
    return assigned._replace(partitions=[(one, has.get(one, generation)) for one in target])


def decide_whatever_is_in_flight(facts: Facts) -> Decision:
    """Rule 31: a partition changes its owner though a commit for it is in flight."""
    return decide(replace(facts, committing=()))


# ---- what counts


def every_commit(
    self: GroupCore, member_id: str, generation: int, partitions: Iterable[GroupPartition]
) -> list[PenstockError | None]:
    """Rule 20: a commit counts whoever sends it, of whatever generation."""
    del self, member_id, generation
    return [None for _ in partitions]


_append_of = commits.append_of


def append_for_the_leader(*arguments: Any) -> AppendRequest:
    """A commit is answered when the leader has it."""
    return _append_of(*arguments)._replace(acks=common_pb2.ACKS_LEADER)


_next = OffsetsLog._next


def apply_first(self: OffsetsLog) -> None:
    """What is committed is shown before it is."""
    table = self._table
    for work in self._queue:
        for record in work.make(commits._Batch(table)):
            table.apply(record)
    _next(self)


# ---- a new coordinator


async def any_end(partition: Partition, leader_epoch: int) -> int:
    """Rule 12: a new coordinator reads up to the high watermark that it knows, and serves."""
    del leader_epoch
    return partition.high_watermark


async def load_nothing(partition: Partition, leader_epoch: int) -> OffsetTable:
    """Rule 17: a new coordinator knows of no commit of the former one."""
    del partition, leader_epoch
    return OffsetTable()
