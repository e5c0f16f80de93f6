"""Which replica a data request means, and what it hears where there is none."""

from typing import cast

import pytest

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.api.locate import Locator, PartitionSource
from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.view import View
from penstock.storage import PartitionKey
from tests.raft.metadata_world import World


class Replica:
    is_leader = True


class Replicas(dict[PartitionKey, Replica]):
    """Replicas of this node by topic id and partition."""

    def find(self, key: PartitionKey) -> Replica | None:
        return self.get(key)


class Stand:
    def __init__(self) -> None:
        self.world = World.with_nodes(3)
        self.replicas = Replicas()
        self.serving = True
        self.view = View()
        source = cast("PartitionSource", self.replicas)
        self.locator = Locator(1, self.view, source, lambda: self.serving)

    def create(self, label: str) -> bytes:
        topic_id = self.world.create("t", topic_id=label).topic_id
        self.replicas[PartitionKey(topic_id, 0)] = Replica()
        self.view.publish(self.world.image)
        return topic_id

    def refusal(self, topic_id: bytes) -> Reason:
        with pytest.raises(PenstockError) as refused:
            self.locator.leader_of(topic_id, 0)
        return refused.value.reason


def test_rule_24_a_request_for_a_deleted_topic_does_not_reach_its_successor() -> None:
    stand = Stand()
    former = stand.create("first")
    stand.world.do(delete_topic=pb.DeleteTopic(topic_id=former))
    del stand.replicas[PartitionKey(former, 0)]
    present = stand.create("second")
    assert stand.locator.topic_named("t").topic_id == present != former
    found = stand.locator.leader_of(present, 0)
    assert found is cast("Partition", stand.replicas[PartitionKey(present, 0)])
    assert stand.refusal(former) is Reason.UNKNOWN_TOPIC


def test_who_is_cut_off_denies_nothing() -> None:
    stand = Stand()
    topic_id = stand.create("first")
    stand.serving = False
    assert stand.refusal(topic_id) is Reason.NOT_SERVING
    assert stand.refusal(bytes(16)) is Reason.NOT_SERVING
