"""What the controller decides, while this node leads consensus: the pure core. One instance a reign.

Owns: who was heard when (soft state that ends with the reign), who wants to stop, what is to be probed. It proposes
one round of commands at a time, each decided on the image that it is shown and holding only for that: whatever happens
to a command, the next round is decided on the newer image. Safety never rests on this module (DESIGN section 5).
"""

from dataclasses import dataclass, field
from typing import TypeVar

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.controller.leaders import ELECTIONS_PER_COMMAND, LeaderWatch
from penstock.node.controller.reassignments import COMPLETIONS_PER_COMMAND, ReassignmentWatch
from penstock.node.controller.reports import Reports
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.command import SUPPORTED_LEVEL
from penstock.raft.image import MetadataImage, NodeInfo
from penstock.raft.sessions import Sessions

PROBE_PAUSE_MS = 100
"""Between two looks at a silent node's address."""


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Timing:
    """The controller's times; see node.config.Limits."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    preferred_leader_delay_ms: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Commands to submit, in order, and nodes to see whether their address refuses connections."""

    commands: list[pb.MetadataCommand] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)


class ControllerCore:
    """Events and questions in, decisions out. `image`: always the newest one that this node has applied."""

    def __init__(self, cluster_id: str, timing: Timing, image: MetadataImage, now_ms: int) -> None:
        self._cluster_id = cluster_id
        self._sessions = Sessions(timing.session_timeout_ms, timing.heartbeat_interval_ms)
        self._leaders = LeaderWatch(timing.preferred_leader_delay_ms)
        self._reassignments = ReassignmentWatch()
        self._reports = Reports()
        self._stopping: dict[int, int] = {}
        """node_epoch of those that want to stop."""
        self._probing: set[int] = set()
        self._probe_due_ms: dict[int, int] = {}
        self._node_epochs: dict[int, int] = {}
        """Whose session it is: a former registration's silence says nothing about the present one."""
        self._follow_nodes(image, now_ms)

    def decide(self, image: MetadataImage, now_ms: int) -> Decision:
        """Return what is to be done now. A node that another controller registered has its first session here."""
        if image.feature_level == 0:
            genesis = pb.Genesis(cluster_id=self._cluster_id, feature_level=SUPPORTED_LEVEL)
            return Decision([pb.MetadataCommand(genesis=genesis)])
        self._follow_nodes(image, now_ms)
        self._leaders.update(image, now_ms)
        self._reassignments.update(image)
        fences = [self._fence(node) for node in self._overdue(image, now_ms)]
        if fences:  # the elections follow on the image that has them
            return Decision(fences)
        notes = self._reports.notes(image)
        if notes:
            return Decision(notes)
        return Decision(self._drains(image) + self._changes(now_ms), self._probes(image, now_ms))

    # ---- nodes

    def on_heartbeat(
        self, image: MetadataImage, request: controller.HeartbeatRequest, now_ms: int, wall_ms: int
    ) -> controller.HeartbeatResponse:
        """Answer a heartbeat. Raises NO_CONTROLLER when the node knows of a later registration than this image.

        `wall_ms`: this node's wall clock, against which the nodes' are compared.
        """
        node = image.nodes.get(request.node_id)
        if node is not None and node.node_epoch < request.node_epoch:
            raise PenstockError(Reason.NO_CONTROLLER, "this controller is behind the node: it is deposed")
        if node is None or node.fenced or node.node_epoch != request.node_epoch:
            return _answer(image, controller.HEARTBEAT_STATUS_REGISTER)
        self._sessions.heard(request.node_id, now_ms)
        self._reports.heard(request, wall_ms)
        answer = _answer(image, controller.HEARTBEAT_STATUS_OK)
        answer.wall_time_ms = self._reports.cluster_time_ms(image, wall_ms)
        if request.draining:
            self._stopping[node.node_id] = node.node_epoch
            self._leaders.update(image, now_ms)
            answer.leaderships = self._leaders.movable_from(node.node_id) if node.draining else 1
        return answer

    def has_notes(self, image: MetadataImage) -> bool:
        """Whether a heartbeat has told what is to be decided on at once."""
        return bool(self._reports.notes(image))

    def check_registration(self, image: MetadataImage, registration: pb.Registration, now_ms: int) -> None:
        """Raise NOT_SERVING for a second node of the same id while the first lives: a mistake in a configuration."""
        known = image.nodes.get(registration.node_id)
        if known is None or known.fenced or known.store_id == registration.store_id:
            return
        if not self._sessions.is_silent(registration.node_id, now_ms):
            text = f"another node {registration.node_id}, at {known.peer_address}, is alive; its store is another one"
            raise PenstockError(Reason.NOT_SERVING, text, {"node_id": str(registration.node_id)})

    def on_registered(self, image: MetadataImage, node_id: int, now_ms: int) -> None:
        """A registration that came to this controller was applied."""
        self._follow_nodes(image, now_ms)
        self._sessions.heard(node_id, now_ms)
        self._stopping.pop(node_id, None)

    def on_pause(self, pause_ms: int) -> None:
        """This process stood still for so long: heartbeats that wait to be read are no silence."""
        self._sessions.postpone(pause_ms)

    def on_probed(self, node_id: int, now_ms: int, *, refused: bool) -> None:
        """A look at a node's address has ended."""
        self._probing.discard(node_id)
        self._probe_due_ms[node_id] = now_ms + PROBE_PAUSE_MS
        if refused:
            self._sessions.refused(node_id, now_ms)

    def may_probe(self, node_id: int) -> bool:
        """Whether a look at a node's address is worth while, since somebody says that it refuses; if so it begins."""
        if node_id not in self._sessions or node_id in self._probing:
            return False
        self._probing.add(node_id)
        return True

    # ---- inside

    def _follow_nodes(self, image: MetadataImage, now_ms: int) -> None:
        for node_id, node in image.nodes.items():
            if node.fenced:
                self._sessions.forget(node_id)
            elif node_id not in self._sessions or self._node_epochs[node_id] != node.node_epoch:
                self._node_epochs[node_id] = node.node_epoch
                self._sessions.grant(node_id, now_ms)

    def _overdue(self, image: MetadataImage, now_ms: int) -> list[NodeInfo]:
        return [image.nodes[node_id] for node_id in sorted(image.nodes) if self._sessions.is_overdue(node_id, now_ms)]

    def _fence(self, node: NodeInfo) -> pb.MetadataCommand:
        return pb.MetadataCommand(fence_node=pb.FenceNode(node_id=node.node_id, node_epoch=node.node_epoch))

    def _drains(self, image: MetadataImage) -> list[pb.MetadataCommand]:
        commands = []
        for node_id, node_epoch in sorted(self._stopping.items()):
            node = image.nodes.get(node_id)
            if node is not None and node.node_epoch == node_epoch and not node.draining and not node.fenced:
                drain = pb.DrainNode(node_id=node_id, node_epoch=node_epoch)
                commands.append(pb.MetadataCommand(drain_node=drain))
        return commands

    def _changes(self, now_ms: int) -> list[pb.MetadataCommand]:
        """Elections, and the ends of reassignments; of each partition at most one, as each raises its epoch."""
        elections = self._leaders.due(now_ms)
        ends = self._reassignments.due({(election.topic_id, election.partition) for election in elections})
        elect = [
            pb.MetadataCommand(elect_leaders=pb.ElectLeaders(elections=part))
            for part in _parts(elections, ELECTIONS_PER_COMMAND)
        ]
        complete = [
            pb.MetadataCommand(complete_reassignments=pb.CompleteReassignments(completions=part))
            for part in _parts(ends, COMPLETIONS_PER_COMMAND)
        ]
        return elect + complete

    def _probes(self, image: MetadataImage, now_ms: int) -> list[int]:
        probes = [
            node_id
            for node_id in sorted(image.nodes)
            if node_id not in self._probing
            and now_ms >= self._probe_due_ms.get(node_id, now_ms)
            and self._sessions.is_late(node_id, now_ms)
        ]
        self._probing.update(probes)
        return probes


def _parts(items: list[Item], size: int) -> list[list[Item]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


def _answer(image: MetadataImage, status: "controller.HeartbeatStatus.ValueType") -> controller.HeartbeatResponse:
    return controller.HeartbeatResponse(status=status, metadata_version=image.version)
