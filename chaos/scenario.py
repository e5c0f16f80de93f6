"""The scenarios: which faults, which load, which machine, for how long. `penstock-chaos list` shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.chaos.disks import DEFAULT_BYTES, DiskKind
from penstock.chaos.faults import registry
from penstock.chaos.plan import Profile, Range
from penstock.chaos.workload import (
    COMPACTED,
    ORDERS,
    SIZED,
    TRIMMED,
    Members,
    Rereaders,
    Senders,
    TopicPlan,
    Trimmers,
    WorkloadOptions,
)

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of them."""

    name: str
    summary: str
    profile: Profile
    duration_s: float
    """Until the last fault is healed; healing and the last reading come on top."""
    workload: WorkloadOptions = field(default_factory=WorkloadOptions)
    nodes: int = 3
    spare: int = 0
    hosts: tuple[str, ...] = ("c1", "c2")
    disk: DiskKind = DiskKind.PLAIN
    disk_bytes: int = DEFAULT_BYTES
    limits: Mapping[str, int] = field(default_factory=dict)
    tail_s: float = 20.0
    """Load goes on for this long after the last heal, so that recovery can be measured."""
    quick: bool = False
    """Part of `make test`."""

    def with_faults(self, names: Sequence[str]) -> "Scenario":
        """Give the same with these of its faults only."""
        weights = {name: weight for name, weight in self.profile.weights.items() if name in names}
        return replace(self, profile=replace(self.profile, weights=weights))


QUICK_LENGTH_S: Range = (2.0, 4.0)
QUICK_PAUSES = dict.fromkeys(("pause-leader", "pause-controller", "pause-node", "pause-coordinator"), (2.5, 3.5))


def _quick(name: str, summary: str, faults: Sequence[str], duration_s: float, **more: object) -> Scenario:
    profile = Profile(dict.fromkeys(faults, 1.0), QUICK_LENGTH_S, QUICK_PAUSES, quiet_s=(2.0, 3.0), warm_up_s=2.0)
    scenario = Scenario(name, summary, profile, duration_s, tail_s=2.0, quick=True)
    return replace(scenario, **more)  # type: ignore[arg-type]  # names of fields


def _long(name: str, summary: str, groups: Sequence[str], **more: object) -> Scenario:
    faults = [fault.name for group in groups for fault in registry.GROUPS[group]]
    scenario = Scenario(name, summary, Profile(dict.fromkeys(faults, 1.0)), 900.0)
    return replace(scenario, **more)  # type: ignore[arg-type]  # names of fields


MIXED = WorkloadOptions(
    senders=(
        Senders(count=2),
        Senders(count=1, keyed=True, compression="lz4"),
        Senders(count=1, rate=80.0, sizes=(200, 4_000), compression="zstd"),
        Senders(count=1, compression="snappy", crash_every_s=20.0),
        Senders(count=1, compression="gzip", idempotent=False),
        Senders(count=1, acks="leader", idempotent=False),
    )
)
"""Producers of all sorts: keyed, compressed, given up now and then, at least once, with acks of the leader alone."""
_DROPPING_SENDERS = (
    Senders(count=1, rate=60.0, topics=(SIZED,), sizes=(500, 1_500)),
    Senders(count=1, rate=60.0, topics=(TRIMMED,)),
    Senders(count=1, rate=100.0, topics=(COMPACTED,), sizes=(3_000, 8_000), keyed=True, keys=200, tombstones=0.05),
    Senders(count=1, rate=20.0, topics=(COMPACTED,), keyed=True, keys=200, tombstones=0.2, compression="lz4"),
)
"""Two of them update the same keys, each about every five seconds: some are deleted, and stay so for a while."""
_DROPPING_TOPICS = (
    TopicPlan(SIZED, 2, config={"retention_bytes": 256 * 1024}, drops=True),
    TopicPlan(TRIMMED, 2, drops=True),
    TopicPlan(
        COMPACTED,
        2,
        config={"cleanup_policy": "compact", "min_dirty_ratio": 0.2, "delete_retention_ms": 1_500},
        drops=True,
    ),
)


def dropping(options: WorkloadOptions) -> WorkloadOptions:
    """Give the same with topics beside the others that lose records: by retention, trimming and compaction."""
    return replace(
        options,
        topics=(*options.topics, *_DROPPING_TOPICS),
        senders=(*options.senders, *_DROPPING_SENDERS),
        ends=replace(options.ends, starts=(SIZED, TRIMMED, COMPACTED)),
        rereaders=Rereaders(count=2),
        trimmers=Trimmers(count=1),
    )


DROPPING_LIMITS = {"compaction_interval_ms": 500}
GROUPS = (
    Members(count=6, at_first=4, commits=("manual", "auto", "process"), static=2),
    Members(count=3, at_first=2, group="pairs", commits=("manual",), static=0, every_s=5.0),
)
"""Two crews over the same topic: one that is never whole for long, one that mostly is."""
CHURN = Members(
    count=8,
    at_first=8,
    group="churn",
    commits=("manual", "auto", "process"),
    static=2,
    every_s=1.0,
    paces_s=(0.05, 0.2),
)
QUICK_GROUP = Members(
    count=4,
    at_first=3,
    commits=("manual", "auto", "process"),
    static=1,
    every_s=1.0,
    freeze_s=(0.5, 5.0),
    stall_s=(0.5, 5.0),
)
GROUP_LIMITS = {"offsets_topic_partitions": 4}
GROUP_FAULTS = [fault.name for fault in registry.GROUPS["group"]]
_EVERYTHING = [fault.name for faults in registry.GROUPS.values() for fault in faults]

_ALL: tuple[Scenario, ...] = (
    Scenario("control", "no faults: everything must be acknowledged", Profile({}), 60.0, tail_s=0.0),
    Scenario(
        "combined",
        "every fault that this machine can do, also two at once, under every workload",
        Profile(dict.fromkeys(_EVERYTHING, 1.0), (5.0, 15.0), quiet_s=(30.0, 36.0), overlap=0.2),
        900.0,
        replace(dropping(MIXED), members=GROUPS),
        spare=1,
        disk=DiskKind.EXT4,
        limits=DROPPING_LIMITS | GROUP_LIMITS,
    ),
    _long("processes", "nodes are killed, frozen, restarted", ["process"]),
    _long("links", "links are cut, slow, broken again and again", ["link"]),
    _long("disks", "full disks, failing and slow syncs, damage, loss of power", ["disk"], disk=DiskKind.EXT4),
    _long("clocks", "clocks jump", ["clock"]),
    _long("membership", "nodes are added, drained, removed; leaderships move", ["membership"], spare=1),
    Scenario(
        "dropping",
        "faults of processes, links and disks while records go by retention, trimming and compaction",
        Profile(
            {fault.name: 1.0 for group in ("process", "link", "disk") for fault in registry.GROUPS[group]},
            (5.0, 12.0),
            quiet_s=(10.0, 16.0),
            warm_up_s=15.0,
            overlap=0.2,
        ),
        900.0,
        dropping(WorkloadOptions(senders=(Senders(count=2),))),
        disk=DiskKind.EXT4,
        limits=DROPPING_LIMITS,
    ),
    Scenario(
        "churn",
        "no faults of nodes: 8 members of a group over 48 partitions, one joins, leaves, dies or freezes each second",
        Profile({}),
        60.0,
        replace(
            WorkloadOptions(topics=(TopicPlan(ORDERS, 48),), senders=(Senders(count=2, rate=200.0),)).only("senders"),
            members=(CHURN,),
        ),
        tail_s=0.0,
    ),
    Scenario(
        "groups",
        "consumer groups whose members come, go, die and freeze; coordinators and links too; rebalance storms",
        Profile(
            {
                **dict.fromkeys(GROUP_FAULTS, 3.0),
                **{fault.name: 1.0 for group in ("process", "link") for fault in registry.GROUPS[group]},
            },
            (4.0, 12.0),
            quiet_s=(8.0, 14.0),
            warm_up_s=15.0,
            overlap=0.3,
        ),
        900.0,
        replace(WorkloadOptions(senders=(Senders(count=3),)).only("senders", "ends", "changers"), members=GROUPS),
        limits=GROUP_LIMITS,
    ),
    replace(
        Scenario("quick-control", "no faults: everything must be acknowledged", Profile({}), 8.0, tail_s=0.0),
        quick=True,
    ),
    _quick("quick-kills", "kill -9", ["kill-leader", "kill-controller", "kill-all"], 22.0),
    _quick("quick-pauses", "frozen processes", ["pause-leader", "pause-controller"], 16.0),
    _quick("quick-restarts", "orderly restarts", ["rolling-restart"], 20.0),
    _quick("quick-cuts", "partitions", ["cut-node", "ring", "asymmetric", "cut-client"], 30.0),
    _quick("quick-links", "bad links", ["slow-link", "reset-links", "narrow-link", "limit-data"], 30.0),
    _quick("quick-power", "loss of power", ["power-loss-node", "power-loss-all"], 24.0, disk=DiskKind.EXT4),
    _quick(
        "quick-disks",
        "full, failing and slow disks",
        ["disk-full", "fsync-errors", "slow-disk"],
        26.0,
        disk=DiskKind.EXT4,
    ),
    _quick("quick-damage", "damaged and lost disks", ["bit-flips", "lost-disk"], 24.0),
    _quick("quick-clocks", "clocks that jump", ["clock-jump", "clock-strobe"], 16.0),
    _quick(
        "quick-dropping",
        "kill -9 while records go by retention, trimming and compaction",
        ["kill-leader", "kill-node"],
        16.0,
        workload=dropping(WorkloadOptions(senders=(Senders(count=1, rate=50.0),))),
        limits=DROPPING_LIMITS,
    ),
    _quick(
        "quick-groups",
        "a consumer group whose members come, go, die and freeze; its coordinator too; a rebalance storm",
        ["kill-coordinator", "rebalance-storm"],
        18.0,
        workload=replace(
            WorkloadOptions(topics=(TopicPlan(ORDERS, 8),), senders=(Senders(count=1, rate=150.0),)).only("senders"),
            members=(QUICK_GROUP,),
        ),
        limits=GROUP_LIMITS,
        profile=Profile(
            dict.fromkeys(("kill-coordinator", "rebalance-storm"), 1.0),
            QUICK_LENGTH_S,
            quiet_s=(2.0, 3.0),
            warm_up_s=5.0,
        ),
    ),
    _quick("quick-membership", "a node is added, replicas move", ["add-node", "move-replicas"], 20.0, spare=1),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
