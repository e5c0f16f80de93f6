"""All coordinators of this node: one for each partition of __offsets that it leads, made and ended with its leadership.

Owns who of them lives. A leadership is taken from the partition itself, never from the metadata alone: what acts in an
epoch has recorded it durably (rule 26). Loop thread only.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from penstock.node.group.commit_form import unknown_group
from penstock.node.group.coordinator import Coordinator, State, Surroundings
from penstock.node.group.joining import check_group_id
from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.image import NO_LEADER, OFFSETS_TOPIC, MetadataImage, PartitionInfo, TopicInfo, offsets_index
from penstock.storage import PartitionKey


class Places(Protocol):
    """Where the replicas of this node are found (see Locator, Replicas)."""

    def find(self, key: PartitionKey) -> Partition | None:
        """Return the replica of this node, or None."""
        ...


class Coordinators:
    """`check_serving` raises NOT_SERVING. `ensure`: makes the internal topic and waits until this node shows it."""

    def __init__(
        self,
        node_id: int,
        replicas: Places,
        check_serving: Callable[[], None],
        ensure: Callable[[float], Awaitable[None]],
        surroundings: Surroundings,
    ) -> None:
        self._node_id = node_id
        self._replicas = replicas
        self._check_serving = check_serving
        self._ensure = ensure
        self._node = surroundings
        self._watched: dict[PartitionKey, tuple[Partition, Callable[[], None]]] = {}
        self._coordinators: dict[PartitionKey, Coordinator] = {}
        self._closed = False

    # ---- who coordinates

    def find(self, group_id: str) -> Coordinator:
        """Return the coordinator of the group, if it is here and serves.

        Raises INVALID_GROUP_ID, NOT_COORDINATOR with its place, COORDINATOR_LOADING, LEADER_NOT_AVAILABLE, NOT_SERVING;
        UNKNOWN_GROUP where no group was ever made.
        """
        check_group_id(group_id)
        self._check_serving()
        topic, index = self._place(group_id)
        coordinator = self._coordinators.get(PartitionKey(topic.topic_id, index))
        if coordinator is None or coordinator.state is State.OVER:
            raise self._elsewhere(topic, index)
        if coordinator.state is State.LOADING:
            text = f"the coordinator of partition {index} of {OFFSETS_TOPIC} reads the offsets of its groups"
            raise PenstockError(Reason.COORDINATOR_LOADING, text)
        return coordinator

    async def ensure(self, group_id: str, timeout_s: float) -> None:
        """Make __offsets where there is none: for calls that may make the group. Raises INVALID_GROUP_ID."""
        check_group_id(group_id)
        if OFFSETS_TOPIC not in self._node.image().topic_ids:
            self._check_serving()
            await self._ensure(timeout_s)

    def place(self, group_id: str) -> PartitionInfo:
        """Return the partition of __offsets that is the group's. Raises INVALID_GROUP_ID, UNKNOWN_GROUP."""
        check_group_id(group_id)
        topic, index = self._place(group_id)
        return topic.partitions[index]

    def _place(self, group_id: str) -> tuple[TopicInfo, int]:
        image = self._node.image()
        topic = image.topics.get(image.topic_ids.get(OFFSETS_TOPIC, b""))
        if topic is None:
            self._check_serving()  # metadata that is behind must not deny what exists
            raise unknown_group(group_id)
        return topic, offsets_index(group_id, len(topic.partitions))

    def _elsewhere(self, topic: TopicInfo, index: int) -> PenstockError:
        """NOT_COORDINATOR with the place of the one that is; LEADER_NOT_AVAILABLE where there is none yet."""
        info = topic.partitions[index]
        where = {"leader_epoch": str(info.leader_epoch), "offsets_partition": str(index)}
        name = f"partition {index} of {OFFSETS_TOPIC}"
        if info.leader in {NO_LEADER, self._node_id}:
            what = "has no leader now" if info.leader == NO_LEADER else "is about to be led by this node"
            return PenstockError(Reason.LEADER_NOT_AVAILABLE, f"{name} {what}: its groups have no coordinator", where)
        where["coordinator"] = str(info.leader)
        node = self._node.image().nodes.get(info.leader)
        if node is not None:
            where |= {"host": node.client_address.host, "port": str(node.client_address.port)}
        text = f"node {info.leader}, which leads {name}, coordinates the group"
        return PenstockError(Reason.NOT_COORDINATOR, text, where)

    # ---- their lives

    def on_image(self, old: MetadataImage, new: MetadataImage) -> None:
        """The metadata changed, and this node's replicas have acted on it."""
        self.look()
        for coordinator in list(self._coordinators.values()):
            coordinator.on_image(old, new)

    def look(self) -> None:
        """See which partitions this node leads. Called when metadata or registration change."""
        if self._closed:
            return
        image = self._node.image()
        topic = image.topics.get(image.topic_ids.get(OFFSETS_TOPIC, b""))
        infos = () if topic is None else topic.partitions
        keys = [] if topic is None else [PartitionKey(topic.topic_id, info.partition) for info in infos]
        replicas = {key: replica for key in keys if (replica := self._replicas.find(key)) is not None}
        for key, (watched, unsubscribe) in list(self._watched.items()):
            if replicas.get(key) is not watched:
                unsubscribe()
                del self._watched[key]
                self._end(key)
        for key, replica in replicas.items():
            if key not in self._watched:
                self._watched[key] = (replica, replica.on_progress(partial(self._look_at, key, replica)))
            self._look_at(key, replica)

    def _look_at(self, key: PartitionKey, replica: Partition) -> None:
        """Begin and end with the leadership. Called for every progress of the partition: mostly nothing."""
        epoch = replica.leader_epoch if replica.is_leader else None
        coordinator = self._coordinators.get(key)
        if coordinator is not None and coordinator.leader_epoch != epoch:
            self._end(key)
            coordinator = None
        if coordinator is None and epoch is not None:
            self._coordinators[key] = Coordinator(replica, epoch, self._node)

    def _end(self, key: PartitionKey) -> None:
        coordinator = self._coordinators.pop(key, None)
        if coordinator is None:
            return
        topic = self._node.image().topics.get(key.topic_id)
        if topic is None:
            coordinator.close(PenstockError(Reason.LEADER_NOT_AVAILABLE, f"{OFFSETS_TOPIC} is gone"))
        else:
            coordinator.close(self._elsewhere(topic, key.partition))

    def tick(self, now_ms: int) -> None:
        """Every few hundred ms. Monotonic time."""
        for coordinator in list(self._coordinators.values()):
            coordinator.tick(now_ms)

    def close(self) -> None:
        """The node stops: it coordinates no more."""
        self._closed = True
        for key, (_, unsubscribe) in self._watched.items():
            unsubscribe()
            self._end(key)
        self._watched.clear()
