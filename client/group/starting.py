"""Where a member begins in the partitions it is given: at the committed offset, else as `start` says.

"latest" holds only where the group had committed nothing for the topic when the member joined (or subscribed), and for
what it was granted in its first generation after that: so what is added later is read from its beginning, and members
that join together begin alike.
"""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from penstock.client.connection import Connection
from penstock.client.errors import InvalidRequestError
from penstock.client.group.holds import Hold
from penstock.client.group.options import GroupConfig
from penstock.client.offsets import ask_leaders
from penstock.client.options import ConsumerConfig
from penstock.client.records import TopicPartition
from penstock.client.retry import CallPolicy
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

_LOG = logging.getLogger("penstock.client")


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
        """Find where to begin in those of which that can be known now: no partition waits for another one's leader.

        They are in the metadata when this returns. Raises PenstockError. Try again for those that are missing.
        """
        there = await self._known(holds)
        begins = {hold: Begin(hold.committed.offset, hold.committed.leader_epoch) for hold in there if hold.committed}
        ends: dict[TopicPartition, Literal["earliest", "latest"]] = {}
        for hold in there:
            if hold.committed is None and self._group.start == "error":
                begins[hold] = Begin(0, error=self._nothing_committed(hold))
            elif hold.committed is None:
                ends[hold.partition] = "latest" if self._is_latest(hold, first_generation) else "earliest"
        answer = await ask_leaders(self._session, ends, self._client.isolation)
        for hold in there:
            if hold.partition in answer.found and hold not in begins:
                is_latest = ends[hold.partition] == "latest"
                begins[hold] = Begin(answer.found[hold.partition].offset, is_settled=not is_latest)
        found = {hold: begin for hold, begin in begins.items() if self._is_known(hold)}
        if len(found) < len(holds):
            why = answer.final or answer.passing or "the leader, or the topic, is not known"
            level = logging.DEBUG if answer.final is None else logging.WARNING
            _LOG.log(level, "where to begin in %d partitions is not known yet: %s", len(holds) - len(found), why)
            self._session.metadata.refresh_soon()
        return found

    def _is_latest(self, hold: Hold, first_generation: int) -> bool:
        was_there = hold.granted_generation <= first_generation
        return self._group.start == "latest" and was_there and hold.key[0] not in self._begun

    def _nothing_committed(self, hold: Hold) -> PenstockError:
        topic, partition = hold.partition
        text = f"group {self._group.group!r} has no committed offset for {topic}-{partition}, and start is 'error'"
        return InvalidRequestError(Reason.INVALID_ARGUMENT, f"{text}: seek it, or set start to 'earliest' or 'latest'")

    async def _known(self, holds: Sequence[Hold]) -> list[Hold]:
        """Those that the metadata has, as new as the assignment is."""
        metadata = self._session.metadata
        metadata.want(hold.partition.topic for hold in holds)
        if not all(map(self._is_known, holds)):
            await metadata.refresh(self._client.request_timeout_ms)
        return [hold for hold in holds if self._is_known(hold)]

    def _is_known(self, hold: Hold) -> bool:
        topic_id, partition = hold.key
        known = self._session.metadata.catalog.topics.get(hold.partition.topic)
        return known is not None and known.topic_id == topic_id and partition < len(known.partitions)


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
