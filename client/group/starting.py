"""Where a member begins in the partitions it is given: at the committed offset, else as `start` says.

"latest" holds only where the group had committed nothing for the topic when the member joined (or subscribed), and for
what it was granted in its first generation after that: so what is added later is read from its beginning, and members
that join together begin alike.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from penstock.client.connection import Connection
from penstock.client.errors import InvalidRequestError, UnknownTopicError
from penstock.client.group.holds import Hold
from penstock.client.group.options import GroupConfig
from penstock.client.offsets import list_offsets
from penstock.client.options import ConsumerConfig
from penstock.client.records import TopicPartition
from penstock.client.retry import CallPolicy
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb


class Begin(NamedTuple):
    """Where to begin in a partition."""

    offset: int
    last_epoch: int | None = None
    """Leader epoch of the record before it, where it is known."""
    is_settled: bool = True
    """Else it is to be committed at once, so that whoever comes later begins there too."""
    error: PenstockError | None = None
    """For the application; the partition waits for a seek."""


class Starting:
    """See the module."""

    def __init__(self, group: GroupConfig, client: ConsumerConfig, session: ClientSession) -> None:
        self._group = group
        self._client = client
        self._session = session
        self._begun: frozenset[bytes] = frozenset()
        """Topics for which something was committed before the member joined or subscribed."""

    async def look(self) -> None:
        """Note for which topics the group has committed something; before joining, and before subscribing."""
        if self._group.start == "latest":
            answer = await fetch_offsets(
                self._session, pb.FetchOffsetsRequest(group_id=self._group.group), self._client
            )
            self._begun = frozenset(offset.topic_id for offset in answer.offsets)

    async def resolve(self, holds: Sequence[Hold], first_generation: int) -> dict[Hold, Begin]:
        """Find where to begin. Raises PenstockError: try again."""
        await self._know_topics(holds)
        begins = {hold: Begin(hold.committed.offset, hold.committed.leader_epoch) for hold in holds if hold.committed}
        ends: dict[TopicPartition, Literal["earliest", "latest"]] = {}
        for hold in holds:
            if hold.committed is None and self._group.start == "error":
                begins[hold] = Begin(0, error=self._nothing_committed(hold))
            elif hold.committed is None:
                ends[hold.partition] = "latest" if self._is_latest(hold, first_generation) else "earliest"
        found = await list_offsets(self._session, ends, self._client.isolation, self._client.request_timeout_ms)
        for hold in holds:
            if hold not in begins:
                is_latest = ends[hold.partition] == "latest"
                begins[hold] = Begin(found[hold.partition].offset, is_settled=not is_latest)
        return begins

    def _is_latest(self, hold: Hold, first_generation: int) -> bool:
        was_there = hold.granted_generation <= first_generation
        return self._group.start == "latest" and was_there and hold.key[0] not in self._begun

    def _nothing_committed(self, hold: Hold) -> PenstockError:
        topic, partition = hold.partition
        text = f"group {self._group.group!r} has no committed offset for {topic}-{partition}, and start is 'error'"
        return InvalidRequestError(Reason.INVALID_ARGUMENT, f"{text}: seek it, or set start to 'earliest' or 'latest'")

    async def _know_topics(self, holds: Sequence[Hold]) -> None:
        """Have all topics in the metadata, as new as the assignment is."""
        metadata = self._session.metadata
        timeout_ms = self._client.request_timeout_ms
        metadata.want(hold.partition.topic for hold in holds)
        for hold in holds:
            (topic_id, partition), name = hold.key, hold.partition.topic
            known = await metadata.topic(name, timeout_ms)
            if known.topic_id != topic_id or partition >= len(known.partitions):
                await metadata.refresh(timeout_ms)
                known = await metadata.topic(name, timeout_ms)
            if known.topic_id != topic_id or partition >= len(known.partitions):
                raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"{name}-{partition} is not in the metadata yet, or gone")


async def fetch_offsets(
    session: ClientSession, request: pb.FetchOffsetsRequest, config: ConsumerConfig
) -> pb.FetchOffsetsResponse:
    """Ask for committed offsets; a group that is not there has none."""
    policy = CallPolicy(config.request_timeout_ms, attempt_timeout_ms=5_000)
    try:
        return await session.caller.call(_fetch, request, pb.FetchOffsetsResponse, policy)
    except PenstockError as error:
        if error.reason is Reason.UNKNOWN_GROUP:
            return pb.FetchOffsetsResponse()
        raise


def _fetch(connection: Connection) -> object:
    return connection.groups.FetchOffsets
