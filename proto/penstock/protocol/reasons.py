"""Every error reason of the API: its gRPC code and what a client may conclude from it.

The one table behind docs/protocol.md, the server's status builder and the clients' retries.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

DOMAIN = "penstock"
"""`google.rpc.ErrorInfo.domain` of every error."""


class Outcome(Enum):
    """What an error says about the effect of the call."""

    DEFINITE = "definite"
    """Nothing happened, and the same call will fail again."""
    RETRIABLE = "retriable"
    """Nothing happened; the same call may succeed later or elsewhere."""
    UNKNOWN = "unknown"
    """It may or may not have happened. Only an idempotent call may be repeated."""


class Code(IntEnum):
    """The canonical gRPC codes that reasons use; numbers as in google.rpc.Code."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Meaning(NamedTuple):
    """Row of the table."""

    code: Code
    outcome: Outcome
    text: str


_D, _R, _U = Outcome.DEFINITE, Outcome.RETRIABLE, Outcome.UNKNOWN
_C = Code


class Reason(Enum):
    """`google.rpc.ErrorInfo.reason`: the member's name."""

    INVALID_ARGUMENT = Meaning(_C.INVALID_ARGUMENT, _D, "a field is missing, unspecified or out of its range")
    INVALID_TOPIC_NAME = Meaning(_C.INVALID_ARGUMENT, _D, "the topic name is not 1 to 249 of [a-zA-Z0-9._-]")
    INVALID_CONFIG = Meaning(_C.INVALID_ARGUMENT, _D, "a setting is unknown, out of range, or does not fit another")
    INVALID_REPLICATION_FACTOR = Meaning(_C.INVALID_ARGUMENT, _D, "the replication factor is above the number of nodes")
    INVALID_BATCH = Meaning(_C.INVALID_ARGUMENT, _D, "the record batch is malformed")
    CORRUPT_BATCH = Meaning(_C.INVALID_ARGUMENT, _D, "the CRC of the batch does not match")
    RECORD_TOO_LARGE = Meaning(_C.INVALID_ARGUMENT, _D, "a record or its batch is above the topic's limit")
    INVALID_TIMESTAMP = Meaning(_C.INVALID_ARGUMENT, _D, "a timestamp is outside the allowed skew")
    KEY_REQUIRED = Meaning(_C.INVALID_ARGUMENT, _D, "a record has no key, and the topic is compacted")
    UNKNOWN_TOPIC = Meaning(_C.NOT_FOUND, _D, "no topic has this name or id")
    UNKNOWN_PARTITION = Meaning(_C.NOT_FOUND, _D, "the topic has no partition of this index")
    TOPIC_EXISTS = Meaning(_C.ALREADY_EXISTS, _D, "a topic of this name exists")
    EXPECTED_OFFSET_MISMATCH = Meaning(_C.FAILED_PRECONDITION, _D, "the log end is not where the append expects it")
    OFFSET_BELOW_START = Meaning(_C.OUT_OF_RANGE, _D, "the offset is below the log start: its records were dropped")
    OFFSET_ABOVE_END = Meaning(_C.OUT_OF_RANGE, _D, "the offset is above the log end: check for divergence")
    DIVERGED = Meaning(_C.FAILED_PRECONDITION, _D, "the log does not hold what was read; metadata says where to go on")
    OUT_OF_ORDER_SEQUENCE = Meaning(_C.FAILED_PRECONDITION, _D, "batches of this producer before this one are missing")
    UNKNOWN_PRODUCER = Meaning(_C.FAILED_PRECONDITION, _D, "the producer is not known here and its sequence is not 0")
    PRODUCER_FENCED = Meaning(_C.FAILED_PRECONDITION, _D, "a newer epoch of this producer exists")
    INVALID_GROUP_ID = Meaning(_C.INVALID_ARGUMENT, _D, "the group id is empty or longer than 249 characters")
    INVALID_SUBSCRIPTION = Meaning(_C.INVALID_ARGUMENT, _D, "it names no topic, or its pattern is no RE2 expression")
    UNKNOWN_GROUP = Meaning(_C.NOT_FOUND, _D, "no group has this id")
    GROUP_NOT_EMPTY = Meaning(_C.FAILED_PRECONDITION, _D, "the group has members: stop them first")
    UNKNOWN_MEMBER = Meaning(_C.FAILED_PRECONDITION, _D, "no such member in the group: it was removed, or never joined")
    INSTANCE_FENCED = Meaning(_C.FAILED_PRECONDITION, _D, "another member has joined by this instance_id")
    MEMBER_REPLACED = Meaning(_C.FAILED_PRECONDITION, _D, "the member has a newer stream")
    STALE_GENERATION = Meaning(_C.FAILED_PRECONDITION, _D, "the partition was given anew since this generation")
    PARTITION_NOT_OWNED = Meaning(_C.FAILED_PRECONDITION, _D, "the member does not have the partition it commits for")
    STALE_COMMIT = Meaning(_C.FAILED_PRECONDITION, _D, "a later commit of this member came before")
    UNSUPPORTED = Meaning(_C.UNIMPLEMENTED, _D, "this node's version or feature level cannot do it")
    NOT_LEADER = Meaning(_C.FAILED_PRECONDITION, _R, "this node is not the leader; metadata has leader and epoch")
    STALE_LEADER_EPOCH = Meaning(_C.FAILED_PRECONDITION, _R, "the request's leader epoch is lower than the partition's")
    LEADER_NOT_AVAILABLE = Meaning(_C.UNAVAILABLE, _R, "no replica can lead the partition now")
    NOT_SERVING = Meaning(_C.UNAVAILABLE, _R, "the node is starting, draining, or cut off from the controller")
    NO_CONTROLLER = Meaning(_C.UNAVAILABLE, _R, "no controller is known now")
    NOT_ENOUGH_REPLICAS = Meaning(_C.UNAVAILABLE, _R, "fewer replicas are in sync than min_insync_replicas")
    NOT_COORDINATOR = Meaning(
        _C.FAILED_PRECONDITION, _R, "another node coordinates the group; metadata has its address"
    )
    COORDINATOR_LOADING = Meaning(_C.UNAVAILABLE, _R, "the coordinator is new and still reads the group's offsets")
    INSTANCE_IN_USE = Meaning(_C.FAILED_PRECONDITION, _R, "a member with this instance_id is connected")
    GROUP_FULL = Meaning(_C.RESOURCE_EXHAUSTED, _R, "a limit of members or groups is reached")
    STORE_FULL = Meaning(_C.RESOURCE_EXHAUSTED, _R, "the node's store is at its limit; reads go on")
    OVERLOADED = Meaning(_C.RESOURCE_EXHAUSTED, _R, "a limit of requests in flight is reached")
    METADATA_BEHIND = Meaning(_C.UNAVAILABLE, _R, "the node has not yet applied the metadata version named")
    OUTCOME_UNKNOWN = Meaning(_C.UNKNOWN, _U, "deadline or leadership change while the write was under way")
    INTERNAL = Meaning(_C.INTERNAL, _U, "a fault of the server; its log has the details")

    @property
    def code(self) -> Code:
        """The gRPC code that carries this reason."""
        return self.value.code

    @property
    def outcome(self) -> Outcome:
        """What a client may conclude."""
        return self.value.outcome

    @property
    def text(self) -> str:
        """One sentence for the documentation."""
        return self.value.text
