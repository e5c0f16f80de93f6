"""How a group's partitions are shared out among its members. Pure.

Every partition of a topic that somebody subscribes to goes to exactly one member that subscribes to it. The same input
gives the same shares, on every node. Members are taken in the order of their keys.
"""

from collections.abc import Callable, Iterable, Mapping

from penstock.node.group.sticky import sticky
from penstock.raft.image import GroupPartition
from penstock.v1 import group_service_pb2 as pb

Subscriptions = Mapping[str, frozenset[bytes]]
"""Topic ids by member."""
Shares = dict[str, frozenset[GroupPartition]]
"""Partitions by member; every member is there."""


def assign(
    assignor: int,
    subscriptions: Subscriptions,
    partitions: Mapping[bytes, int],
    previous: Mapping[str, frozenset[GroupPartition]],
) -> Shares:
    """Return what each member is to have.

    `assignor`: v1.Assignor. `partitions`: how many each topic has; a topic that is not there has none. `previous`: what
    members had, for STICKY; a partition that two claim is the first one's.
    """
    return _ASSIGNORS[assignor](subscriptions, partitions, previous)


def chosen_assignor(wanted: Iterable[int]) -> int:
    """Return the assignor that most members want; of those wanted equally the first in the enum; STICKY by default."""
    votes: dict[int, int] = {}
    for assignor in wanted:
        if assignor in _ASSIGNORS:
            votes[assignor] = votes.get(assignor, 0) + 1
    return min(votes, key=lambda assignor: (-votes[assignor], assignor), default=pb.ASSIGNOR_STICKY)


def _range(
    subscriptions: Subscriptions, partitions: Mapping[bytes, int], previous: Mapping[str, frozenset[GroupPartition]]
) -> Shares:
    """Of each topic, runs of neighbours; the first members have one more where it does not divide."""
    del previous
    shares: dict[str, set[GroupPartition]] = {member: set() for member in subscriptions}
    for topic_id, members in _subscribers(subscriptions, partitions).items():
        each, more = divmod(partitions[topic_id], len(members))
        start = 0
        for place, member in enumerate(members):
            end = start + each + (place < more)
            shares[member].update(GroupPartition(topic_id, index) for index in range(start, end))
            start = end
    return _frozen(shares)


def _round_robin(
    subscriptions: Subscriptions, partitions: Mapping[bytes, int], previous: Mapping[str, frozenset[GroupPartition]]
) -> Shares:
    """All partitions in a row, dealt to the members in turn; who does not subscribe is passed over."""
    del previous
    members = sorted(subscriptions)
    shares: dict[str, set[GroupPartition]] = {member: set() for member in members}
    turn = 0
    for topic_id in sorted(_subscribers(subscriptions, partitions)):
        for index in range(partitions[topic_id]):
            while topic_id not in subscriptions[members[turn % len(members)]]:
                turn += 1
            shares[members[turn % len(members)]].add(GroupPartition(topic_id, index))
            turn += 1
    return _frozen(shares)


def _sticky(
    subscriptions: Subscriptions, partitions: Mapping[bytes, int], previous: Mapping[str, frozenset[GroupPartition]]
) -> Shares:
    return _frozen(sticky(_subscribers(subscriptions, partitions), sorted(subscriptions), partitions, previous))


def _subscribers(subscriptions: Subscriptions, partitions: Mapping[bytes, int]) -> dict[bytes, list[str]]:
    """Who subscribes to each topic that has partitions; both in order."""
    subscribers: dict[bytes, list[str]] = {}
    for member in sorted(subscriptions):
        for topic_id in subscriptions[member]:
            if partitions.get(topic_id):
                subscribers.setdefault(topic_id, []).append(member)
    return dict(sorted(subscribers.items()))


def _frozen(shares: Mapping[str, Iterable[GroupPartition]]) -> Shares:
    return {member: frozenset(share) for member, share in shares.items()}


_ASSIGNORS: dict[int, Callable[[Subscriptions, Mapping[bytes, int], Mapping[str, frozenset[GroupPartition]]], Shares]]
_ASSIGNORS = {pb.ASSIGNOR_STICKY: _sticky, pb.ASSIGNOR_RANGE: _range, pb.ASSIGNOR_ROUND_ROBIN: _round_robin}
