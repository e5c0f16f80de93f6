"""Deliberate bugs in the real code of nodes and clients, at least one for each rule; whole-system worlds find them all.

A mutant is looked for in the ordinary worlds of the first `budget` seeds. What breaks is in `broken`, and for the cores
of replication in tests/replication/broken. Those of consumer groups are in `group_mutants`.

Shown elsewhere, since chance shows them too rarely here: by tests/replication/mutants and its golden traces "2 one
lookup", "2 not the lesser end", "2 exact epoch's end", "HW before agreement", "3 any leader epoch", "5 pending
forgotten", "5 no compare-and-set", "11 old sessions heard", "11 late fetches counted", "12 lower leaderships trusted",
"26 old view and epoch", "26 appends while recovering", "26 writes behind a failed one move". A removed voter's
progress that is kept: tests/simulation/consensus/mutants.

Not found in the first 100 seeds, so not in the table; their code is in `broken`: expected_offset compared before the
duplicate (14), NOT_LEADER for whoever waits when a role ends, a fenced node elected. Not in 600: no guard of tombstones
(19, cleanup.NoTombstoneGuard); alone, that is: "tombstones not held for replicas" takes it away too. The guard is in
tests/replication/test_rules, and so is who joins the ISR without what was trimmed (22, cleanup.JoinUntrimmed).
"""

import gc
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest import mock

from penstock.client import sequencing
from penstock.client.fetcher import Fetcher as ClientFetcher
from penstock.client.sequencing import Window
from penstock.node.api.locate import Locator
from penstock.node.api.reader import MetadataReader
from penstock.node.cleanup import cleaner
from penstock.node.controller import reassignments
from penstock.node.controller.core import ControllerCore
from penstock.node.partition import Partition
from penstock.node.partition.producing import Producers
from penstock.node.replication import source
from penstock.node.replication.fetcher import Fetcher
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.replica import ReplicaCore
from penstock.node.replication.replicas import Replicas
from penstock.node.replication.shell import ReplicaShell
from penstock.node.session.core import SessionCore
from penstock.raft import apply_nodes, apply_partitions, apply_reassignments, members, state
from penstock.storage import producers
from penstock.storage.compaction import Rewriter
from penstock.storage.compaction_run import Run
from tests.replication import broken as cores
from tests.simulation.cluster.broken import cleanup, clients, metadata, nodes
from tests.simulation.cluster.plan import options_of
from tests.simulation.cluster.world import World
from tests.simulation.store import group
from tests.simulation.store.group import MemoryGroup
from tests.simulation.store.memory import MemoryLog

Put = tuple[Any, Any, Any]
"""Of this class, module or dict, this name is that value."""


WORLD_CPU_S = 10.0
"""Many times what a world takes."""


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug."""

    name: str
    rule: str
    """The rule of DESIGN section 6 that it takes away, or what else it breaks."""
    what: str
    """What is wrong then."""
    budget: int
    """It must be found among so many seeds."""
    puts: tuple[Put, ...]
    cleanup: bool = False
    """It shows only in worlds with cleanup; the others are left out."""
    group: bool = False
    """It shows only in worlds with a group."""

    def may_show(self, seed: int) -> bool:
        """Whether the seed's world is one where it does."""
        options = options_of(seed)
        return (options.cleanup or not self.cleanup) and (options.members > 0 or not self.group)

    @contextmanager
    def apply(self) -> Iterator[None]:
        """While this lasts the code is broken."""
        with ExitStack() as stack:
            for owner, name, value in self.puts:
                if isinstance(owner, dict):
                    stack.enter_context(mock.patch.dict(owner, {name: value}))
                else:
                    stack.enter_context(mock.patch.object(owner, name, value))
            yield


class Stuck(KeyboardInterrupt):
    """A world does not end. Nothing but an interrupt passes an event loop."""


def _expired(_signal: int, _frame: FrameType | None) -> None:
    raise Stuck


def _fails(seed: int) -> bool:
    """Whether a seed's world fails; one that goes round in circles does."""
    signal.setitimer(signal.ITIMER_VIRTUAL, WORLD_CPU_S)
    try:
        return World(seed).run().failure is not None
    except Stuck:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """Give the first of these seeds whose world fails with the mutant."""
    former = signal.signal(signal.SIGVTALRM, _expired)
    gc.disable()  # inside of worlds: garbage is collected between them
    try:
        with mutant.apply():
            for seed in seeds:
                if not mutant.may_show(seed):
                    continue
                fails = _fails(seed)
                gc.collect()
                if fails:
                    return seed
    finally:
        gc.enable()
        signal.signal(signal.SIGVTALRM, former)
    return None


def _leader(kind: type[Any]) -> Put:
    return ReplicaCore, "leader_type", kind


def _follower(kind: type[Any]) -> Put:
    return ReplicaCore, "follower_type", kind


def _replica(kind: type[Any]) -> Put:
    return ReplicaShell, "core_type", kind


SOME = 100
MANY = 300
ANY_VIEW: Put = (Replicas, "apply", nodes.apply_any_view)
ANY_EPOCH: tuple[Put, ...] = (
    (apply_partitions, "compare_epoch", cores.any_partition_epoch),
    (apply_reassignments, "compare_epoch", cores.any_partition_epoch),
)

MUTANTS: tuple[Mutant, ...] = (
    # --- replication
    Mutant("cut to HW", "1", "a follower begins by cutting to its HW", SOME, (_replica(cores.CutToHighWatermark),)),
    Mutant("counted before agreement", "2", "a fetch counts before", MANY, (_leader(cores.CountBeforeAgreement),)),
    Mutant("any last epoch", "3", "the last epoch of a fetch is not looked at", MANY, (_leader(cores.AnyLastEpoch),)),
    Mutant("progress kept", "4", "acknowledgements outlive the leadership", MANY, (_replica(cores.KeepProgress),)),
    Mutant("pending not counted", "5", "an expansion is not counted", MANY, (_leader(cores.PendingNotCounted),)),
    Mutant("shrink at once", "5", "a shrink counts before it is applied", MANY, (_leader(cores.ShrinkAtOnce),)),
    Mutant(
        "unfenced in the same node_epoch",
        "5",
        "who was fenced is live again as it was",
        MANY,
        ((state._HANDLERS, "register_node", cores.unfencing_keeps_the_node_epoch),),
    ),
    Mutant("join before epoch start", "6", "at or past HW is enough", MANY, (_leader(cores.JoinBeforeEpochStart),)),
    Mutant("join below HW", "6", "at the epoch's start is enough", MANY, (_leader(cores.JoinBelowHighWatermark),)),
    Mutant(
        "no node_epochs",
        "7",
        "any registration may join",
        MANY,
        ((apply_partitions, "_check_member", cores.any_node_epoch),),
    ),
    Mutant(
        "node_epochs of the view",
        "7",
        "an addition carries the node_epoch of the view",
        MANY,
        ((Replicas, "propose", nodes.propose_node_epochs_of_the_view),),
    ),
    Mutant(
        "streams stay open",
        "7",
        "a new node_epoch goes on in old streams",
        MANY,
        ((Fetcher, "restart", nodes.nothing),),
    ),
    Mutant("HW not frozen", "8", "HW moves below min_insync_replicas", MANY, (_leader(cores.NotFrozen),)),
    Mutant("pending ISR is enough", "8", "the pending ISR is compared", MANY, (_leader(cores.FrozenByPending),)),
    Mutant("ELR not filled", "9", "removed members are not remembered", MANY, ((members, "_elr_after", cores.no_elr),)),
    Mutant("ELR not emptied", "9", "it stays at a full ISR", MANY, ((members, "_elr_after", cores.elr_not_emptied),)),
    Mutant(
        "wiped in the ELR", "9, 27", "a lost store enters it", MANY, ((members, "_elr_after", cores.lost_enter_elr),)
    ),
    Mutant(
        "a restart loses its places",
        "9",
        "who restarts leaves ISR and ELR",
        MANY,
        ((apply_nodes, "keeps_places", cores.no_store_keeps_places),),
    ),
    Mutant("ack before durable", "10", "a follower acknowledges its log end", MANY, (_follower(cores.AckLogEnd),)),
    Mutant("own end counted", "10", "a leader counts its log end", MANY, (_leader(cores.CountOwnLogEnd),)),
    Mutant("end always known", "12", "a new leader answers its HW at once", MANY, (_leader(cores.EndAlwaysKnown),)),
    Mutant(
        "reads above HW",
        "12",
        "what is not committed is read",
        MANY,
        ((Partition, "_readable_end", nodes.readable_to_the_log_end),),
    ),
    Mutant(
        "producers kept on disk",
        "13",
        "truncation does not undo producer state",
        MANY,
        ((MemoryGroup, "_undo", nodes.nothing),),
    ),
    Mutant(
        "producers kept in memory",
        "13",
        "a new role goes on with the old one's producers",
        MANY,
        ((Producers, "clear", nodes.nothing),),
    ),
    Mutant(
        "duplicate answered early", "14", "a duplicate is answered above HW", MANY, (_leader(cores.AnswerDuplicates),)
    ),
    Mutant(
        "producer ids given twice",
        "15",
        "a block of ids is given out again",
        MANY,
        ((state._HANDLERS, "allocate_producer_ids", metadata.same_producer_ids),),
    ),
    Mutant(
        "out of range confused",
        "23",
        "above the end is as below the start",
        MANY,
        ((ClientFetcher, "_above_end", clients.reset_above_end),),
    ),
    Mutant(
        "topic by name",
        "24",
        "a topic made again takes its predecessor's requests",
        MANY,
        ((Locator, "leader_of", nodes.leader_of_the_name),),
    ),
    Mutant(
        "new numbers at a retry",
        "25",
        "what may have been appended goes again with new numbers",
        MANY,
        ((Window, "_mend", clients.mend_with_new_numbers),),
    ),
    Mutant(
        "lost and renumbered",
        "25",
        "after a broken stream all gets new numbers",
        MANY,
        ((Window, "lost", clients.lost_and_renumbered),),
    ),
    Mutant(
        "unanswered is not appended",
        "25",
        "a batch without an answer counts as refused",
        MANY,
        ((Window, "_unanswered", clients.lost_is_not_sent),),
    ),
    Mutant(
        "unknown is failed",
        "25",
        "an unknown outcome is reported as failure",
        MANY,
        ((sequencing, "_unknown", clients.unknown_is_failed),),
    ),
    Mutant(
        "reordered",
        "25",
        "a new producer epoch begins with the last batch",
        MANY,
        ((Window, "adopt", clients.adopt_in_reverse),),
    ),
    Mutant(
        "no duplicate check",
        "25",
        "a leader takes every sequence",
        MANY,
        ((Producers, "check", lambda *_: producers.ACCEPT),),
    ),
    Mutant(
        "any grant", "26", "leads again in a former registration's epoch", MANY, (_replica(cores.AnyGrant), ANY_VIEW)
    ),
    Mutant(
        "registering bumps nothing",
        "26",
        "epochs stay at a registration",
        MANY,
        ((apply_nodes, "_after_registration", cores.epoch_stays),),
    ),
    Mutant(
        "grant neither checked nor bumped",
        "26",
        "leads on in the former epoch",
        MANY,
        (_replica(cores.AnyGrant), (apply_nodes, "_after_registration", cores.epoch_stays)),
    ),
    Mutant(
        "no resignation",
        "26",
        "a leader goes on after a failed commit of what it pushed",
        MANY,
        (_leader(cores.NeverResign),),
    ),
    Mutant(
        "role begins undrained",
        "26",
        "a leadership begins before its writes are done",
        MANY,
        (_replica(cores.EnterUndrained),),
    ),
    Mutant(
        "wiped keeps its places",
        "27",
        "a new store stays in ISR and ELR",
        MANY,
        ((apply_nodes, "keeps_places", cores.every_store_keeps_places),),
    ),
    Mutant(
        "start ids not compared",
        "27",
        "an old copy stays in ISR and ELR",
        MANY,
        ((apply_nodes, "keeps_places", cores.same_store_keeps_places),),
    ),
    Mutant(
        "unknown data is deleted",
        "28",
        "logs that the image lacks are dropped",
        MANY,
        ((Replicas, "apply", nodes.drop_unknown),),
    ),
    Mutant(
        "removed replica is deleted",
        "28",
        "a reassignment drops the log",
        MANY,
        ((Replicas, "_release", nodes.release_and_drop),),
    ),
    Mutant("no shrink", "29", "nobody leaves the ISR for lag", MANY, (_leader(cores.NoShrink),)),
    # --- acknowledgements, controller, sessions, consensus
    Mutant(
        "acked at the local commit",
        "acks",
        "acks=all is answered as acks=leader",
        MANY,
        ((Partition, "_wait", nodes.wait_for_local_commit),),
    ),
    Mutant(
        "success at the end of a role",
        "acks",
        "whoever waits is told success",
        MANY,
        ((Partition, "_finish_all", nodes.finish_all_well),),
    ),
    Mutant("no fencing", "controller", "silent nodes stay", MANY, ((ControllerCore, "_overdue", nodes.no_outputs),)),
    Mutant(
        "fenced but in the ISR",
        "controller",
        "a fenced node leads on",
        MANY,
        ((state._HANDLERS, "fence_node", metadata.fence_without_shrinking),),
    ),
    Mutant(
        "full but in the ISR",
        "full",
        "a node whose store is full stays in ISRs and leads on",
        MANY,
        ((state._HANDLERS, "note_store_state", metadata.note_full_without_shrinking),),
    ),
    Mutant(
        "the last full one leaves",
        "full",
        "the last ISR member leaves for its store is full",
        MANY,
        ((state._HANDLERS, "note_store_state", metadata.note_full_of_the_last),),
    ),
    Mutant(
        "full members join",
        "full",
        "whose store is full joins ISRs",
        MANY,
        ((apply_partitions, "_check_member", metadata.full_members_join),),
    ),
    Mutant(
        "serves without a session", "session", "a session never ends", MANY, ((SessionCore, "_is_heard", nodes.always),)
    ),
    Mutant(
        "session spins",
        "session",
        "a session that is over is waited for",
        MANY,
        ((SessionCore, "next_wake_ms", nodes.wake_at_the_end_of_the_session),),
    ),
    Mutant(
        "made but refused",
        "answers",
        "a change that was made is answered with a refusal",
        MANY,
        ((MetadataReader, "shows", MetadataReader.at_least),),
    ),
    # --- reassignment
    Mutant(
        "completed early",
        "reassignment",
        "ends before the target is in sync",
        MANY,
        ((reassignments, "is_complete", metadata.complete_early),),
    ),
    Mutant(
        "completed with all",
        "reassignment",
        "the ISR keeps who leaves",
        MANY,
        ((apply_reassignments, "_complete", metadata.complete_with_all),),
    ),
    Mutant(
        "completed at once",
        "reassignment",
        "the target is the ISR, caught up or not",
        MANY,
        (
            (reassignments, "is_complete", lambda _, info: bool(info.target)),
            (apply_reassignments, "_complete", metadata.complete_with_the_target),
        ),
    ),
    Mutant(
        "removed members join",
        "reassignment",
        "who is no replica any more joins the ISR",
        MANY,
        (_leader(nodes.FormerReplicasCount), (apply_partitions, "_alter_isr", metadata.any_isr_change)),
    ),
    # --- trimming, retention, compaction
    Mutant(
        "tombstones not held for replicas",
        "19",
        "what is committed counts as what every replica has",
        MANY,
        (_leader(cleanup.PassedByHighWatermark), (LeaderCore, "_lacks_tombstones", lambda *_: False)),
        cleanup=True,
    ),
    Mutant(
        "seed without tombstones",
        "19",
        "a replica that is filled anew does not know which tombstones it need not see",
        MANY,
        (_follower(cleanup.SeedForgetsTombstones),),
        cleanup=True,
    ),
    Mutant(
        "tombstones go at once",
        "19",
        "delete_retention_time is not waited for",
        MANY,
        ((Rewriter, "take", cleanup.take_as_aged),),
        cleanup=True,
    ),
    Mutant(
        "log start not followed",
        "22",
        "followers keep what the leader dropped",
        MANY,
        (_follower(cleanup.StartNotFollowed),),
        cleanup=True,
    ),
    Mutant(
        "trim answered early",
        "22",
        "a trim is answered before the followers have it",
        MANY,
        (_leader(cleanup.TrimmedHere),),
        cleanup=True,
    ),
    Mutant(
        "trim answered by few",
        "22",
        "a trim is answered below min_insync_replicas",
        2 * MANY,
        (_leader(cleanup.TrimmedByFew),),
        cleanup=True,
    ),
    Mutant(
        "first batch not served",
        "22",
        "a replica is not given what is below the log start in its batch",
        MANY,
        ((MemoryLog, "read", cleanup.read_from_the_start),),
        cleanup=True,
    ),
    Mutant(
        "log start above HW",
        "retention",
        "what is not committed is dropped with all that is",
        MANY,
        (_leader(cleanup.StartAboveHighWatermark),),
        cleanup=True,
    ),
    Mutant(
        "retention leaves half",
        "retention",
        "less than retention_bytes is left",
        MANY,
        ((cleaner, "choose", cleanup.keep_half),),
        cleanup=True,
    ),
    Mutant(
        "compaction above HW",
        "compaction",
        "what is not committed is compacted",
        MANY,
        ((Run, "_survey", cleanup.survey_all), (group, "check_content", nodes.nothing)),
        cleanup=True,
    ),
    Mutant(
        "compaction over epochs",
        "compaction",
        "batches of several leader epochs are made into one",
        MANY,
        ((Rewriter, "_fits", cleanup.fits_any_epoch), (group, "check_tiling", nodes.nothing)),
        cleanup=True,
    ),
    Mutant(
        "compaction of another log",
        "compaction",
        "a compaction is written whatever became of the log that was read",
        2 * MANY,
        (
            (Run, "_rows", cleanup.rows_as_they_come),
            (group, "check_content", nodes.nothing),
            (group, "check_tiling", nodes.nothing),
            (group, "check_replaced", nodes.nothing),
        ),
        cleanup=True,
    ),
    Mutant(
        "producers not pinned",
        "14",
        "what the log remembers of producers is merged",
        MANY,
        ((MemoryLog, "stored_rows", cleanup.nothing_pinned),),
        cleanup=True,
    ),
    Mutant(
        "batches not divided",
        "compaction",
        "a replica that ends within a merged batch is sent all of it",
        2 * MANY,
        ((source, "begin_at", cleanup.whole),),
        cleanup=True,
    ),
)
