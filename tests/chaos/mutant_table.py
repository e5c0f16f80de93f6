"""Deliberate bugs and the faults that bring each out: which load, what happens when.

The bugs are those of the tables of the simulation (tests/simulation), built into real nodes or into the clients.
Faults come by a schedule that is made for the bug, the same for every seed: a seed says what the clients do.
"""

from dataclasses import dataclass, replace
from typing import Any

from penstock.chaos.disks import DiskKind
from penstock.chaos.plan import Plan, Planned
from penstock.chaos.workload import ORDERS, Changers, EndWatchers, Senders, TopicPlan, WorkloadOptions

NODES = (1, 2, 3)
NO_CHANGES = WorkloadOptions(senders=(Senders(4, 150.0),)).only("senders", "appenders", "readers", "ends")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One of them, or several at once."""

    names: tuple[str, ...]
    """In a table of the simulation."""
    schedule: Plan
    workload: WorkloadOptions = NO_CHANGES
    in_clients: bool = False
    disk: DiskKind = DiskKind.PLAIN
    spare: int = 0

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
REFUSE_LEADER = _schedule(*(_fault(2 + 9 * wave, "refuse-node", 5, role="leader", clients=False) for wave in range(2)))
"""As CUT_LEADER, and it knows at once that nobody is there."""
KILL_LEADERS = _schedule(*(_fault(2 + 7 * wave, "kill-leader", 3) for wave in range(4)))
KILL_LEADERS_ON_SLOW_LINKS = _schedule(
    _fault(2, "slow-link", 25, role="leader", scope="all", latency_ms=80, jitter_ms=0),
    *(_fault(4 + 7 * wave, "kill-leader", 3) for wave in range(3)),
)
"""A new leader learns only after a while what is committed."""
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
LEAD_ALONE_AND_DIE = _schedule(_fault(2, "ring", 14, 1, 2), _fault(9, "kill-node", 6, 1))
"""Nodes 1 and 2, which share partitions, leave each other's ISR, as both reach 3; then 1 dies and 2 is left."""
START_WITHOUT_LEADER = _schedule(_fault(4, "cut-node", 16, role="leader"), _fault(4.1, "kill-all", 0))
"""All end at once and begin again, but nobody hears from who led most."""
MOVE = _schedule(*(Planned(0, 3.0 + 6 * wave, "move-replicas", 2, {"share": 1.0, "seed": wave}) for wave in range(3)))
CUT_CONTROLLER = _schedule(*(_fault(2 + 9 * wave, "cut-node", 5, role="controller") for wave in range(2)))

PAIRS = WorkloadOptions(
    topics=(TopicPlan(ORDERS, 9, 2, {"min_insync_replicas": 2}),), senders=(Senders(4, 150.0),)
).only("senders")
"""Two replicas each."""
LARGE_PAIRS = replace(PAIRS, senders=(Senders(4, 150.0, sizes=(600, 900)),))
MANY_ENDS = WorkloadOptions(senders=(Senders(6, 220.0),), ends=EndWatchers(8, every_s=0.03)).only("senders", "ends")
JUST_SENDERS = NO_CHANGES.only("senders", "readers")
PLAIN_SENDERS = WorkloadOptions(senders=(Senders(4, 150.0, idempotent=False),)).only("senders")
HASTY_SENDERS = WorkloadOptions(senders=(Senders(4, 150.0, delivery_timeout_ms=1_500, request_timeout_ms=1_000),)).only(
    "senders"
)
HASTY_PAIRS = replace(HASTY_SENDERS, topics=PAIRS.topics)
CHANGES = WorkloadOptions(senders=(Senders(2, 50.0),), changers=Changers(6, every_s=0.1, most_fresh=0))

MUTANTS = (
    Mutant(("acked at the local commit",), CUT_LEADER),
    Mutant(("success at the end of a role",), CUT_LEADER),
    Mutant(("reads above HW",), CUT_LEADER),
    Mutant(("no duplicate check",), KILL_LEADERS_WITH_SLOW_DISKS),
    Mutant(("wiped keeps its places",), WIPE_AND_LEAD, LARGE_PAIRS),
    Mutant(("ack before durable", "own end counted"), KILL_ALL_WITH_SLOW_DISKS),
    Mutant(("HW not frozen",), LEAD_ALONE_AND_DIE, PAIRS),
    Mutant(("cut to HW",), START_WITHOUT_LEADER),
    Mutant(("shrink at once",), REFUSE_LEADER, PAIRS),
    Mutant(("producer ids given twice",), KILL_LEADERS),
    Mutant(("end always known",), KILL_LEADERS_ON_SLOW_LINKS, MANY_ENDS),
    Mutant(("completed at once",), MOVE, JUST_SENDERS, spare=1),
    Mutant(("AppliesAhead",), CUT_CONTROLLER, CHANGES),
    Mutant(("lost and renumbered",), KILL_LEADERS_WITH_SLOW_DISKS, in_clients=True),
    Mutant(("unanswered is not appended",), KILL_LEADERS_WITH_SLOW_DISKS, HASTY_SENDERS, in_clients=True),
    Mutant(("unknown is failed",), RESET_CLIENTS, PLAIN_SENDERS, in_clients=True),
    Mutant(("new numbers at a retry",), KILL_LEADERS_WITH_SLOW_DISKS, HASTY_SENDERS, in_clients=True),
    Mutant(("reordered",), TOO_FEW_REPLICAS, HASTY_PAIRS, in_clients=True),
)
