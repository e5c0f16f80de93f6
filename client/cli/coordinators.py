"""Which node coordinates how much: for `penstock cluster`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.client import Admin, ClusterDescription, PenstockError
from penstock.protocol.reasons import Reason

OFFSETS_TOPIC = "__offsets"
"""The internal topic whose leaders coordinate the groups."""


@dataclass(frozen=True, slots=True)
class Coordinators:
    """Groups and their coordinators."""

    partitions: Mapping[int, int]
    """Of the offsets topic: how many each node leads."""
    groups: Mapping[int | None, int]
    """How many each node coordinates; under None those that nobody does now."""
    rebalancing: int

    @classmethod
    async def of(cls, admin: Admin, cluster: ClusterDescription) -> "Coordinators | None":
        """Ask; None: the cluster has no groups yet, its version is older."""
        try:
            groups = await admin.list_groups()
        except PenstockError as error:
            if error.reason is Reason.UNSUPPORTED:
                return None
            raise
        led = Counter(
            partition.leader
            for topic in cluster.topics
            if topic.name == OFFSETS_TOPIC
            for partition in topic.partitions
            if partition.leader is not None
        )
        counted = Counter(group.coordinator for group in groups)
        return cls(led, counted, sum(group.state == "rebalancing" for group in groups))

    def of_node(self, node_id: int) -> tuple[int, int]:
        """Partitions of the offsets topic that a node leads, and groups that it coordinates."""
        return self.partitions.get(node_id, 0), self.groups.get(node_id, 0)

    def fields(self) -> dict[str, Any]:
        """What `cluster status` adds."""
        return {
            "groups": sum(self.groups.values()),
            "groups_rebalancing": self.rebalancing,
            "groups_without_coordinator": self.groups.get(None, 0),
        }

    def documents(self, cluster: ClusterDescription) -> list[dict[str, Any]]:
        """What `cluster describe` adds in JSON: an object for each node."""
        found = [(broker.node_id, *self.of_node(broker.node_id)) for broker in cluster.brokers]
        return [{"node_id": node, "offsets_partitions": led, "groups": groups} for node, led, groups in found]
