"""Deliberate bugs of consumer groups, for real nodes."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from penstock.node.group import coordinator, deciding
from penstock.node.group.deciding import Decision
from penstock.node.group.membership import GroupCore
from penstock.node.group.offsets import OffsetTable
from penstock.node.group.session import Session
from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError
from penstock.raft.image import GroupPartition, MemberInfo
from tests.chaos.broken_dropping import Bug, put

NEVER_MS = 1 << 60


def _gives_up_at_once(decision: Decision) -> None:
    for member_id, member in list(decision.members.items()):
        kept = {partition: granted for partition, granted in member.owned.items() if partition in member.target}
        decision.members[member_id] = replace(member, owned=kept)


def _anybody_commits(
    self: GroupCore, member_id: str, generation: int, partitions: Iterable[GroupPartition]
) -> list[PenstockError | None]:
    del self, member_id, generation
    return [None for _ in partitions]


async def _loads_nothing(partition: Partition, leader_epoch: int) -> OffsetTable:
    del partition, leader_epoch
    return OffsetTable()


def _never_ends(self: Session, member: MemberInfo) -> int:
    del self, member
    return NEVER_MS


def _replaces(owner: object, name: str, value: object) -> Callable[[], AbstractContextManager[None]]:
    return partial(put, owner, name, value)


BUGS: Mapping[str, Bug] = {
    "granted before it is released": Bug(
        "who is to give a partition up has it no more, for the coordinator, before it knows (rule 21)",
        _replaces(deciding, "_give_up", _gives_up_at_once),
    ),
    "anybody commits": Bug(
        "commits of an old generation, and of members that are gone, count (rule 20)",
        _replaces(GroupCore, "check_commit", _anybody_commits),
    ),
    "offsets forgotten at failover": Bug(
        "a new coordinator begins without what was committed", _replaces(coordinator, "load", _loads_nothing)
    ),
    "sessions never end": Bug("who is silent keeps what it has", _replaces(Session, "end_ms", _never_ends)),
}
