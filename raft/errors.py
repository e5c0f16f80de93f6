"""What can go wrong in consensus, for callers inside the node."""


class SubmitRefused(Exception):  # noqa: N818  an outcome, not a fault
    """The command was not applied and never will be; submitting it again is safe."""


class OutcomeUnknown(Exception):  # noqa: N818  an outcome, not a fault
    """The command may be applied, now or later, or never."""


class RaftError(Exception):
    """Consensus on this node cannot start or has stopped; the message says what to do."""


class InvariantViolation(RaftError):  # noqa: N818  the name that STYLE.md fixes
    """What consensus rests on does not hold: the node stops before it does harm."""


class UnauditedLibraryError(RaftError):
    """The installed pysyncobj is not the one whose faults RaftMachine mends."""


class JournalError(RaftError):
    """The journal cannot be used."""


class NotFormattedError(JournalError):
    """There is no journal at this place."""


class AlreadyFormattedError(JournalError):
    """There is something at the place where a journal was to be made."""


class ForeignJournalError(JournalError):
    """The journal is another cluster's or another node's."""


class NewerFormatError(JournalError):
    """The journal was written by a newer version."""


class JournalLockedError(JournalError):
    """Another process has the journal open."""


class DamagedJournalError(JournalError):
    """The journal's content is not what was written."""


class JournalWriteError(JournalError):
    """A write could not be made durable. Never retried: the node stops."""


REPAIR = (
    "stop the node, move its data directory away, run `penstockd format --join` and start it: it is filled again from "
    "its peers, and votes once it is admitted. Never --new-cluster: what it voted for is forgotten"
)


def damaged(what: str) -> DamagedJournalError:
    """Name the damage and the way out."""
    return DamagedJournalError(f"the metadata journal is damaged: {what}; {REPAIR}")
