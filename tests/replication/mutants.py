"""The table of deliberate bugs of replication: each rule of DESIGN section 6 that this world covers, taken away.

`apply` puts a mutant in place and gives what builds a world with it; `caught` says which random schedule misses the
rule; `traces` names the schedules in tests/traces that show it without chance.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from penstock.node.partition import producing
from penstock.node.replication.events import InvariantViolationError
from penstock.node.replication.follower import FollowerCore
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.replica import ReplicaCore
from penstock.raft import apply_nodes, apply_partitions, members
from tests.replication import broken
from tests.replication.disk import Disk
from tests.replication.node import Node
from tests.replication.schedule import run
from tests.replication.world import Violation, World

COMMON = 200
"""Budget of a mutant that most random schedules may show."""

Patch = tuple[Any, str, Callable[..., Any]]
"""In this module, this function is replaced by that one."""


@dataclass(frozen=True)
class Mutant:
    """What to put in the place of what."""

    name: str
    rule: str
    what: str
    """What is wrong, in words."""
    traces: tuple[str, ...] = ()
    """Files in tests/traces, without .json."""
    budget: int = 4_000
    """So many random schedules find it; 0: too rare for chance."""
    first_seed: int = 0
    leader: type[LeaderCore] = LeaderCore
    follower: type[FollowerCore] = FollowerCore
    replica: type[ReplicaCore] = ReplicaCore
    disk: type[Disk] = Disk
    node: type[Node] = Node
    world: type[World] = World
    patches: tuple[Patch, ...] = ()
    liveness: bool = False
    """It shows as I10, no progress; for the others that is not enough."""

    @contextmanager
    def apply(self) -> Iterator[Callable[[], World]]:
        """While this lasts the rule is broken; gives what builds a world without it."""
        core = type("MutantReplica", (self.replica,), {"leader_type": self.leader, "follower_type": self.follower})
        node = type("MutantNode", (self.node,), {"core_type": core, "disk_type": self.disk})
        with ExitStack() as stack:
            for module, name, function in self.patches:
                stack.enter_context(mock.patch.object(module, name, function))
            yield lambda: self.world(node_type=node)

    def shows(self, number: str) -> bool:
        """Whether a violation of this invariant is the one that is looked for."""
        return self.liveness or number != "I10"


def violation_of(run_world: Callable[[], None]) -> Violation | None:
    """What the run violates; a core's own check is I0."""
    try:
        run_world()
    except Violation as violation:
        return violation
    except InvariantViolationError as error:
        return Violation(f"I0 {error}")
    return None


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """The first of these seeds whose random schedule misses the rule, or None."""
    with mutant.apply() as build:
        for seed in seeds:
            world = build()
            violation = violation_of(lambda world=world, seed=seed: run(world, seed))  # type: ignore[misc]
            if violation is not None and mutant.shows(violation.number):
                return seed
    return None


MUTANTS = [
    Mutant(
        "1 cut to own HW",
        "1",
        "a follower begins by cutting its log to its own HW",
        traces=("rule-01-cut-to-own-hw",),
        budget=COMMON,
        replica=broken.CutToHighWatermark,
    ),
    Mutant(
        "2 one lookup",
        "2",
        "after one answer the logs are taken to agree",
        traces=("rule-02-one-lookup",),
        leader=broken.OneLookup,
    ),
    Mutant(
        "2 not the lesser end",
        "2",
        "a follower cuts to the leader's end of the epoch, not to the lesser end",
        traces=("rule-02-not-the-lesser-end",),
        budget=COMMON,
        follower=broken.CutToLeadersEnd,
        liveness=True,
    ),
    Mutant(
        "2 exact epoch's end",
        "2",
        "the lookup answers with the asked epoch, which the leader's log may not have",
        traces=("rule-02-exact-epochs-end",),
        budget=COMMON,
        leader=broken.ExactEpochsEnd,
        liveness=True,
    ),
    Mutant(
        "3 any leader epoch",
        "3",
        "the leader_epoch of a fetch is not looked at",
        traces=("rule-03-any-leader-epoch",),
        leader=broken.AnyLeaderEpoch,
    ),
    Mutant(
        "3 any last epoch",
        "3",
        "the last epoch of a fetch is not looked at",
        traces=("rule-03-any-last-epoch",),
        budget=COMMON,
        leader=broken.AnyLastEpoch,
    ),
    Mutant(
        "4 progress kept",
        "4",
        "what followers acknowledged outlives the leadership",
        traces=("rule-04-progress-kept",),
        replica=broken.KeepProgress,
    ),
    Mutant(
        "5 pending not counted",
        "5",
        "HW does not wait for a member whose addition is under way",
        traces=("rule-05-pending-not-counted",),
        budget=COMMON,
        leader=broken.PendingNotCounted,
    ),
    Mutant(
        "5 shrink at once",
        "5",
        "a shrink counts before it is applied",
        traces=("rule-05-shrink-at-once",),
        budget=COMMON,
        leader=broken.ShrinkAtOnce,
    ),
    Mutant(
        "5 pending forgotten",
        "5",
        "a pending ISR is given up though its command may still apply",
        traces=("rule-05-pending-forgotten",),
        leader=broken.ForgetPending,
    ),
    Mutant(
        "5 any refusal is final",
        "5",
        "a pending ISR is given up when its command is refused as stale",
        traces=("rule-05-any-refusal-is-final",),
        world=broken.AnyRefusalIsFinal,
    ),
    Mutant(
        "5 no compare-and-set",
        "5",
        "an ISR change applies to another partition_epoch than it was decided on",
        traces=("rule-05-no-compare-and-set",),
        patches=((apply_partitions, "compare_epoch", broken.any_partition_epoch),),
    ),
    Mutant(
        "5 unfenced in the same node_epoch",
        "5",
        "a refusal is not final: who was fenced is live again as it was",
        traces=("rule-05-unfenced-in-the-same-node-epoch",),
        patches=((apply_nodes, "register_node", broken.unfencing_keeps_the_node_epoch),),
    ),
    Mutant(
        "6 before epoch start",
        "6",
        "who is at HW joins, though short of the epoch's start",
        traces=("rule-06-before-epoch-start",),
        leader=broken.JoinBeforeEpochStart,
    ),
    Mutant(
        "6 below HW",
        "6",
        "who is at the epoch's start joins, though short of HW",
        traces=("rule-06-below-hw",),
        budget=COMMON,
        leader=broken.JoinBelowHighWatermark,
    ),
    Mutant(
        "6 only past HW",
        "6",
        "who is at HW does not join",
        traces=("rule-06-only-past-hw",),
        budget=COMMON,
        leader=broken.JoinOnlyPastHighWatermark,
        liveness=True,
    ),
    Mutant(
        "7 no node_epochs",
        "7",
        "an addition is not compared with the registration that was counted",
        traces=("rule-07-no-node-epochs",),
        patches=((apply_partitions, "_check_member", broken.any_node_epoch),),
    ),
    Mutant(
        "7 node_epoch of the view",
        "7",
        "an addition carries the node_epoch of the view",
        traces=("rule-07-node-epoch-of-the-view",),
        node=broken.NodeEpochOfView,
    ),
    Mutant(
        "7 streams stay open",
        "7",
        "a node with a new node_epoch goes on in its old streams",
        traces=("rule-07-streams-stay-open",),
        budget=COMMON,
        world=broken.StreamsStayOpen,
        liveness=True,
    ),
    Mutant(
        "8 HW not frozen",
        "8",
        "HW moves below min_insync_replicas",
        traces=("rule-08-hw-not-frozen",),
        budget=COMMON,
        leader=broken.NotFrozen,
    ),
    Mutant(
        "8 pending counted",
        "8",
        "the pending ISR is counted against min_insync_replicas",
        traces=("rule-08-pending-counted",),
        budget=COMMON,
        leader=broken.FrozenByPending,
    ),
    Mutant(
        "9 no ELR",
        "9",
        "removed members are not remembered",
        traces=("rule-09-no-elr",),
        budget=COMMON,
        patches=((members, "_elr_after", broken.no_elr),),
    ),
    Mutant(
        "9 ELR never leads",
        "9",
        "nobody is elected from the ELR",
        traces=("rule-09-elr-never-leads",),
        budget=COMMON,
        patches=((apply_partitions, "_candidate", broken.only_isr_members_lead),),
        liveness=True,
    ),
    Mutant(
        "9 ELR not emptied",
        "9",
        "an ISR at the minimum leaves the ELR as it was",
        traces=("rule-09-elr-not-emptied",),
        budget=COMMON,
        patches=((members, "_elr_after", broken.elr_not_emptied),),
    ),
    Mutant(
        "9 ELR entered late",
        "9",
        "the removal that leaves the ISR below the minimum adds nobody to the ELR",
        traces=("rule-09-elr-entered-late",),
        budget=COMMON,
        patches=((members, "_elr_after", broken.elr_entry_below_only),),
    ),
    Mutant(
        "9 a restart loses its places",
        "9",
        "who restarts leaves ISR and ELR, with an intact disk",
        traces=("rule-09-a-restart-loses-its-places",),
        budget=COMMON,
        patches=((apply_nodes, "keeps_places", broken.no_store_keeps_places),),
    ),
    Mutant(
        "10 follower acks log end",
        "10",
        "a follower acknowledges what is not durable",
        traces=("rule-10-follower-acks-log-end",),
        budget=COMMON,
        follower=broken.AckLogEnd,
    ),
    Mutant(
        "10 leader counts log end",
        "10",
        "a leader counts what it has not made durable",
        traces=("rule-10-leader-counts-log-end",),
        budget=COMMON,
        leader=broken.CountOwnLogEnd,
    ),
    Mutant(
        "11 old sessions heard",
        "11",
        "a follower hears messages of earlier sessions",
        traces=("rule-11-old-sessions-heard",),
        follower=broken.HearOldSessions,
    ),
    Mutant(
        "11 late fetches counted",
        "11",
        "a leader counts fetches of earlier sessions, for the present registration",
        traces=("rule-11-late-fetches-counted",),
        leader=broken.CountLateFetches,
    ),
    Mutant(
        "11 late opens win",
        "11",
        "a late open of an earlier session takes the place of the present one",
        traces=("rule-11-late-opens-win",),
        leader=broken.LateOpensWin,
        liveness=True,
    ),
    Mutant(
        "12 end always known",
        "12",
        "a new leader answers its HW as the end before it is at its epoch's start",
        traces=("rule-12-end-always-known",),
        budget=COMMON,
        leader=broken.EndAlwaysKnown,
    ),
    Mutant(
        "12 lower leaderships trusted",
        "12",
        "a client takes the answer of a lower leadership than it has seen",
        traces=("rule-12-lower-leaderships-trusted",),
        world=broken.TrustingReader,
    ),
    Mutant(
        "13 producers kept",
        "13",
        "truncation leaves the producers' state as it is",
        traces=("rule-13-producers-kept",),
        budget=COMMON,
        disk=broken.KeepProducers,
    ),
    Mutant(
        "13 followers forget",
        "13",
        "followers note no producers' state",
        traces=("rule-13-followers-forget",),
        budget=COMMON,
        disk=broken.FollowersForget,
    ),
    Mutant(
        "14 duplicates answered",
        "14",
        "a duplicate is answered above HW",
        traces=("rule-14-duplicates-answered",),
        budget=COMMON,
        leader=broken.AnswerDuplicates,
    ),
    Mutant(
        "14 unknown producers begin anywhere",
        "14",
        "a producer that the log does not know may begin with a sequence above 0",
        traces=("rule-14-unknown-producers-begin-anywhere",),
        budget=COMMON,
        patches=((producing, "check", broken.any_first_sequence),),
    ),
    Mutant(
        "26 any grant",
        "26",
        "leads again, after a restart, an epoch granted to a former registration",
        traces=("rule-26-any-grant",),
        replica=broken.AnyGrant,
        world=broken.AnyView,
    ),
    Mutant(
        "26 registering bumps nothing",
        "26",
        "registering leaves the epochs of what the node leads as they are",
        traces=("rule-26-registering-bumps-nothing",),
        budget=COMMON,
        patches=((apply_nodes, "_after_registration", broken.epoch_stays),),
        liveness=True,
    ),
    Mutant(
        "26 grant neither checked nor bumped",
        "26",
        "leads on in the epoch of the former registration, view and all",
        traces=("rule-26-grant-neither-checked-nor-bumped",),
        replica=broken.AnyGrant,
        patches=((apply_nodes, "_after_registration", broken.epoch_stays),),
    ),
    Mutant(
        "26 no resignation",
        "26",
        "a leader goes on after a failed commit of what it had pushed",
        traces=("rule-26-no-resignation",),
        leader=broken.NeverResign,
    ),
    Mutant(
        "26 old view and epoch",
        "26",
        "a restarted node acts on a view, and in an epoch, older than before",
        traces=("rule-26-old-view-and-epoch",),
        replica=broken.AnyEpoch,
        world=broken.AnyView,
        disk=broken.Unfenced,
    ),
    Mutant(
        "26 appends while recovering",
        "26",
        "appends go on while writes behind a failed one are still to fail",
        traces=("rule-26-appends-while-recovering",),
        replica=broken.AppendWhileRecovering,
    ),
    Mutant(
        "26 writes behind a failed one move",
        "26",
        "a write behind a failed one is retried where the log ends now",
        traces=("rule-26-writes-behind-a-failed-one-move",),
        budget=COMMON,
        disk=broken.WritesMove,
    ),
    Mutant(
        "27 new store keeps places",
        "27",
        "a wiped disk keeps its ISR and ELR places",
        traces=("rule-27-new-store-keeps-places",),
        budget=COMMON,
        patches=((apply_nodes, "keeps_places", broken.every_store_keeps_places),),
    ),
    Mutant(
        "27 start ids not compared",
        "27",
        "an old copy of a disk keeps its ISR and ELR places",
        traces=("rule-27-start-ids-not-compared",),
        patches=((apply_nodes, "keeps_places", broken.same_store_keeps_places),),
    ),
    Mutant(
        "27 same process is a new store",
        "27",
        "a process that registers a second time loses its places",
        traces=("rule-27-same-process-is-a-new-store",),
        budget=COMMON,
        patches=((apply_nodes, "keeps_places", broken.same_process_is_new),),
    ),
    Mutant(
        "27 lost members enter the ELR",
        "27",
        "a wiped store enters the ELR as any removed member does",
        traces=("rule-27-lost-members-enter-the-elr",),
        budget=COMMON,
        patches=((members, "_elr_after", broken.lost_enter_elr),),
    ),
    Mutant(
        "29 no shrink",
        "29",
        "nobody leaves the ISR for lag",
        traces=("rule-29-no-shrink",),
        budget=COMMON,
        leader=broken.NoShrink,
        liveness=True,
    ),
    Mutant(
        "29 refused connections ignored",
        "29",
        "a refused connection delays acknowledgements as a silent one does",
        traces=("rule-29-refused-connections-ignored",),
        leader=broken.DeafToRefusedConnections,
        liveness=True,
        budget=0,
    ),
    Mutant(
        "counted before agreement",
        "2",
        "a fetch offset counts before the logs agree",
        traces=("rule-02-counted-before-agreement",),
        budget=COMMON,
        leader=broken.CountBeforeAgreement,
    ),
    Mutant(
        "HW before agreement",
        "2",
        "HW is sent before the logs agree",
        traces=("rule-02-hw-before-agreement",),
        leader=broken.PushBeforeAgreement,
    ),
    Mutant(
        "role begins undrained",
        "26",
        "a leadership begins while writes are under way, before ActIn is durable",
        traces=("rule-26-role-begins-undrained",),
        budget=COMMON,
        replica=broken.EnterUndrained,
    ),
    Mutant(
        "session opens undrained",
        "11",
        "a session opens on writes under way, and batches need not continue the log",
        traces=("rule-11-session-opens-undrained",),
        budget=COMMON,
        follower=broken.OpenUndrainedTakeAnyBatches,
    ),
]
