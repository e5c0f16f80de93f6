"""Deliberate bugs, at least one for each override of pysyncobj and each rule of the journal; the worlds find them all.

A mutant is looked for in the worlds of one profile (the one that shows it soonest) among the first `budget` seeds; they
are worlds of the ordinary runs. The classes are in tests/raft/mutants.

Some overrides guard against what the worlds' transport, like the real one, does not let happen: votes of those who are
no voters (`VotesOfAnybody`), answers to a former process (`RequestIdsRestart`), garbage, a callback that raises.
tests/raft/test_machine_mutants drives the machine by hand there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.raft import mutants as broken
from tests.simulation.consensus.options import Options, profile_of
from tests.simulation.consensus.worlds import run


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug."""

    name: str
    rule: str
    """What it takes away: the method that is overridden for it, or the journal's rule."""
    what: str
    """What is wrong then."""
    options: dict[str, Any]
    profile: str
    budget: int
    """It must be found among so many seeds, those of other profiles included."""


def _machine(rule: str, kind: type[Any], what: str, profile: str, budget: int) -> Mutant:
    return Mutant(kind.__name__, rule, what, {"machine": kind}, profile, budget)


def _journal(rule: str, kind: type[Any], what: str, profile: str, budget: int) -> Mutant:
    return Mutant(kind.__name__, rule, what, {"journal": kind}, profile, budget)


def _outbox(rule: str, kind: type[Any], what: str, profile: str, budget: int) -> Mutant:
    return Mutant(kind.__name__, rule, what, {"outbox": kind}, profile, budget)


MUTANTS: tuple[Mutant, ...] = (
    # --- core ----------------------------------------------------------------------------------------------------
    _machine("core._library_conf", broken.DeposedLeaderStays, "a deposed leader leads on for 30 s", "mixed", 200),
    _machine("core._begin_configuration", broken.ConfigurationForgotten, "a change is lost at a restart", "disks", 100),
    _machine("core._note_change", broken.ChangeNotNoted, "a follower ignores changes", "disks", 100),
    _machine("core._forget_changes_from", broken.ChangeNotUndone, "a change that was cut off holds", "members", 1500),
    _machine("core._drop_voter", broken.ProgressKept, "a removed voter's progress is believed", "mixed", 600),
    # --- voting --------------------------------------------------------------------------------------------------
    _machine("voting.__setCurrentTerm", broken.VotesOfAnyTerm, "votes of an earlier term count", "mixed", 300),
    _machine("voting.__onLeaderChanged", broken.LeaderChangeNotTold, "waiters hear nothing of it", "laggards", 1500),
    _machine("voting._onTick (pre-vote)", broken.NoPreVote, "nodes stand at once", "mixed", 50),
    _machine("voting._on_request_pre_vote", broken.PreVoteAlways, "a living leader is disregarded", "storms", 50),
    _machine("voting._on_pre_vote_answer", broken.PreVotesNotCounted, "one answer is enough", "mixed", 100),
    _machine("voting._on_request_vote", broken.VotesTwice, "two votes in a term", "storms", 50),
    _machine("voting._may_vote", broken.JoinedVotes, "a new journal votes at once (rule 27)", "disks", 100),
    _machine("voting._may_vote", broken.FormerJournalVotes, "a lost disk that is found votes (rule 27)", "disks", 600),
    _machine("voting._on_response_vote", broken.VotesNotVoters, "answers are counted, not voters", "five", 600),
    _machine("voting.__onNodeDisconnected", broken.ForwardWaitsForEver, "a lost leader's waiters wait", "links", 1500),
    # --- appending -----------------------------------------------------------------------------------------------
    _machine("appending._send_snapshot", broken.SnapshotBusy, "parts are sent without waiting", "laggards", 50),
    _machine("appending._on_append_answer", broken.AckWithoutTerm, "a late acknowledgement counts", "storms", 200),
    _machine("appending._on_append_answer", broken.ResetRewrites, "late refusals lead a probe astray", "storms", 300),
    _machine("appending._on_append_answer", broken.NextIndexBack, "all is sent again and again", "storms", 50),
    _machine("appending._follow", broken.StaleLeaderNotTold, "a node of a higher term stays out", "storms", 200),
    _machine("appending._answer", broken.AcksUnverified, "what was not verified is acknowledged", "storms", 1000),
    _machine("appending._on_append_entries", broken.CommitUnverified, "the unverified is committed", "mixed", 100),
    _machine("appending._append_fresh", broken.TruncateAlways, "the log is cut without a conflict", "members", 1000),
    _machine("appending._commit_to", broken.CommitBack, "the commit index goes back", "mixed", 100),
    _machine("appending._on_snapshot_chunk", broken.ChunkCommits, "a part of a snapshot commits", "laggards", 100),
    _machine("snapshot.Sending, Receiving", broken.ChunksUnordered, "parts are not in order", "laggards", 100),
    _machine("appending._install", broken.SnapshotWaitersForgotten, "skipped waiters wait", "laggards", 200),
    # --- machine -------------------------------------------------------------------------------------------------
    _machine("machine._checkCommandsToApply", broken.ForwardUnsentWaitsForEver, "unsent: it waits", "links", 300),
    _machine("machine._checkCommandsToApply", broken.NewsWait, "the commit index waits for a heartbeat", "mixed", 50),
    _machine("machine.__changeCluster", broken.ChangesUnguarded, "two changes at a time", "members", 100),
    _machine(
        "machine.__changeCluster", broken.ChangeAtOnce, "a change before an own entry is committed", "members", 300
    ),
    _machine("machine._is_fit", broken.LeaderRemovesItself, "a leader that is no voter counts itself", "members", 300),
    _machine(
        "machine.__applyLogEntries", broken.AnyEntryAnswers, "another's entry is taken for one's own", "mixed", 200
    ),
    _machine("machine.__applyLogEntries", broken.AppliesAhead, "what is not committed is applied", "mixed", 100),
    _machine("machine.__tryLogCompaction", broken.SnapshotWithoutMembership, "no configuration in it", "disks", 100),
    # --- journal and outbox --------------------------------------------------------------------------------------
    _journal("journal.sync", broken.ForgetfulJournal, "the vote is not durable", "mixed", 50),
    _journal("journal.sync", broken.TermForgottenJournal, "the term is not durable", "mixed", 50),
    _journal("journal.sync", broken.TwoTransactionsJournal, "truncation and snapshot are two commits", "laggards", 200),
    _journal("journal.sync", broken.TermAfterEntriesJournal, "entries and term are two commits", "storms", 1000),
    _journal("journal.sync", broken.FailureSwallowedJournal, "a failed commit is ignored", "members", 200),
    _journal("journal.deleteEntriesFrom", broken.CutNotWrittenJournal, "a cut is not durable", "storms", 100),
    _journal(
        "journal.install_snapshot", broken.TailDroppedJournal, "a snapshot drops the tail behind it", "laggards", 4000
    ),
    _outbox("outbox.flush", broken.EagerOutbox, "messages leave before the journal is durable", "mixed", 50),
    _outbox("outbox.flush", broken.NotUrgentOutbox, "a new term is spoken in before it is durable", "mixed", 100),
)


def caught(mutant: Mutant, seeds: Iterable[int]) -> int | None:
    """Give the first of these seeds, among those of the mutant's profile, whose world fails with it."""
    for seed in seeds:
        if profile_of(seed) == mutant.profile:
            result = run(seed, options=Options.of(seed, **mutant.options))
            if result.failure is not None:
                return seed
    return None
