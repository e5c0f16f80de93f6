"""Deliberate bugs and the faults that bring each out: which load, what happens when.

The bugs are those of the tables of the simulation (tests/simulation), built into real nodes or into the clients, and
those of `broken_dropping`, `broken_groups` and `broken_members`.
Faults come by a schedule that is made for the bug, the same for every seed: a seed says what the clients do.

With the rates here each shows in the first seed nearly always. Most bugs of the simulation's tables are not here, since
a few milliseconds decide whether they do harm, and real nodes cannot be made to meet those; or since they only keep the
cluster from going on, which a run calls unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.chaos.plan import Plan, Planned
from penstock.chaos.scenario import DROPPING_LIMITS, GROUP_LIMITS, dropping
from penstock.chaos.workload import ORDERS, Changers, EndWatchers, Members, Senders, TopicPlan, WorkloadOptions

NODES = (1, 2, 3)
NO_CHANGES = WorkloadOptions(senders=(Senders(4, 150.0),)).only("senders", "appenders", "readers", "ends")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One of them, or several at once."""

    names: tuple[str, ...]
    """In `broken_node.BREAKS`, or in `broken_members.BUGS`: those are built into members of groups."""
    schedule: Plan
    workload: WorkloadOptions = NO_CHANGES
    in_clients: bool = False
    """Else in all nodes."""
    spare: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """All names."""
        return " + ".join(self.names)

    @property
    def faults(self) -> str:
        """What happens, in one line."""
        return ", ".join(dict.fromkeys(planned.fault for planned in self.schedule))


def _schedule(*planned: Planned) -> Plan:
    numbered = sorted(planned, key=lambda one: one.at_s)
    return tuple(
        Planned(number, one.at_s, one.fault, one.duration_s, one.params) for number, one in enumerate(numbered, 1)
    )


def _fault(at_s: float, fault: str, duration_s: float, *first: int, **params: Any) -> Planned:
    """`first`: these nodes come first, where nobody plays the role."""
    order = [*first, *(node for node in NODES if node not in first)]
    return Planned(0, at_s, fault, duration_s, {"order": order, **params})


CUT_LEADER = _schedule(*(_fault(2 + 9 * wave, "cut-node", 5, role="leader") for wave in range(2)))
"""It goes on for a moment, alone with its clients, and then others lead."""
CUT_WITH_CLIENTS = _schedule(
    *(
        _fault(2 + 7 * wave, "halves", 3, *majority, minority_hosts=["c1"])
        for wave, majority in enumerate(((1, 2), (2, 3), (3, 1)))
    )
)
"""Its clients hear of no other leader, and wait."""
REFUSE_LEADER = _schedule(*(_fault(2 + 9 * wave, "refuse-node", 5, role="leader", clients=False) for wave in range(2)))
"""As CUT_LEADER, and it knows at once that nobody is there."""
KILL_LEADERS = _schedule(*(_fault(2 + 7 * wave, "kill-leader", 3) for wave in range(4)))
MOVE_LEADERS = _schedule(
    _fault(2, "slow-link", 22, node=3, scope="node", latency_ms=300, jitter_ms=0),
    *(_fault(3 + 12 * wave, "ring", 8, 1, 2) for wave in range(2)),
    *(Planned(0, 5.0 + 12 * wave, "leader-transfer", 4, {"share": 1.0, "seed": wave}) for wave in range(2)),
)
"""Nodes 1 and 2 do not reach each other: where one comes to lead, it does not learn what is committed."""
RESET_CLIENTS = _schedule(
    *(
        _fault(2 + 6 * wave, "reset-links", 4, role="leader", scope="all", after_ms=after_ms, toxicity=1.0)
        for wave, after_ms in enumerate((100, 400))
    )
)
"""Requests arrive, answers do not."""
WIPE_AND_LEAD = _schedule(
    _fault(3, "lost-disk", 2, 1, who="drawn", seed=1),
    _fault(4, "narrow-link", 18, node=1, scope="node", kb_per_s=40),
    _fault(14, "kill-node", 6, 2),
)
"""Node 1 is wiped and comes back, but has not its data again, when 2 dies, which shares partitions with it."""
KILL_ALL_WITH_SLOW_DISKS = _schedule(
    *(_fault(2, "slow-disk", 10, node, who="drawn", delay_ms=250) for node in NODES),
    *(_fault(at_s, "kill-all", 1) for at_s in (5, 9)),
)
"""What is only in memory is lost, and there is much of it."""
KILL_LEADERS_WITH_SLOW_DISKS = _schedule(
    *(_fault(2, "slow-disk", 20, node, who="drawn", delay_ms=250) for node in NODES),
    *(_fault(4 + 7 * wave, "kill-leader", 3) for wave in range(3)),
)
"""Much is appended, and nobody has been told yet."""
TOO_FEW_REPLICAS = _schedule(*(_fault(2 + 10 * wave, "kill-node", 5, 1 + wave) for wave in range(2)))
"""Where there are two replicas, both of which must be in sync, appends are refused meanwhile."""
LEAD_ALONE_AND_DIE = _schedule(_fault(2, "ring", 14, 1, 2), _fault(9, "kill-node", 6, 1))
"""Nodes 1 and 2, which share partitions, leave each other's ISR, as both reach 3; then 1 dies and 2 is left."""
START_WITHOUT_LEADER = _schedule(_fault(4, "kill-all", 1), _fault(4.5, "cut-node", 15, node=1))
"""All end at once, and when they begin again nobody hears from node 1, which leads a third."""
MOVE = _schedule(*(Planned(0, 3.0 + 6 * wave, "move-replicas", 2, {"share": 1.0, "seed": wave}) for wave in range(3)))
KILL_NODES = _schedule(*(_fault(2 + 4 * wave, "kill-node", 0.5, 1 + wave) for wave in range(3)))
"""Who begins again compacts at once."""
KILL_AND_WAIT = _schedule(_fault(2, "kill-node", 0.5, 1), _fault(24, "kill-node", 0.5, 2))
"""Tombstones have the time to go: only while all replicas are there."""
CUT_CONTROLLER = _schedule(*(_fault(2 + 9 * wave, "cut-node", 5, role="controller") for wave in range(2)))
KILL_COORDINATORS = _schedule(*(_fault(at_s, "kill-coordinator", 3, group=0.0) for at_s in (7, 14)))
CALM = _schedule(_fault(20, "pause-all-briefly", 0.2))
"""What befalls members is enough."""

PAIRS = WorkloadOptions(
    topics=(TopicPlan(ORDERS, 9, 2, {"min_insync_replicas": 2}),), senders=(Senders(4, 150.0),)
).only("senders")
"""Two replicas each."""
LARGE_PAIRS = replace(PAIRS, senders=(Senders(4, 150.0, sizes=(600, 900)),))
MANY_ENDS = WorkloadOptions(senders=(Senders(6, 220.0),), ends=EndWatchers(8, (ORDERS,), 0.03, one_by_one=True)).only(
    "senders", "ends"
)
DROPPING = dropping(WorkloadOptions(topics=(), senders=(), ends=EndWatchers(topics=())).only("ends"))
OFTEN_TRIMMED = replace(DROPPING, trimmers=replace(DROPPING.trimmers, every_s=0.1, alter_share=0.0))
JUST_SENDERS = NO_CHANGES.only("senders", "readers")
PLAIN_SENDERS = WorkloadOptions(senders=(Senders(4, 150.0, idempotent=False),)).only("senders")
HASTY_SENDERS = WorkloadOptions(senders=(Senders(4, 150.0, delivery_timeout_ms=1_500, request_timeout_ms=1_000),)).only(
    "senders"
)
FEW_PAIRS = WorkloadOptions(
    topics=(TopicPlan(ORDERS, 3, 2, {"min_insync_replicas": 2}),),
    senders=(Senders(4, 150.0, delivery_timeout_ms=2_500, request_timeout_ms=1_000),),
).only("senders")
"""Several batches of each sender wait for each partition, and time out one after the other."""
CHANGES = WorkloadOptions(senders=(Senders(2, 50.0),), changers=Changers(6, every_s=0.1, most_fresh=0))


CREW = Members(
    count=5,
    at_first=5,
    static=0,
    every_s=0.5,
    freeze_s=(5.5, 7.0),
    stall_s=(1.0, 2.0),
    stalls=("block",),
    paces_s=(0.2,),
    most_records=(5,),
)
"""Slow members, which always have records in stock; twice a second something happens to one of them."""


def _crew(**members: Any) -> WorkloadOptions:
    options = WorkloadOptions(topics=(TopicPlan(ORDERS, 12),), senders=(Senders(2, 75.0),)).only("senders")
    return replace(options, members=(replace(CREW, **members),))


BLOCKED = _crew(upsets={"leave": 1.0, "stall": 2.0})
KILLED = _crew(upsets={"kill": 1.0}, most_records=(200,))
FROZEN = _crew(
    upsets={"freeze": 1.0},
    every_s=0.8,
    freeze_s=(5.0, 6.5),
    session_timeout_ms=2_500,
    rebalance_timeout_ms=3_000,
    max_poll_interval_ms=60_000,
)
"""For far longer than a session, and not than anything else: others have what they had, when they go on."""
LEAVING = _crew(upsets={"leave": 1.0}, commits=("auto",), most_records=(200,))
PROCESSING = _crew(upsets={"leave": 1.0}, commits=("process",), most_records=(200,))

MUTANTS = (
    Mutant(("acked at the local commit",), CUT_LEADER),
    Mutant(("success at the end of a role",), CUT_WITH_CLIENTS),
    Mutant(("reads above HW",), CUT_LEADER),
    Mutant(("no duplicate check",), KILL_LEADERS_WITH_SLOW_DISKS),
    Mutant(("wiped keeps its places",), WIPE_AND_LEAD, LARGE_PAIRS),
    Mutant(("ack before durable", "own end counted"), KILL_ALL_WITH_SLOW_DISKS),
    Mutant(("HW not frozen",), LEAD_ALONE_AND_DIE, PAIRS),
    Mutant(("cut to HW",), START_WITHOUT_LEADER),
    Mutant(("shrink at once",), REFUSE_LEADER, PAIRS),
    Mutant(("producer ids given twice",), KILL_LEADERS),
    Mutant(("end always known",), MOVE_LEADERS, MANY_ENDS, limits={"preferred_leader_delay_ms": 500}),
    Mutant(("completed at once",), MOVE, JUST_SENDERS, spare=1),
    Mutant(("AppliesAhead",), CUT_CONTROLLER, CHANGES),
    Mutant(("lost and renumbered",), KILL_LEADERS_WITH_SLOW_DISKS, in_clients=True),
    Mutant(("unanswered is not appended",), KILL_LEADERS_WITH_SLOW_DISKS, HASTY_SENDERS, in_clients=True),
    Mutant(("unknown is failed",), RESET_CLIENTS, PLAIN_SENDERS, in_clients=True),
    Mutant(("new numbers at a retry",), KILL_LEADERS_WITH_SLOW_DISKS, HASTY_SENDERS, in_clients=True),
    Mutant(("trimmed by the leader alone",), CUT_LEADER, OFTEN_TRIMMED),
    Mutant(("retention leaves nothing",), KILL_NODES, DROPPING),
    Mutant(("the latest of a key goes",), KILL_NODES, DROPPING, limits=DROPPING_LIMITS),
    Mutant(("tombstones replace nothing",), KILL_AND_WAIT, DROPPING, limits=DROPPING_LIMITS),
    Mutant(("reordered",), TOO_FEW_REPLICAS, FEW_PAIRS, in_clients=True),
    Mutant(("granted before it is released",), CALM, BLOCKED, limits=GROUP_LIMITS),
    Mutant(("anybody commits", "reads on after its session"), CALM, FROZEN, limits=GROUP_LIMITS),
    Mutant(("offsets forgotten at failover",), KILL_COORDINATORS, LEAVING, limits=GROUP_LIMITS),
    Mutant(("sessions never end",), CALM, KILLED, limits=GROUP_LIMITS),
    Mutant(("commits what was only handed out",), CALM, LEAVING, limits=GROUP_LIMITS),
    Mutant(("gives up what is being handled",), CALM, PROCESSING, limits=GROUP_LIMITS),
)
