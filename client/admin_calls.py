"""What all parts of the admin client stand on: the session, and calls that any broker answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

import grpc

from penstock.client.connection import Connection, parse_bootstrap
from penstock.client.errors import ClientClosedError, UnknownTopicError
from penstock.client.retry import CallPolicy
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.reasons import Reason
from penstock.v1 import cluster_service_pb2

PAGE_SIZE = 1_000
T = TypeVar("T")


class AdminCalls:
    """What a change answered with is visible to later reads of the same instance."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        timeout_ms: int = 30_000,
        credentials: grpc.ChannelCredentials | None = None,
        address_map: Mapping[str, str] | None = None,
    ) -> None:
        self._bootstrap = parse_bootstrap(bootstrap)
        self._timeout_ms = timeout_ms
        self._credentials = credentials
        self._address_map = address_map
        self._seams = Seams()
        self._session: ClientSession | None = None
        self._version = 0

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Start. Needs no broker yet."""
        self._session = ClientSession(self._bootstrap, self._credentials, self._seams, self._address_map)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _read(self, rpc: Callable[[Connection], Any], request: object, returns: type[T]) -> T:
        """A read never shows less than one before it did, whichever node answers."""
        answer = await self._open_session().caller.call(rpc, request, returns, CallPolicy(self._timeout_ms))
        self._version = max(self._version, getattr(answer, "metadata_version", 0))
        return answer

    async def _change(
        self, rpc: Callable[[Connection], Any], request: object, returns: type[T], *, repeatable: bool
    ) -> T:
        policy = CallPolicy(self._timeout_ms, write=True, repeatable=repeatable)
        answer = await self._open_session().caller.call(rpc, request, returns, policy)
        self._version = max(self._version, getattr(answer, "metadata_version", 0))
        return answer

    async def _topic_ids(self, topics: Iterable[str]) -> dict[str, bytes]:
        """Ids of topics by name, as of now: one that was deleted and created again has another. UnknownTopicError."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        answer = await self._read(
            lambda c: c.cluster.GetMetadata,
            cluster_service_pb2.GetMetadataRequest(
                topics=cluster_service_pb2.TopicSelection(names=names), min_metadata_version=self._version
            ),
            cluster_service_pb2.GetMetadataResponse,
        )
        found = {topic.name: topic.topic_id for topic in answer.metadata.topics}
        for name in names:
            if name not in found:
                raise UnknownTopicError(Reason.UNKNOWN_TOPIC, f"topic {name!r} does not exist", {"topic": name})
        return found

    def _open_session(self) -> ClientSession:
        if self._session is None:
            raise ClientClosedError(Reason.NOT_SERVING, "the admin client is not open")
        return self._session
