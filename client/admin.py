"""The asyncio admin client: creates, changes and describes topics; describes brokers, cluster, health, offsets, groups.

Every call goes to any broker that answers, has a deadline, and is repeated where that does no harm: reads, calls with a
request id, absolute settings. What a change answered with is visible to later reads of the same Admin.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from penstock.client.admin_calls import PAGE_SIZE
from penstock.client.descriptions import (
    BrokerDescription,
    BrokerLogs,
    BrokerUsage,
    ClusterDescription,
    HealthProblem,
    HealthReport,
    PartitionDescription,
    PartitionOffset,
    StoreRoom,
    TopicDescription,
    TrimmedPartition,
)
from penstock.client.errors import InvalidRequestError
from penstock.client.groups import GroupAdmin
from penstock.client.logs import LogSelection, list_logs
from penstock.client.offsets import list_offsets
from penstock.client.records import Isolation, Timestamp, TopicPartition
from penstock.client.topic_config import ConfigValue, config_message, config_of, names_of_none, reset_names
from penstock.client.trimming import TrimPoint, points_of, trim
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import cluster_service_pb2, common_pb2, topic_service_pb2

USAGE_TIMEOUT_MS = 5_000
"""A node asked for its usage that takes longer counts as not answering."""
_DURABILITY = {
    common_pb2.DURABILITY_COMMIT: "commit",
    common_pb2.DURABILITY_INTERVAL: "interval",
    common_pb2.DURABILITY_OS: "os",
}
_STORE_STATES = {
    common_pb2.STORE_STATE_OK: "ok",
    common_pb2.STORE_STATE_NEARLY_FULL: "nearly-full",
    common_pb2.STORE_STATE_FULL: "full",
}


class Admin(GroupAdmin):
    """Use it as an async context manager. Settings of topics: the names of descriptions.TopicConfig, or Kafka's."""

    # -- topics

    async def create_topic(
        self,
        name: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> TopicDescription:
        """Create a topic. Safe to repeat after a lost answer: the call carries a request id.

        Without `partitions` and `replication_factor` the cluster's defaults hold; `assignments` gives the replicas of
        each partition instead. Raises TopicExistsError, InvalidRequestError.
        """
        request = topic_service_pb2.CreateTopicRequest(
            name=name,
            partitions=partitions or 0,
            replication_factor=replication_factor or 0,
            config=config_message(config),
            assignments=[topic_service_pb2.ReplicaAssignment(replicas=replicas) for replicas in assignments or ()],
            request_id=self._open_session().unique(),
            validate_only=validate_only,
        )
        answer = await self._change(
            lambda c: c.topics.CreateTopic, request, topic_service_pb2.CreateTopicResponse, repeatable=True
        )
        return _topic(answer.topic)

    async def delete_topic(self, name: str, *, validate_only: bool = False) -> None:
        """Delete a topic and its records. Raises UnknownTopicError; OutcomeUnknownError where the answer was lost."""
        await self._change(
            lambda c: c.topics.DeleteTopic,
            topic_service_pb2.DeleteTopicRequest(name=name, validate_only=validate_only),
            topic_service_pb2.DeleteTopicResponse,
            repeatable=False,
        )

    async def list_topics(self, *, include_internal: bool = False) -> list[TopicDescription]:
        """Give all topics, by name."""
        topics: list[TopicDescription] = []
        token = ""
        while True:
            answer = await self._read(
                lambda c: c.topics.ListTopics,
                topic_service_pb2.ListTopicsRequest(
                    page_size=PAGE_SIZE,
                    page_token=token,
                    include_internal=include_internal,
                    min_metadata_version=self._version,
                ),
                topic_service_pb2.ListTopicsResponse,
            )
            topics += [_topic(topic) for topic in answer.topics]
            token = answer.next_page_token
            if not token:
                return topics

    async def describe_topic(self, name: str) -> TopicDescription:
        """Give one topic. Raises UnknownTopicError."""
        answer = await self._read(
            lambda c: c.topics.DescribeTopic,
            topic_service_pb2.DescribeTopicRequest(name=name, min_metadata_version=self._version),
            topic_service_pb2.DescribeTopicResponse,
        )
        return _topic(answer.topic)

    async def alter_topic(
        self,
        name: str,
        config: Mapping[str, ConfigValue] | None = None,
        *,
        reset: Iterable[str] = (),
        validate_only: bool = False,
    ) -> TopicDescription:
        """Change the settings in `config`; put those named in `reset` back to their defaults; keep the others."""
        request = topic_service_pb2.AlterTopicRequest(
            name=name,
            config=config_message(config),
            reset=[*reset_names(reset), *names_of_none(config)],
            validate_only=validate_only,
        )
        answer = await self._change(
            lambda c: c.topics.AlterTopic, request, topic_service_pb2.AlterTopicResponse, repeatable=True
        )
        return _topic(answer.topic)

    async def add_partitions(self, name: str, partitions: int, *, validate_only: bool = False) -> TopicDescription:
        """Raise the number of partitions to `partitions`. Keys may then go to other partitions than before."""
        answer = await self._change(
            lambda c: c.topics.AddPartitions,
            topic_service_pb2.AddPartitionsRequest(name=name, partitions=partitions, validate_only=validate_only),
            topic_service_pb2.AddPartitionsResponse,
            repeatable=False,
        )
        return _topic(answer.topic)

    # -- cluster

    async def describe_cluster(self) -> ClusterDescription:
        """Give brokers and topics at one metadata version."""
        answer = await self._read(
            lambda c: c.cluster.GetMetadata,
            cluster_service_pb2.GetMetadataRequest(min_metadata_version=self._version),
            cluster_service_pb2.GetMetadataResponse,
        )
        metadata = answer.metadata
        return ClusterDescription(
            metadata.cluster_id,
            metadata.metadata_version,
            metadata.controller if metadata.HasField("controller") else None,
            metadata.feature_level,
            tuple(_broker(broker) for broker in metadata.brokers),
            tuple(_topic(topic) for topic in metadata.topics),
        )

    async def list_brokers(self) -> list[BrokerDescription]:
        """Give all registered nodes, by id."""
        brokers: list[BrokerDescription] = []
        token = ""
        while True:
            answer = await self._read(
                lambda c: c.cluster.ListBrokers,
                cluster_service_pb2.ListBrokersRequest(page_size=PAGE_SIZE, page_token=token),
                cluster_service_pb2.ListBrokersResponse,
            )
            brokers += [_broker(broker) for broker in answer.brokers]
            token = answer.next_page_token
            if not token:
                return brokers

    async def health(self) -> HealthReport:
        """Say whether every partition is served and fully replicated, and what is wrong."""
        answer = await self._read(
            lambda c: c.cluster.GetHealth,
            cluster_service_pb2.GetHealthRequest(min_metadata_version=self._version),
            cluster_service_pb2.GetHealthResponse,
        )
        problems = tuple(HealthProblem(p.reason, p.message, dict(p.metadata)) for p in answer.problems)
        return HealthReport(answer.healthy, problems, answer.metadata_version)

    async def broker_usage(self) -> list[BrokerUsage]:
        """Ask each registered node what its process has used, all at once; by id. Who does not answer says why."""
        return list(await asyncio.gather(*map(self._usage, await self.list_brokers())))

    async def list_offsets(
        self,
        topic: str,
        position: Literal["earliest", "latest"] | Timestamp = "latest",
        *,
        partitions: Iterable[int] | None = None,
        isolation: Isolation = "read_uncommitted",
    ) -> list[PartitionOffset]:
        """Give the offsets of all or some partitions of a topic, by partition, each asked of its leader."""
        session = self._open_session()
        known = await session.metadata.topic(topic, self._timeout_ms)
        chosen = range(len(known.partitions)) if partitions is None else sorted(set(partitions))
        wanted = {TopicPartition(topic, index): position for index in chosen}
        found = await list_offsets(session, wanted, isolation, self._timeout_ms)
        return [found[partition] for partition in wanted]

    async def trim_topic(
        self, topic: str, before: TrimPoint | Mapping[int, TrimPoint], *, partitions: Iterable[int] | None = None
    ) -> list[TrimmedPartition]:
        """Delete the oldest records of all or some partitions of a topic, for good; what became of each, by partition.

        `before`: an offset, at most the high watermark; a Timestamp (all before the first record at or after it); or
        "everything", which is what was committed when the call began. Or one of these for each partition. Harmless to
        repeat: after an OutcomeUnknownError in a result, too. Errors of single partitions are in their results; what is
        raised came before anything was deleted.
        """
        session = self._open_session()
        known = await session.metadata.topic(topic, self._timeout_ms)
        wanted = points_of(topic, len(known.partitions), before, partitions)
        return list((await trim(session, wanted, self._timeout_ms)).values())

    async def list_logs(
        self,
        node_ids: Iterable[int] | None = None,
        *,
        topics: Iterable[str] | None = None,
        strays_only: bool = False,
    ) -> list[BrokerLogs]:
        """Ask all or some nodes, all at once, for the logs in their stores; by node. Who does not answer says why.

        `topics`: the logs of these only. Raises InvalidRequestError where no node has an id, UnknownTopicError.
        """
        cluster = await self.describe_cluster()
        selection = LogSelection.of(cluster, node_ids, topics, strays_only=strays_only)
        return await list_logs(self._open_session(), selection, self._timeout_ms)

    async def compact_store(self, node_id: int, *, validate_only: bool = False) -> StoreRoom:
        """Let a node give its store's free room back; answered, with the figures from before, when it begins.

        The node leaves, copies its store, comes back with a higher node_epoch and catches up. Raises
        InvalidRequestError where there is no such node; UnavailableError where it cannot be spared now, there is no
        room for the copy, or it does not serve; OutcomeUnknownError where the answer was lost.
        """
        brokers = {broker.node_id: broker for broker in await self.list_brokers()}
        if node_id not in brokers:
            text = f"no node {node_id} is registered; there are {sorted(brokers)}"
            raise InvalidRequestError(Reason.INVALID_ARGUMENT, text)
        answer = await self._open_session().caller.once(
            lambda c: c.cluster.CompactStore,
            cluster_service_pb2.CompactStoreRequest(validate_only=validate_only),
            cluster_service_pb2.CompactStoreResponse,
            f"{brokers[node_id].host}:{brokers[node_id].port}",
            self._timeout_ms,
            write=not validate_only,
        )
        return StoreRoom(answer.node_id, answer.used_bytes, answer.disk_bytes)

    async def store_room(self, node_id: int) -> StoreRoom:
        """What a node's store has of the disk, also where it could not be compacted now. Raises as `compact_store`."""
        try:
            return await self.compact_store(node_id, validate_only=True)
        except PenstockError as error:
            try:
                return StoreRoom(node_id, int(error.metadata["used_bytes"]), int(error.metadata["disk_bytes"]))
            except KeyError:
                raise error from None

    # -- inside

    async def _usage(self, broker: BrokerDescription) -> BrokerUsage:
        try:
            answer = await self._open_session().caller.once(
                lambda c: c.cluster.GetBrokerUsage,
                cluster_service_pb2.GetBrokerUsageRequest(),
                cluster_service_pb2.GetBrokerUsageResponse,
                f"{broker.host}:{broker.port}",
                min(self._timeout_ms, USAGE_TIMEOUT_MS),
            )
        except PenstockError as error:
            return BrokerUsage(broker.node_id, None, None, None, error)
        used = BrokerUsage(broker.node_id, answer.cpu_time_ms, answer.resident_bytes, answer.uptime_ms)
        if answer.store_state == common_pb2.STORE_STATE_UNSPECIFIED:  # an older version
            return used
        return replace(
            used,
            store_state=_STORE_STATES.get(answer.store_state, str(answer.store_state)),
            store_used_bytes=answer.store_used_bytes,
            store_capacity_bytes=answer.store_capacity_bytes,
            store_disk_bytes=answer.store_disk_bytes,
            disk_free_bytes=answer.disk_free_bytes,
            retention_paused=answer.retention_paused,
        )


def _topic(topic: topic_service_pb2.Topic) -> TopicDescription:
    return TopicDescription(
        topic.topic_id,
        topic.name,
        topic.replication_factor,
        config_of(topic.config),
        tuple(map(_partition, topic.partitions)),
    )


def _partition(partition: topic_service_pb2.Partition) -> PartitionDescription:
    return PartitionDescription(
        partition=partition.partition,
        leader=partition.leader if partition.HasField("leader") else None,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        replicas=tuple(partition.replicas),
        isr=tuple(partition.isr),
        elr=tuple(partition.elr),
    )


def _broker(broker: cluster_service_pb2.Broker) -> BrokerDescription:
    return BrokerDescription(
        node_id=broker.node_id,
        host=broker.host,
        port=broker.port,
        rack=broker.rack,
        node_epoch=broker.node_epoch,
        fenced=broker.fenced,
        durability=_DURABILITY.get(broker.durability, str(broker.durability)),
        voter=broker.voter,
        version=broker.version,
        store_state=_STORE_STATES.get(broker.store_state),
    )
