"""The fault plan of a world: actions with times, drawn from the seed before anything runs, so that it can be shrunk.

Actions name nodes by number, or by what they are at that moment ("controller", "leader": of a partition drawn when it
runs, "coordinator": of the group). An action that cannot be done at its moment, or that the guarantee does not cover
then, does nothing.
"""

import random
from dataclasses import asdict, dataclass
from typing import Any

WARM_UP_S = 1.6
"""Before the first fault: the cluster forms and the topics are made."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something done to the world. `time` is seconds since its beginning."""

    time: float
    kind: str
    node: int = 0
    """0: none, or chosen by `who`."""
    who: str = ""
    value: float = 0.0
    """Seconds, or a number from 0 to 1 that chooses; what it means is the kind's."""

    def __repr__(self) -> str:
        target = self.who or (f"n{self.node}" if self.node else "")
        return f"{self.time:.3f} {self.kind} {target} {self.value:.3f}".replace("  ", " ")


KINDS = {
    "crash": 6,
    "power": 5,
    "power_in_commit": 5,
    "power_in_journal": 3,
    "bounce": 8,
    "stop": 3,
    "crash_all": 2,
    "power_all": 1,
    "start": 14,
    "pause": 5,
    "wipe": 3,
    "copy": 3,
    "restore": 3,
    "rollback": 2,
    "fail_commit": 4,
    "full": 2,
    "cut": 6,
    "cut_one_way": 5,
    "isolate": 5,
    "isolate_one_way": 3,
    "ring": 1,
    "reset": 4,
    "cut_clients": 2,
    "crash_client": 3,
    "heal": 12,
    "slow": 3,
    "slow_disk": 4,
    "transfer": 4,
    "clock_jump": 3,
    "recreate_topic": 5,
    "min_isr": 1,
    "add_partitions": 1,
    "reassign": 4,
}
"""How often each kind is drawn, in proportion."""


PROFILES: tuple[dict[str, int], ...] = (
    {"wipe": 25, "restore": 8, "copy": 8, "rollback": 15, "bounce": 12},
    {"bounce": 30, "crash_all": 8, "power_all": 4, "power_in_commit": 15, "power_in_journal": 8, "stop": 8},
    {"cut": 15, "cut_one_way": 15, "isolate": 12, "reset": 20, "ring": 5, "pause": 15, "slow": 8},
    {"slow_disk": 25, "full": 12, "fail_commit": 25, "pause": 15, "transfer": 12},
    {"reassign": 30, "recreate_topic": 25, "min_isr": 8, "add_partitions": 5, "bounce": 15, "transfer": 8},
)
"""What comes more often in some worlds."""


CLEANUP_SHARE = 0.3
CLEANUP_KINDS = {"trim": 4, "alter_cleanup": 2, "absence": 2}

GROUP_SHARE = 0.35
TWINS_SHARE = 0.5
GROUP_KINDS = {
    ("member_leave", ""): 4,
    ("member_crash", ""): 4,
    ("member_pause", ""): 4,
    ("member_stall", ""): 2,
    ("member_cut", ""): 3,
    ("commit_under_way", "coordinator"): 2,
    ("bounce", "coordinator"): 4,
    ("crash", "coordinator"): 1,
    ("stop", "coordinator"): 1,
    ("pause", "coordinator"): 2,
    ("isolate", "coordinator"): 2,
    ("isolate_one_way", "coordinator"): 1,
    ("cut_clients", "coordinator"): 1,
    ("slow_disk", "coordinator"): 1,
    ("power_in_commit", "coordinator"): 2,
    ("start", ""): 3,
    ("heal", ""): 3,
}
"""How often each kind is drawn where there is a group, beside the others, and whom it meets."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a world is like; drawn from the seed by `options_of`."""

    nodes: int = 3
    voters: int = 3
    seconds: float = 7.0
    faults_per_s: float = 1.5
    durability: str = "commit"
    partitions: int = 2
    slow_share: float = 0.0
    snapshot_entries: int = 8192
    session_timeout_ms: int = 1_500
    replica_lag_max_ms: int = 3_000
    producers: int = 2
    consumers: int = 1
    records_per_s: float = 20.0
    outage: bool = False
    """After healing one node fails once more."""
    commit_s: float = 0.001
    """How long a commit of the store takes at most, on a disk that is not slow."""
    real_transport: bool = False
    """Of consensus."""
    cleanup: bool = False
    """Topics are trimmed, retained and compacted (see `cleaning`)."""
    compaction_interval_ms: int = 15_000
    compaction_key_bytes: int = 1 << 20
    single_copies: bool = False
    """Topics may have min_insync_replicas 1; then no disk is lost, since the guarantee does not cover that."""
    members: int = 0
    """Of a consumer group (see `grouping`); 0: there is none."""
    offsets_partitions: int = 1
    """Of __offsets."""
    twins: bool = False
    """Two members join by one instance_id: one waits until the other is gone."""


def options_of(seed: int) -> Options:
    """Draw what the seed's world is like."""
    rng = random.Random(f"{seed} options")
    lag = rng.choice((600, 1_200, 3_000))
    more, group = random.Random(f"{seed} cleanup"), random.Random(f"{seed} group")
    return Options(
        cleanup=more.random() < CLEANUP_SHARE,
        compaction_interval_ms=more.choice((100, 300, 800)),
        compaction_key_bytes=more.choice((400, 1_000, 1 << 20)),
        nodes=rng.choice((3, 3, 3, 4)),
        seconds=rng.choice((5.0, 7.0)),
        faults_per_s=rng.choice((0.8, 1.6, 3.0)),
        partitions=rng.choice((1, 2, 3)),
        slow_share=rng.choice((0.0, 0.0, 0.1)),
        snapshot_entries=rng.choice((8192, 15, 40)),
        session_timeout_ms=rng.choice((900, 1_500)),
        replica_lag_max_ms=lag,
        producers=rng.choice((1, 2)),
        records_per_s=rng.choice((10.0, 20.0)),
        single_copies=rng.random() < 0.3,
        durability=rng.choice(("interval", "os")) if rng.random() < 0.15 else "commit",
        real_transport=rng.random() < 0.5,
        commit_s=rng.choice((0.001, 0.005, 0.03)),
        outage=rng.random() < 0.15,
        members=group.choice((2, 3, 3, 4)) if group.random() < GROUP_SHARE else 0,
        offsets_partitions=group.choice((1, 2, 3)),
        twins=group.random() < TWINS_SHARE,
    )


def plan_of(seed: int) -> tuple[Action, ...]:
    """Draw the seed's faults."""
    options, rng = options_of(seed), random.Random(f"{seed} plan")
    kinds = KINDS | (rng.choice(PROFILES) if rng.random() < 0.5 else {})
    actions, time = [], WARM_UP_S
    while (time := time + rng.expovariate(options.faults_per_s)) < WARM_UP_S + options.seconds:
        kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
        node = rng.randrange(options.nodes) + 1
        who = rng.choices(("", "leader", "controller"), (0.5, 0.35, 0.15))[0]
        actions.append(Action(round(time, 4), kind, 0 if who else node, who, round(rng.random(), 4)))
    if options.cleanup:
        actions = sorted([*actions, *_cleanup_of(seed, options)], key=lambda action: action.time)
    if options.members:
        actions = sorted([*actions, *_group_of(seed, options)], key=lambda action: action.time)
    return tuple(actions)


def _cleanup_of(seed: int, options: Options) -> list[Action]:
    """What operators do beside the faults."""
    rng = random.Random(f"{seed} cleanup plan")
    actions, time, per_s = [], WARM_UP_S, rng.choice((0.5, 1.5, 3.0))
    while (time := time + rng.expovariate(per_s)) < WARM_UP_S + options.seconds:
        kind = rng.choices(tuple(CLEANUP_KINDS), tuple(CLEANUP_KINDS.values()))[0]
        node = rng.randrange(options.nodes) + 1
        actions.append(Action(round(time, 4), kind, node, value=round(rng.random(), 4)))
    return actions


def _group_of(seed: int, options: Options) -> list[Action]:
    """What happens to members and to their coordinator."""
    rng = random.Random(f"{seed} group plan")
    actions, time, per_s = [], WARM_UP_S, rng.choice((0.7, 1.5, 4.0))
    while (time := time + rng.expovariate(per_s)) < WARM_UP_S + options.seconds:
        kind, who = rng.choices(tuple(GROUP_KINDS), tuple(GROUP_KINDS.values()))[0]
        node = 0 if who else rng.randrange(options.nodes) + 1
        actions.append(Action(round(time, 4), kind, node, who, round(rng.random(), 4)))
    return actions


def to_json(plan: tuple[Action, ...]) -> list[dict[str, Any]]:
    """A plan as it is kept in a file."""
    return [asdict(action) for action in plan]


def from_json(data: list[dict[str, Any]]) -> tuple[Action, ...]:
    """Read a plan."""
    return tuple(Action(**item) for item in data)
