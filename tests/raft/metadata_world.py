"""A metadata image that tests drive by commands, with every invariant checked after each."""

from collections.abc import Iterable, Sequence

from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft import state
from penstock.raft.command import SUPPORTED_LEVEL, encode
from penstock.raft.image import EMPTY_IMAGE, NO_LEADER, MetadataImage, PartitionInfo, TopicInfo
from penstock.raft.members import is_full
from penstock.raft.records import config_record, decode_image, encode_image
from penstock.raft.topic_config import TopicConfig
from penstock.v1 import common_pb2 as common
from tests.raft import group_checks

CLUSTER = "c1"


def id16(text: str) -> bytes:
    """16 bytes that a test can read."""
    return text.encode().ljust(16, b".")[:16]


class World:
    """One state machine. Every command goes through its encoded form."""

    def __init__(self, image: MetadataImage = EMPTY_IMAGE) -> None:
        self.image = image
        self.index = image.version
        self.journal: list[bytes] = []
        self.supported_level = SUPPORTED_LEVEL

    @classmethod
    def with_nodes(
        cls, count: int = 3, durability: int = common.DURABILITY_COMMIT, level: int = SUPPORTED_LEVEL
    ) -> "World":
        """A cluster of this feature level whose nodes 1 to `count` have registered."""
        world = cls()
        world.supported_level = level
        world.do(genesis=pb.Genesis(cluster_id=CLUSTER, feature_level=level))
        for node_id in range(1, count + 1):
            world.register(node_id, durability=durability)
        return world

    def apply(self, data: bytes) -> pb.MetadataResult:
        """Apply bytes at the next index."""
        self.index += 1
        self.journal.append(data)
        old = self.image
        self.image, result = state.apply(old, self.index, data)
        check_image(self.image)
        check_step(old, self.image)
        return result

    def do(self, **kind: object) -> pb.MetadataResult:
        """Apply a command given by its kind."""
        return self.apply(encode(pb.MetadataCommand(**kind)))  # type: ignore[arg-type]

    def register(
        self,
        node_id: int,
        *,
        starts: Sequence[str] = (),
        store: str = "",
        durability: int = common.DURABILITY_COMMIT,
        clean: bool = False,
    ) -> pb.MetadataResult:
        """Register as the same store, unless `store` says otherwise; default: first, or again by the same process."""
        known = self.image.nodes.get(node_id)
        present = [known.start_id] if known is not None else [id16(f"start-{node_id}")]
        address = pb.NodeAddress(host=f"node{node_id}", port=9092)
        registration = pb.Registration(
            node_id=node_id,
            cluster_id=CLUSTER,
            store_id=id16(store or f"store-{node_id}"),
            start_ids=[id16(start) for start in starts] or present,
            client_address=address,
            peer_address=address,
            rack=f"rack-{node_id % 2}",
            durability=durability,
            version="1",
            supported_level=self.supported_level,
            journal_id=id16(f"journal-{node_id}"),
            clean=clean,
            may_vote=True,
        )
        previous = known.node_epoch if known is not None else 0
        command = pb.RegisterNode(registration=registration, previous_node_epoch=previous, voter=True)
        return self.do(register_node=command)

    def restart(self, node_id: int, start: str, *, clean: bool = False) -> pb.MetadataResult:
        """Register a new process on the same store."""
        known = self.image.nodes[node_id].start_id.rstrip(b".").decode()
        durability = self.image.nodes[node_id].durability
        return self.register(node_id, starts=[known, start], clean=clean, durability=durability)

    def fence(self, node_id: int) -> pb.MetadataResult:
        """Fence a node in its present node_epoch."""
        return self.do(fence_node=pb.FenceNode(node_id=node_id, node_epoch=self.image.nodes[node_id].node_epoch))

    def note_store(self, node_id: int, state: int = common.STORE_STATE_FULL) -> pb.MetadataResult:
        """Note the state of a node's store in its present node_epoch."""
        node_epoch = self.image.nodes[node_id].node_epoch
        return self.do(note_store_state=pb.NoteStoreState(node_id=node_id, node_epoch=node_epoch, state=state))

    def create(self, name: str, *partitions: Sequence[int], minimum: int = 2, **fields: object) -> pb.MetadataResult:
        """Create a topic; each partition is led by its first replica, all in sync."""
        config = TopicConfig(min_insync_replicas=minimum, unclean_leader_election=bool(fields.pop("unclean", False)))
        command = pb.CreateTopic(
            topic_id=id16(str(fields.pop("topic_id", f"topic-{name}"))),
            name=name,
            config=config_record(config),
            partitions=[placement(replicas) for replicas in partitions or [(1, 2, 3)]],
            **fields,  # type: ignore[arg-type]
        )
        return self.do(create_topic=command)

    def topic(self, name: str = "t") -> TopicInfo:
        """A topic by name."""
        return self.image.topics[self.image.topic_ids[name]]

    def partition(self, name: str = "t", index: int = 0) -> PartitionInfo:
        """A partition by its topic's name."""
        return self.topic(name).partitions[index]

    def isr_change(self, isr: Iterable[int], lost: Iterable[int] = (), index: int = 0) -> pb.IsrChange:
        """What the present leader of partition 0 of topic t would ask for."""
        info = self.partition("t", index)
        epochs = {node_id: node.node_epoch for node_id, node in self.image.nodes.items()}
        members = list(isr)
        return pb.IsrChange(
            topic_id=self.topic().topic_id,
            partition=index,
            leader=max(info.leader, 0),
            leader_epoch=info.leader_epoch,
            partition_epoch=info.partition_epoch,
            isr=members,
            node_epochs=[
                pb.NodeEpoch(node_id=node_id, node_epoch=epochs.get(node_id, 0))
                for node_id in members
                if node_id not in info.isr
            ],
            lost=list(lost),
        )

    def alter_isr(self, isr: Iterable[int], lost: Iterable[int] = ()) -> pb.ChangeResult:
        """Change the ISR of partition 0 of topic t, as its leader."""
        return self.do(alter_isr=pb.AlterIsr(changes=[self.isr_change(isr, lost)])).changes[0]

    def election(self, leader: int | None, isr: Iterable[int], *, unclean: bool = False) -> pb.Election:
        """What the controller would propose for partition 0 of topic t."""
        election = pb.Election(
            topic_id=self.topic().topic_id,
            partition=0,
            partition_epoch=self.partition().partition_epoch,
            isr=list(isr),
            unclean=unclean,
        )
        if leader is not None:
            election.leader = leader
            election.leader_node_epoch = self.image.nodes[leader].node_epoch
        return election

    def elect(self, leader: int | None, isr: Iterable[int], *, unclean: bool = False) -> pb.ChangeResult:
        """Elect a leader of partition 0 of topic t."""
        elections = [self.election(leader, isr, unclean=unclean)]
        return self.do(elect_leaders=pb.ElectLeaders(elections=elections)).changes[0]

    def reassignment(self, target: Iterable[int], index: int = 0) -> pb.Reassignment:
        """What the controller would propose for a partition of topic t; no target turns it back."""
        return pb.Reassignment(
            topic_id=self.topic().topic_id,
            partition=index,
            partition_epoch=self.partition("t", index).partition_epoch,
            target=list(target),
        )

    def reassign(self, target: Iterable[int]) -> pb.ChangeResult:
        """Reassign partition 0 of topic t."""
        reassignments = [self.reassignment(target)]
        return self.do(reassign_partitions=pb.ReassignPartitions(reassignments=reassignments)).changes[0]

    def completion(self, leader: int | None = None) -> pb.ReassignmentCompletion:
        """The end of the reassignment of partition 0 of topic t."""
        completion = pb.ReassignmentCompletion(
            topic_id=self.topic().topic_id, partition=0, partition_epoch=self.partition().partition_epoch
        )
        if leader is not None:
            completion.leader = leader
            completion.leader_node_epoch = self.image.nodes[leader].node_epoch
        return completion

    def complete(self, leader: int | None = None) -> pb.ChangeResult:
        """End the reassignment of partition 0 of topic t; without a leader the present one stays."""
        completions = [self.completion(leader)]
        return self.do(complete_reassignments=pb.CompleteReassignments(completions=completions)).changes[0]


def placement(replicas: Sequence[int]) -> pb.PartitionPlacement:
    """A new partition, all replicas in sync, led by the first."""
    return pb.PartitionPlacement(replicas=replicas, isr=replicas, leader=replicas[0])


def check_image(image: MetadataImage) -> None:
    """What holds in every image."""
    assert {topic.name: topic_id for topic_id, topic in image.topics.items()} == dict(image.topic_ids)
    assert decode_image(encode_image(image)) == image
    for topic in image.topics.values():
        for index, info in enumerate(topic.partitions):
            assert info.partition == index
            check_partition(image, info)
    for group in image.groups.values():
        group_checks.check_group(group)


def check_partition(image: MetadataImage, info: PartitionInfo) -> None:
    """What holds of every partition."""
    assert len(set(info.replicas)) == len(info.replicas) > 0
    assert set(info.isr) | set(info.elr) <= set(info.replicas) <= image.nodes.keys(), info
    assert not set(info.isr) & set(info.elr), info
    assert list(info.isr) == sorted(set(info.isr))
    assert list(info.elr) == sorted(set(info.elr))
    assert not any(image.nodes[node_id].fenced for node_id in info.isr), info
    if info.leader == NO_LEADER:
        assert info.leader_node_epoch == 0
    else:
        assert info.leader in info.isr, info
        assert info.leader_node_epoch == image.nodes[info.leader].node_epoch, info
    check_reassignment(info)


def check_reassignment(info: PartitionInfo) -> None:
    """What holds of what a reassignment notes."""
    assert info.replicas == info.original + info.adding, info
    assert len(info.original) > 0
    assert set(info.target) <= set(info.replicas), info
    assert len(set(info.target)) == len(info.target)
    if not info.target:
        assert (info.adding, info.removing, info.settled) == ((), (), info.replicas)
    else:
        assert info.adding or info.removing, info
        assert set(info.removing) | set(info.target) == set(info.replicas)


def check_step(old: MetadataImage, new: MetadataImage) -> None:
    """What holds between an image and the next."""
    assert new.version > old.version
    assert new.feature_level >= old.feature_level
    assert new.next_producer_id >= old.next_producer_id
    for node_id, node in old.nodes.items():
        assert new.nodes[node_id].node_epoch >= node.node_epoch
    check_full(old, new)
    group_checks.check_step(old, new)
    for topic_id in old.topics.keys() & new.topics.keys():
        for before, after in zip(old.topics[topic_id].partitions, new.topics[topic_id].partitions, strict=False):
            check_change(before, after)
            if before.target:
                check_leaving(before, after, old.topics[topic_id].config.min_insync_replicas)


def check_leaving(before: PartitionInfo, after: PartitionInfo, minimum: int) -> None:
    """Who holds what was acknowledged leaves a reassigned partition only when enough others do."""
    if not {*before.isr, *before.elr} <= set(after.replicas):
        assert len(after.isr) >= minimum, (before, after)
        assert set(after.isr) <= set(before.isr), (before, after)


def check_change(before: PartitionInfo, after: PartitionInfo) -> None:
    """Epochs rise with what they count."""
    if before == after:
        return
    assert after.partition_epoch == before.partition_epoch + 1, (before, after)
    same_leadership = (before.leader, before.leader_node_epoch) == (after.leader, after.leader_node_epoch)
    assert after.leader_epoch in {before.leader_epoch, before.leader_epoch + 1}
    if not same_leadership:
        assert after.leader_epoch == before.leader_epoch + 1, (before, after)


def check_full(old: MetadataImage, new: MetadataImage) -> None:
    """Whose store became full stays in an ISR only where nobody else is left that has room; it joins none."""
    full = {node_id for node_id in new.nodes if is_full(new.nodes, node_id)}
    became = {node_id for node_id in full if not is_full(old.nodes, node_id)}
    for topic_id, topic in new.topics.items():
        former = old.topics.get(topic_id)
        for index, info in enumerate(topic.partitions):
            assert not became.intersection(info.isr) or full.issuperset(info.isr), info
            if former is not None and index < len(former.partitions):
                before = former.partitions[index]
                joined = full.intersection(info.isr).difference(before.isr)
                assert joined <= {info.leader}, (before, info)  # elected from the ELR: nobody else is left
