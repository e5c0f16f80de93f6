"""What a node does, broken: replicas, streams, partitions, sessions, the store."""

from dataclasses import replace
from typing import Any

from penstock.node.api.locate import Locator
from penstock.node.partition import Partition, ReadRequest
from penstock.node.partition.requests import AppendRequest
from penstock.node.replication.events import IsrProposal, Outputs
from penstock.node.replication.leader import LeaderCore
from penstock.node.replication.replicas import Replicas
from penstock.node.replication.shell import ReplicaShell
from penstock.node.session.core import SessionCore
from penstock.protocol.reasons import Reason
from penstock.raft.image import MetadataImage
from penstock.storage import DropLog

END_OF_TIME = 1 << 60

# ---- replicas and streams


class FormerReplicasCount(LeaderCore):
    """A removed replica's progress stays, and it joins the ISR again."""

    def _meet_replicas(self, now_ms: int) -> Outputs:
        known = self.__dict__.get("_progress", {})
        super()._meet_replicas(now_ms)
        self._progress = known | self._progress
        return []

    def _expand(self) -> Outputs:
        view = self._view
        self._view = view._replace(replicas=(*view.replicas, -1))
        try:
            return super()._expand()
        finally:
            self._view = view


_propose = Replicas.propose


def propose_node_epochs_of_the_view(self: Replicas, replica: ReplicaShell, proposal: IsrProposal) -> None:
    """Rule 7: what is counted is compared with the view's registration, not with that of the fetch."""
    assert self._image is not None
    nodes = self._image.nodes
    counted = tuple((node_id, nodes[node_id].node_epoch) for node_id, _ in proposal.node_epochs)
    changed = replace(proposal, node_epochs=counted)
    core = replica.core
    if core is not None and core.leader is not None:
        core.leader._change.pending = changed
    _propose(self, replica, changed)


_apply = Replicas.apply


def apply_any_view(self: Replicas, image: MetadataImage, node_epoch: int | None) -> None:
    """Rule 26: the view need not include the command that gave this node its node_epoch."""
    if node_epoch is not None and self.node_id in image.nodes:
        nodes = dict(image.nodes)
        nodes[self.node_id] = replace(nodes[self.node_id], node_epoch=node_epoch)
        image = replace(image, nodes=nodes)
    _apply(self, image, node_epoch)


def drop_unknown(self: Replicas, image: MetadataImage, node_epoch: int | None) -> None:
    """Rule 28: what the image does not have is deleted, however old the image."""
    for key in self.strays():
        if key.topic_id not in image.topics:
            self.submit(DropLog(key))
    _apply(self, image, node_epoch)


_release = Replicas._release


def release_and_drop(self: Replicas, partition: Partition) -> None:
    """Rule 28: a replica that is removed by a reassignment is deleted."""
    _release(self, partition)
    self.submit(DropLog(partition.key))


def nothing(*_: Any, **__: Any) -> None:
    """What was to be done is not done."""


def no_outputs(*_: Any, **__: Any) -> list[Any]:
    """As `nothing`, where outputs are to be given."""
    return []


def always(*_: Any, **__: Any) -> bool:
    """Whatever is asked: yes."""
    return True


# ---- partitions


def wait_for_local_commit(self: Partition, request: AppendRequest, last_offset: int, item: Any) -> None:
    """acks=all is answered as acks=leader is."""
    self._local.add(last_offset + 1, request.deadline_ms, item)


def finish_all_well(self: Partition, reason: Reason, text: str) -> None:
    """Whoever waits when a leadership ends is told success."""
    committed, _ = self._in_sync.drain(END_OF_TIME)
    written, _ = self._local.drain(END_OF_TIME)
    self._succeed(committed + written)


_readable_end = Partition._readable_end


def readable_to_the_log_end(self: Partition, request: ReadRequest) -> int | None:
    """Rule 12: what is not committed is read."""
    _readable_end(self, request)
    log = self.shell.leading().log
    return log.durable_end if request.offset < log.durable_end else None


_append = Partition.append


_leader_of = Locator.leader_of
_NAMES: dict[bytes, str] = {}


def leader_of_the_name(self: Locator, topic_id: bytes, index: int) -> Partition:
    """Rule 24: a topic that was made again takes what is meant for its predecessor."""
    topics = self.image.topics
    _NAMES.update((topic.topic_id, topic.name) for topic in topics.values())
    if topic_id not in topics and topic_id in _NAMES:
        topic_id = self.image.topic_ids.get(_NAMES[topic_id], topic_id)
    return _leader_of(self, topic_id, index)


# ---- sessions


def wake_at_the_end_of_the_session(self: SessionCore, now_ms: int) -> int | None:
    """As it was: with a request under way a session that is over is waited for in no time, again and again."""
    times = []
    if not self.is_waiting and not self.left:
        times.append(self._due_ms or 0)
    if self._may_serve() and self._heard_ms is not None:
        times.append(self._heard_ms + self._session_timeout_ms)
    return min(times, default=None)


# ---- the store
