"""The asyncio admin client (signatures first; the body follows)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import grpc

from penstock.client.descriptions import (
    BrokerDescription,
    ClusterDescription,
    HealthReport,
    PartitionOffset,
    TopicDescription,
)
from penstock.client.records import Isolation, Timestamp

ConfigValue = str | int | bool | None


class Admin:
    """Creates, changes and describes. Config keys: fields of descriptions.TopicConfig; Kafka's dotted names work too."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        timeout_ms: int = 30_000,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    async def create_topic(  # noqa: PLR0913 - the fields of the request, by keyword
        self,
        name: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        assignments: Sequence[Sequence[int]] | None = None,
        validate_only: bool = False,  # noqa: FBT001,FBT002 - by keyword
    ) -> TopicDescription:
        """Create a topic."""
        raise NotImplementedError

    async def delete_topic(self, name: str, *, validate_only: bool = False) -> None:
        """Delete a topic."""
        raise NotImplementedError

    async def list_topics(self, *, include_internal: bool = False) -> list[TopicDescription]:
        """All topics, by name."""
        raise NotImplementedError

    async def describe_topic(self, name: str) -> TopicDescription:
        """One topic."""
        raise NotImplementedError

    async def alter_topic(
        self,
        name: str,
        config: Mapping[str, ConfigValue] | None = None,
        *,
        reset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicDescription:
        """Change settings."""
        raise NotImplementedError

    async def add_partitions(self, name: str, partitions: int, *, validate_only: bool = False) -> TopicDescription:
        """Raise the number of partitions to `partitions`."""
        raise NotImplementedError

    async def describe_cluster(self) -> ClusterDescription:
        """Brokers and topics at one metadata version."""
        raise NotImplementedError

    async def list_brokers(self) -> list[BrokerDescription]:
        """All registered nodes."""
        raise NotImplementedError

    async def health(self) -> HealthReport:
        """Is every partition served and fully replicated?"""
        raise NotImplementedError

    async def list_offsets(
        self,
        topic: str,
        position: Literal["earliest", "latest"] | Timestamp = "latest",
        *,
        partitions: Iterable[int] | None = None,
        isolation: Isolation = "read_uncommitted",
    ) -> list[PartitionOffset]:
        """Offsets of all or some partitions of a topic."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connections."""
        raise NotImplementedError
