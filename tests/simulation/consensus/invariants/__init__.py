"""What must hold in a world at every moment: each property is a class named after it. A breach raises Violation."""

from tests.simulation.consensus.invariants import clients, configuration, durability, progress, safety
from tests.simulation.consensus.invariants.base import Checks, History, Invariant, Violation

ALL: tuple[type[Invariant], ...] = (
    safety.ElectionSafety,
    safety.ElectedByMajority,
    safety.LeaderCompleteness,
    safety.LogMatching,
    safety.CommittedPrefix,
    safety.CommitMonotonic,
    safety.StateMachineSafety,
    safety.SnapshotIsReplay,
    safety.SnapshotKeepsTail,
    safety.AckIsVerified,
    durability.TermIsDurable,
    durability.VoteIsDurable,
    durability.AckIsDurable,
    durability.CommitIsDurable,
    durability.OnlyAdmittedVote,
    configuration.ConfigurationOfLog,
    configuration.OneChangeAtATime,
    configuration.ChangesAfterOwnEntry,
    configuration.LeaderVotes,
    clients.AcknowledgedIsApplied,
    clients.AppliedOnce,
    clients.RefusedIsNotApplied,
    clients.OrderOfSubmission,
    clients.AnsweredOnce,
    progress.StandsAfterPreVote,
    progress.LeaderIsKept,
    progress.ProbeGoesBack,
    progress.ChunksOnRequest,
    progress.SentOnce,
    progress.CommitIsTold,
    progress.LeaderStepsDown,
)

__all__ = ["ALL", "Checks", "History", "Invariant", "Violation"]
