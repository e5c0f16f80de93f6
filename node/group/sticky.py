"""The sticky assignor: evenly, and moving as little as that allows. Pure.

Where all members subscribe to the same topics, shares differ by one at most, and no assignment that does so moves
fewer partitions. Where they do not, no partition could go to another member that subscribes to its topic and has two
fewer; who has a partition keeps it unless that demands otherwise.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heapreplace
from itertools import groupby

from penstock.raft.image import GroupPartition

Held = dict[str, set[GroupPartition]]
Previous = Mapping[str, frozenset[GroupPartition]]


def sticky(
    subscribers: Mapping[bytes, Sequence[str]],
    members: Sequence[str],
    partitions: Mapping[bytes, int],
    previous: Previous,
) -> Held:
    """Return what each of `members` is to have. `subscribers`: by topic, each at least one, in order."""
    held, free = _kept(subscribers, members, partitions, previous)
    if all(len(those) == len(members) for those in subscribers.values()):
        _level(held, free)
    else:
        _balance(held, free, subscribers)
    return held


def _kept(
    subscribers: Mapping[bytes, Sequence[str]],
    members: Sequence[str],
    partitions: Mapping[bytes, int],
    previous: Previous,
) -> tuple[Held, list[GroupPartition]]:
    """What members had and may have still, and what nobody has, in order."""
    free = {GroupPartition(topic_id, index) for topic_id in subscribers for index in range(partitions[topic_id])}
    eligible = {topic_id: frozenset(those) for topic_id, those in subscribers.items()}
    held: Held = {}
    for member in members:
        kept = {p for p in previous.get(member, ()) if p in free and member in eligible[p.topic_id]}
        free -= kept
        held[member] = kept
    return held, sorted(free)


def _level(held: Held, free: list[GroupPartition]) -> None:
    """Everybody may have everything: quotas that differ by one, the greater ones for those who have most already."""
    if not held:
        return
    each, more = divmod(len(free) + sum(map(len, held.values())), len(held))
    order = sorted(held, key=lambda member: -len(held[member]))  # stable: the members' order decides between equals
    quotas = {member: each + (place < more) for place, member in enumerate(order)}
    for member, kept in held.items():
        for partition in sorted(kept)[quotas[member] :]:
            kept.remove(partition)
            free.append(partition)
    free.sort(reverse=True)
    needy = [member for member in held if len(held[member]) < quotas[member]]
    while free:  # in turn, so that the partitions of one topic spread
        for member in needy:
            if free:
                held[member].add(free.pop())
        needy = [member for member in needy if len(held[member]) < quotas[member]]


def _balance(held: Held, free: list[GroupPartition], subscribers: Mapping[bytes, Sequence[str]]) -> None:
    """Deal what is free to who has least, the topics of the fewest subscribers first; then even out."""
    in_turn = sorted(free, key=lambda p: (len(subscribers[p.topic_id]), p))
    for topic_id, partitions in groupby(in_turn, key=lambda p: p.topic_id):
        _deal(partitions, subscribers[topic_id], held)
    of_topic = {member: Counter(p.topic_id for p in those) for member, those in held.items()}
    fresh = set(free)
    moved = True
    while moved:  # every move makes the sum of squares of the loads smaller: it ends
        moved = False
        for topic_id, those in subscribers.items():
            moved = _even_out(topic_id, those, held, of_topic, fresh) or moved


def _deal(partitions: Iterable[GroupPartition], those: Sequence[str], held: Held) -> None:
    """Give each to who of those has least then, of equals to the first."""
    heap = [(len(held[member]), place, member) for place, member in enumerate(those)]
    heapify(heap)
    for partition in partitions:
        load, place, member = heap[0]
        held[member].add(partition)
        heapreplace(heap, (load + 1, place, member))


def _even_out(
    topic_id: bytes, those: Sequence[str], held: Held, of_topic: dict[str, Counter[bytes]], fresh: set[GroupPartition]
) -> bool:
    """Move partitions of one topic while a subscriber has two fewer than one who has some of it; whether any moved."""
    moved = False
    while True:
        holders = [member for member in those if of_topic[member][topic_id]]
        most = max(holders, key=lambda member: len(held[member]))
        least = min(those, key=lambda member: len(held[member]))
        if len(held[most]) - len(held[least]) < 2:
            return moved
        of_this = [p for p in held[most] if p.topic_id == topic_id]
        partition = min(of_this, key=lambda p: (p not in fresh, -p.partition))  # rather what it did not have before
        held[most].remove(partition)
        held[least].add(partition)
        of_topic[most][topic_id] -= 1
        of_topic[least][topic_id] += 1
        moved = True
