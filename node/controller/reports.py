"""What nodes say of themselves in heartbeats: how full their stores are, what their clocks say. Pure, one a reign.

Soft state: a new controller hears it anew within a heartbeat's interval. A store's state becomes a command where it
differs from what is noted; clocks are kept as differences to this node's own, so that they do not age.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.raft.command import COMPACTION_LEVEL
from penstock.raft.image import MetadataImage, NodeInfo
from penstock.v1 import common_pb2 as common


@dataclass(frozen=True, slots=True)
class Report:
    """Of one node, in its last heartbeat."""

    node_epoch: int
    store_state: int
    clock_ahead_ms: int | None
    """Its wall clock less this node's; None: it does not tell."""


class Reports:
    """By node id."""

    def __init__(self) -> None:
        self._reports: dict[int, Report] = {}

    def heard(self, request: controller.HeartbeatRequest, wall_ms: int) -> None:
        """Note a heartbeat of a node's present registration. `wall_ms`: this node's clock at receipt."""
        ahead = request.wall_time_ms - wall_ms if request.wall_time_ms else None
        state = request.store_state if request.store_state in common.StoreState.values() else 0
        self._reports[request.node_id] = Report(request.node_epoch, state, ahead)

    def notes(self, image: MetadataImage) -> list[pb.MetadataCommand]:
        """Return what is to be noted of stores. The first one of a cluster raises its feature level, if all know it."""
        notes = [
            pb.NoteStoreState(node_id=node_id, node_epoch=report.node_epoch, state=report.store_state)
            for node_id, report in sorted(self._present(image).items())
            if _known(report.store_state) != _known(image.nodes[node_id].store_state)
        ]
        if notes and image.feature_level < COMPACTION_LEVEL:
            if any(node.supported_level < COMPACTION_LEVEL for node in image.nodes.values()):
                return []
            raised = pb.RaiseFeatureLevel(feature_level=COMPACTION_LEVEL)
            return [pb.MetadataCommand(raise_feature_level=raised)]
        return [pb.MetadataCommand(note_store_state=note) for note in notes]

    def cluster_time_ms(self, image: MetadataImage, wall_ms: int) -> int:
        """Return the median of the live nodes' clocks; 0 before most of them have told theirs."""
        live = [node for node in image.nodes.values() if not node.fenced]
        ahead = [report.clock_ahead_ms for report in self._present(image).values() if report.clock_ahead_ms is not None]
        return wall_ms + round(median(ahead)) if 2 * len(ahead) > len(live) else 0

    def _present(self, image: MetadataImage) -> Mapping[int, Report]:
        """Those of live nodes' present registrations."""
        return {
            node_id: report for node_id, report in self._reports.items() if _is_of(report, image.nodes.get(node_id))
        }


def _is_of(report: Report, node: NodeInfo | None) -> bool:
    return node is not None and not node.fenced and node.node_epoch == report.node_epoch


def _known(state: int) -> int:
    """What was never said or noted is as good as OK."""
    return state or common.STORE_STATE_OK
