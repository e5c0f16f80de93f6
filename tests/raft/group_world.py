"""Consumer groups in a metadata image: what coordinators ask for, be it right or wrong."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.election import choose
from penstock.raft.group_records import member_record
from penstock.raft.image import OFFSETS_TOPIC, GroupInfo, GroupPartition, MemberInfo
from tests.raft.metadata_world import World, id16

GROUP = "g"
PARTITIONS = 5
"""Of topic t, as the groups of the acts see it."""


def make_offsets(world: World, *partitions: Sequence[int]) -> None:
    """Create __offsets; default: one partition on 1, 2, 3."""
    made = world.create(OFFSETS_TOPIC, *(partitions or [(1, 2, 3)]), internal=True)
    assert made.refusal == pb.REFUSAL_UNSPECIFIED


def part(index: int, topic: str = "t") -> GroupPartition:
    """A partition that a test can read."""
    return GroupPartition(id16(f"topic-{topic}"), index)


def member(
    member_id: str, owned: Mapping[int, int] | None = None, target: Iterable[int] = (), **fields: object
) -> MemberInfo:
    """A member with partitions of topic t: `owned` by the generation of their grant."""
    held = {part(index): granted for index, granted in (owned or {}).items()}
    wanted = frozenset(part(index) for index in target)
    values: dict[str, object] = {"session_timeout_ms": 10_000, "topics": ("t",)} | fields
    return MemberInfo(member_id, owned=held, target=wanted, **values)  # type: ignore[arg-type]


def change(
    world: World,
    put: Iterable[MemberInfo | pb.GroupMemberRecord] = (),
    removed: Iterable[str] = (),
    *,
    group_id: str = GROUP,
    rebalance: bool = False,
    **fields: object,
) -> pb.GroupChange:
    """What the present coordinator would ask for."""
    info = world.image.offsets_partition(group_id)
    present = world.image.groups.get(group_id)
    values: dict[str, object] = {
        "group_id": group_id,
        "coordinator": max(info.leader, 0) if info is not None else 1,
        "leader_epoch": info.leader_epoch if info is not None else 0,
        "group_epoch": present.group_epoch if present is not None else 0,
        "generation": (present.generation if present is not None else 0) + rebalance,
        "put": [member_record(who) if isinstance(who, MemberInfo) else who for who in put],
        "removed": list(removed),
        "cause": f"cause {world.index}" if rebalance else "",
        "time_ms": 1_000_000 + world.index,
        "assignor": 1,
    }
    return pb.GroupChange(**(values | fields))  # type: ignore[arg-type]


def alter(world: World, asked: pb.GroupChange) -> pb.ChangeResult:
    """Apply one change."""
    return world.do(alter_groups=pb.AlterGroups(changes=[asked])).changes[0]


def elect_coordinator(world: World, leader: int | None = None) -> None:
    """Another leader for the first partition of __offsets; None: whom the controller would choose."""
    topic = world.topic(OFFSETS_TOPIC)
    info = topic.partitions[0]
    chosen = choose(info, world.image.nodes)
    if chosen is None:
        return
    leader = chosen.leader if leader is None else leader
    election = pb.Election(
        topic_id=topic.topic_id,
        partition_epoch=info.partition_epoch,
        isr=chosen.isr,
        leader=leader,
        leader_node_epoch=world.image.nodes[leader].node_epoch,
    )
    world.do(elect_leaders=pb.ElectLeaders(elections=[election]))


# ---- acts: of coordinators that do as they should, and of one that does anything

Act = Callable[[World, int, list[int]], object]


def _group(world: World) -> GroupInfo:
    return world.image.groups.get(GROUP) or GroupInfo(GROUP, 0)


def _do(world: World, asked: pb.GroupChange) -> None:
    """A right change is refused only where nobody coordinates."""
    info = world.image.offsets_partition(GROUP)
    assert info is not None
    refusal = alter(world, asked).refusal
    assert refusal == (pb.REFUSAL_UNSPECIFIED if info.leader > 0 else pb.REFUSAL_NOT_COORDINATOR)


def _retargeted(members: Iterable[MemberInfo], order: list[int]) -> list[MemberInfo]:
    """New targets for all; who gets what is anybody's choice."""
    all_members = sorted(members, key=lambda info: info.member_id)
    turns = order or [0]
    shares: dict[str, set[int]] = {info.member_id: set() for info in all_members}
    for index in range(PARTITIONS if all_members else 0):
        shares[all_members[turns[index % len(turns)] % len(all_members)].member_id].add(index)
    return [replace(info, target=frozenset(map(part, shares[info.member_id]))) for info in all_members]


def _join(world: World, node: int, order: list[int]) -> None:
    members = {**_group(world).members}
    members.setdefault(f"m{node}", member(f"m{node}"))
    _do(world, change(world, _retargeted(members.values(), order), rebalance=True))


def _join_later(world: World, node: int, _: list[int]) -> None:
    if f"m{node}" not in _group(world).members:
        _do(world, change(world, [member(f"m{node}")]))


def _remove(world: World, node: int, order: list[int]) -> None:
    members = {**_group(world).members}
    if members.pop(f"m{node}", None):
        _do(world, change(world, _retargeted(members.values(), order), [f"m{node}"], rebalance=True))


def _release(world: World, node: int, _: list[int]) -> None:
    info = _group(world).members.get(f"m{node}")
    if info is not None:
        kept = {partition: granted for partition, granted in info.owned.items() if partition in info.target}
        _do(world, change(world, [replace(info, owned=kept)]))


def _grant(world: World, node: int, _: list[int]) -> None:
    group = _group(world)
    info = group.members.get(f"m{node}")
    if info is not None:
        taken = {partition for other in group.members.values() for partition in other.owned}
        gained = dict.fromkeys(sorted(info.target - taken), group.generation)
        _do(world, change(world, [replace(info, owned={**info.owned, **gained})]))


def _take_over(world: World, node: int, _: list[int]) -> None:
    """A static member comes back under another id; it is renamed back so that ids do not run out."""
    group = _group(world)
    former, newcomer = f"m{node}", f"m{node}-again"
    if former not in group.members:
        former, newcomer = newcomer, former
    info = group.members.get(former)
    if info is not None and newcomer not in group.members:
        heir = replace(info, member_id=newcomer)
        _do(world, change(world, [heir], [former], rebalance=True))


def _anything(world: World, node: int, order: list[int]) -> None:
    """A coordinator with a fault, or of a former leadership."""
    group = _group(world)
    granted = max(0, group.generation - (order[0] % 2 if order else 0))
    owned = dict.fromkeys(order, granted)
    infos = [member(f"m{node}", owned, order[1:], instance_id=f"i{len(order)}")]
    asked = change(world, infos, [f"m{place}" for place in order[:1]], rebalance=node % 2 == 1)
    asked.leader_epoch -= node // 4
    asked.group_epoch ^= len(order) // 4
    alter(world, asked)


def _delete(world: World, _: int, __: list[int]) -> None:
    alter(world, change(world, delete=True))


GROUPS: dict[str, Act] = {
    "group: join": _join,
    "group: join later": _join_later,
    "group: remove": _remove,
    "group: release": _release,
    "group: grant": _grant,
    "group: take over": _take_over,
    "group: anything": _anything,
    "group: delete": _delete,
    "group: elect": lambda w, _, __: elect_coordinator(w),
}
