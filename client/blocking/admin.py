"""The blocking admin client."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import grpc

from penstock.client import admin as _admin
from penstock.client.blocking.groups import GroupAdmin
from penstock.client.descriptions import (
    BrokerDescription,
    BrokerLogs,
    BrokerUsage,
    ClusterDescription,
    HealthReport,
    PartitionOffset,
    StoreRoom,
    TopicDescription,
    TrimmedPartition,
)
from penstock.client.records import Isolation, Timestamp
from penstock.client.topic_config import ConfigValue
from penstock.client.trimming import TrimPoint


class Admin(GroupAdmin):
    """Creates, changes and describes; see penstock.client.Admin."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        timeout_ms: int = 30_000,
        credentials: grpc.ChannelCredentials | None = None,
        address_map: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._inner = _admin.Admin(bootstrap, timeout_ms=timeout_ms, credentials=credentials, address_map=address_map)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Start. Needs no broker yet."""
        self._start(self._inner.open)

    def close(self) -> None:
        """Close the connections."""
        if self._thread is not None:
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> TopicDescription:
        """See penstock.client.Admin.create_topic."""
        return self._run(
            self._inner.create_topic(
                name, partitions, replication_factor, config, assignments, validate_only=validate_only
            )
        )

    def delete_topic(self, name: str, *, validate_only: bool = False) -> None:
        """See penstock.client.Admin.delete_topic."""
        self._run(self._inner.delete_topic(name, validate_only=validate_only))

    def list_topics(self, *, include_internal: bool = False) -> list[TopicDescription]:
        """See penstock.client.Admin.list_topics."""
        return self._run(self._inner.list_topics(include_internal=include_internal))

    def describe_topic(self, name: str) -> TopicDescription:
        """See penstock.client.Admin.describe_topic."""
        return self._run(self._inner.describe_topic(name))

    def alter_topic(
        self,
        name: str,
        config: Mapping[str, ConfigValue] | None = None,
        *,
        reset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicDescription:
        """See penstock.client.Admin.alter_topic."""
        return self._run(self._inner.alter_topic(name, config, reset=reset, validate_only=validate_only))

    def add_partitions(self, name: str, partitions: int, *, validate_only: bool = False) -> TopicDescription:
        """See penstock.client.Admin.add_partitions."""
        return self._run(self._inner.add_partitions(name, partitions, validate_only=validate_only))

    def describe_cluster(self) -> ClusterDescription:
        """See penstock.client.Admin.describe_cluster."""
        return self._run(self._inner.describe_cluster())

    def list_brokers(self) -> list[BrokerDescription]:
        """See penstock.client.Admin.list_brokers."""
        return self._run(self._inner.list_brokers())

    def health(self) -> HealthReport:
        """See penstock.client.Admin.health."""
        return self._run(self._inner.health())

    def broker_usage(self) -> list[BrokerUsage]:
        """See penstock.client.Admin.broker_usage."""
        return self._run(self._inner.broker_usage())

    def trim_topic(
        self, topic: str, before: TrimPoint | Mapping[int, TrimPoint], *, partitions: Iterable[int] | None = None
    ) -> list[TrimmedPartition]:
        """See penstock.client.Admin.trim_topic."""
        return self._run(self._inner.trim_topic(topic, before, partitions=partitions))

    def list_logs(
        self,
        node_ids: Iterable[int] | None = None,
        *,
        topics: Iterable[str] | None = None,
        strays_only: bool = False,
    ) -> list[BrokerLogs]:
        """See penstock.client.Admin.list_logs."""
        return self._run(self._inner.list_logs(node_ids, topics=topics, strays_only=strays_only))

    def compact_store(self, node_id: int, *, validate_only: bool = False) -> StoreRoom:
        """See penstock.client.Admin.compact_store."""
        return self._run(self._inner.compact_store(node_id, validate_only=validate_only))

    def store_room(self, node_id: int) -> StoreRoom:
        """See penstock.client.Admin.store_room."""
        return self._run(self._inner.store_room(node_id))

    def list_offsets(
        self,
        topic: str,
        position: Literal["earliest", "latest"] | Timestamp = "latest",
        *,
        partitions: Iterable[int] | None = None,
        isolation: Isolation = "read_uncommitted",
    ) -> list[PartitionOffset]:
        """See penstock.client.Admin.list_offsets."""
        return self._run(self._inner.list_offsets(topic, position, partitions=partitions, isolation=isolation))
