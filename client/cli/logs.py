"""What the logs of nodes are shown as: `penstock broker logs`, and the sizes in `penstock topic describe`.

A node that does not answer leaves dashes, never an error of the whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.client import Admin, BrokerLogs, LogDescription, PartitionDescription, PenstockError, TopicDescription
from penstock.client.cli.output import EXIT_FAILED, EXIT_OK, Cell, Table, error_document, say, show
from penstock.client.cli.settings import Settings

_SHOWN = (
    "node_id",
    "topic",
    "partition",
    "leader",
    "stray",
    "log_start_offset",
    "log_end_offset",
    "high_watermark",
    "size_bytes",
    "record_count",
    "cleaned_offset",
    "dirty_bytes",
)
REPLICA_COLUMNS = ("topic", "partition", "node", "role", "start", "end", "records", "bytes", "cleaned", "dirty_bytes")


def log_document(log: LogDescription) -> dict[str, Any]:
    """Give the form of a log in JSON output."""
    return {**{name: getattr(log, name) for name in _SHOWN}, "topic_id": log.topic_id.hex()}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The logs of topics, by topic id, partition and node."""

    logs: Mapping[tuple[bytes, int, int], LogDescription]

    @classmethod
    async def of(cls, admin: Admin, topics: Sequence[TopicDescription], *, all_replicas: bool) -> "Sizes":
        """Ask the leaders of the topics' partitions, or all nodes that have a replica."""
        nodes = {node for topic in topics for one in topic.partitions for node in _asked(one, all_replicas)}
        try:
            found = await admin.list_logs(nodes, topics=[topic.name for topic in topics]) if nodes else []
        except PenstockError:  # a topic or a node went meanwhile
            found = []
        return cls({(log.topic_id, log.partition, log.node_id): log for one in found for log in one.logs})

    def of_leader(self, topic: TopicDescription, partition: PartitionDescription) -> LogDescription | None:
        """The leader's log, where the leader answered."""
        leader = partition.leader
        return None if leader is None else self.logs.get((topic.topic_id, partition.partition, leader))

    def fields(self, topic: TopicDescription, partition: PartitionDescription, *, replicas: bool) -> dict[str, Any]:
        """What a partition has of it in JSON output; null where the leader did not answer."""
        log = self.of_leader(topic, partition)
        fields: dict[str, Any] = {
            "size_bytes": None if log is None else log.size_bytes,
            "record_count": None if log is None else log.record_count,
        }
        if replicas:
            fields["logs"] = [
                None if found is None else log_document(found) for found in self._replicas(topic, partition)
            ]
        return fields

    def totals(self, topic: TopicDescription) -> tuple[int | None, int | None]:
        """Records and bytes of all partitions; None where a leader did not answer."""
        found = [self.of_leader(topic, partition) for partition in topic.partitions]
        logs = [log for log in found if log is not None]
        if len(logs) < len(found):
            return None, None
        return sum(log.record_count for log in logs), sum(log.size_bytes for log in logs)

    def replica_table(self, topic: TopicDescription) -> Table:
        """A line for each replica of the topic."""
        rows: list[Sequence[Cell]] = []
        for one in topic.partitions:
            for node, log in zip(one.replicas, self._replicas(topic, one), strict=True):
                role = "leader" if node == one.leader else "in sync" if node in one.isr else "behind"
                compacts = "compact" in topic.config.cleanup_policy
                rows.append((topic.name, one.partition, node, role, *_figures(log, compacts=compacts)))
        return Table(REPLICA_COLUMNS, rows)

    def _replicas(self, topic: TopicDescription, partition: PartitionDescription) -> list[LogDescription | None]:
        return [self.logs.get((topic.topic_id, partition.partition, node)) for node in partition.replicas]


def _asked(partition: PartitionDescription, all_replicas: bool) -> Iterable[int]:
    if all_replicas:
        return partition.replicas
    return () if partition.leader is None else (partition.leader,)


def _figures(log: LogDescription | None, *, compacts: bool) -> tuple[int | None, ...]:
    if log is None:
        return (None,) * 6
    cleaned = (log.cleaned_offset, log.dirty_bytes) if compacts else (None, None)
    return log.log_start_offset, log.log_end_offset, log.record_count, log.size_bytes, *cleaned


def show_logs(settings: Settings, found: Sequence[BrokerLogs], compacted: Mapping[bytes, bool]) -> int:
    """Show the logs of brokers; the exit code. `compacted`: of the topics that there are, whether they are."""
    rows: list[Sequence[Cell]] = []
    for one in found:
        for log in one.logs:
            role = "stray" if log.stray else "leader" if log.leader else "follower"
            figures = _figures(log, compacts=compacted.get(log.topic_id, True))
            rows.append((one.node_id, log.topic or log.topic_id.hex(), log.partition, role, *figures))
    errors = {str(one.node_id): one.error for one in found if one.error is not None}
    document: dict[str, Any] = {"logs": [log_document(log) for one in found for log in one.logs]}
    if errors:
        document["errors"] = {node: error_document(error) for node, error in errors.items()}
    columns = ("node", "topic", "partition", "role", *REPLICA_COLUMNS[4:])
    show(settings, document, Table(columns, rows))
    if not settings.is_json:
        for node, error in errors.items():
            say(f"penstock: node {node} does not answer: {error}")
    return EXIT_FAILED if errors else EXIT_OK
