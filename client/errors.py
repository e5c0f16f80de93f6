"""Errors that the client raises: PenstockError, with a subclass for each reason that programs tell apart.

Pure: the way from a failed gRPC call to one of them is in `failures`.
"""

from collections.abc import Mapping

from google.rpc import status_pb2

from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Outcome, Reason


class OutcomeUnknownError(PenstockError):
    """The write may or may not have happened, and nothing more can be found out."""


class NotLeaderError(PenstockError):
    """The node asked is not the leader or coordinator, or its leadership is older than the one named."""


class UnavailableError(PenstockError):
    """Nothing happened; nobody could serve the call in time. It may succeed later."""


class RequestTimeoutError(UnavailableError, TimeoutError):
    """The time allowed ran out before the call could be made or answered; it had no effect."""


class BufferFullError(PenstockError):
    """The producer's memory is full: wait for room, then send again."""


class ClientClosedError(PenstockError):
    """The client was closed before this could be done; it had no effect."""


class InvalidRequestError(PenstockError):
    """A value is missing, unspecified or out of its range."""


class UnknownTopicError(PenstockError):
    """No topic has this name or id (any more)."""


class UnknownPartitionError(PenstockError):
    """The topic has no partition of this index."""


class TopicExistsError(PenstockError):
    """A topic of this name exists."""


class UnknownGroupError(PenstockError):
    """No consumer group has this id."""


class GroupNotEmptyError(PenstockError):
    """The group has members: what was asked for needs them to be stopped first."""


class RecordTooLargeError(PenstockError):
    """A record is above the topic's limit."""


class ExpectedOffsetMismatchError(PenstockError):
    """The log end was not where the append expected it; nothing was appended."""


class ProducerFencedError(PenstockError):
    """A newer epoch of this producer exists; this one is of no more use."""


class CommitFailedError(PenstockError):
    """The member has the partition no more (`reason` says why): nothing was committed for it.

    Another member may have it already and reads it again from what was committed last. Go on polling; do not repeat
    the commit.
    """


class InstanceFencedError(PenstockError):
    """Another process has joined by the same instance_id; this one is of no more use."""


class OffsetOutOfRangeError(PenstockError):
    """The offset is below the log start or above the log end (see `reason`)."""


class LogDivergedError(PenstockError):
    """The log no longer holds what was read from it; `metadata["end_offset"]` says where that ends."""


class LogDamagedError(PenstockError):
    """What a server sent breaks a promise of the log: CRC, gapless offsets, rising leader epochs."""


_CLASSES: dict[Reason, type[PenstockError]] = {
    Reason.OUTCOME_UNKNOWN: OutcomeUnknownError,
    Reason.INTERNAL: OutcomeUnknownError,
    Reason.NOT_LEADER: NotLeaderError,
    Reason.STALE_LEADER_EPOCH: NotLeaderError,
    Reason.NOT_COORDINATOR: NotLeaderError,
    Reason.COORDINATOR_LOADING: UnavailableError,
    Reason.GROUP_FULL: UnavailableError,
    Reason.INSTANCE_FENCED: InstanceFencedError,
    Reason.INVALID_GROUP_ID: InvalidRequestError,
    Reason.INVALID_SUBSCRIPTION: InvalidRequestError,
    Reason.LEADER_NOT_AVAILABLE: UnavailableError,
    Reason.NOT_SERVING: UnavailableError,
    Reason.NO_CONTROLLER: UnavailableError,
    Reason.NOT_ENOUGH_REPLICAS: UnavailableError,
    Reason.METADATA_BEHIND: UnavailableError,
    Reason.STORE_FULL: UnavailableError,
    Reason.OVERLOADED: UnavailableError,
    Reason.INVALID_ARGUMENT: InvalidRequestError,
    Reason.INVALID_TOPIC_NAME: InvalidRequestError,
    Reason.INVALID_CONFIG: InvalidRequestError,
    Reason.INVALID_REPLICATION_FACTOR: InvalidRequestError,
    Reason.INVALID_TIMESTAMP: InvalidRequestError,
    Reason.KEY_REQUIRED: InvalidRequestError,
    Reason.UNKNOWN_TOPIC: UnknownTopicError,
    Reason.UNKNOWN_PARTITION: UnknownPartitionError,
    Reason.TOPIC_EXISTS: TopicExistsError,
    Reason.UNKNOWN_GROUP: UnknownGroupError,
    Reason.GROUP_NOT_EMPTY: GroupNotEmptyError,
    Reason.RECORD_TOO_LARGE: RecordTooLargeError,
    Reason.EXPECTED_OFFSET_MISMATCH: ExpectedOffsetMismatchError,
    Reason.PRODUCER_FENCED: ProducerFencedError,
    Reason.OFFSET_BELOW_START: OffsetOutOfRangeError,
    Reason.OFFSET_ABOVE_END: OffsetOutOfRangeError,
    Reason.DIVERGED: LogDivergedError,
}


def make_error(reason: Reason, message: str, metadata: Mapping[str, str] | None = None) -> PenstockError:
    """Make the error of the class that stands for `reason`."""
    return _CLASSES.get(reason, PenstockError)(reason, message, metadata)


def error_of(status: status_pb2.Status) -> PenstockError:
    """Make the error that a status inside a stream carries."""
    plain = from_status(status)
    return make_error(plain.reason, plain.message, plain.metadata)


def is_unknown(error: PenstockError) -> bool:
    """Say whether the call may have had its effect."""
    return error.outcome is Outcome.UNKNOWN


def is_retriable(error: PenstockError) -> bool:
    """Say whether nothing happened and the same call may succeed later or elsewhere."""
    return error.outcome is Outcome.RETRIABLE
