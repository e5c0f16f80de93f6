"""A controller core with virtual time: commands are applied at once, probes answered from a set of dead nodes."""

from penstock.internal.v1 import controller_pb2 as controller
from penstock.internal.v1 import metadata_pb2 as pb
from penstock.node.controller.core import ControllerCore, Timing
from penstock.raft.command import encode
from tests.raft.metadata_world import CLUSTER, World

SESSION_MS, HEARTBEAT_MS, PREFERRED_MS = 1_500, 300, 10_000
TIMING = Timing(SESSION_MS, HEARTBEAT_MS, PREFERRED_MS)
STEP_MS = 50
WALL_MS = 1_700_000_000_000
"""The controller's wall clock when virtual time is 0."""


class Rule:
    """One reign over a World; `alive` nodes heartbeat, `refusing` ones refuse connections."""

    def __init__(self, world: World, now_ms: int = 0) -> None:
        self.world = world
        self.now_ms = now_ms
        self.alive: set[int] = set()
        self.stores: dict[int, int] = {}
        """What the nodes' heartbeats tell of their stores."""
        self.refusing: set[int] = set()
        self.commands: list[pb.MetadataCommand] = []
        self.probed: list[int] = []
        self.core = ControllerCore(CLUSTER, TIMING, world.image, now_ms)

    def settle(self) -> list[str]:
        """Decide, apply and probe until nothing is left to do; the kinds of the commands."""
        kinds: list[str] = []
        for _ in range(100):
            decision = self.core.decide(self.world.image, self.now_ms)
            for node_id in decision.probes:
                self.probed.append(node_id)
                self.core.on_probed(node_id, self.now_ms, refused=node_id in self.refusing)
            for command in decision.commands:
                self.commands.append(command)
                kinds.append(str(command.WhichOneof("kind")))
                self.world.apply(encode(command))
            if not decision.commands and not decision.probes:
                return kinds
        raise AssertionError("the controller does not come to rest")

    def run(self, duration_ms: int) -> list[str]:
        """Let time pass; the alive heartbeat. The kinds of the commands."""
        kinds: list[str] = []
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.now_ms += STEP_MS
            if self.now_ms % HEARTBEAT_MS == 0:
                for node_id in sorted(self.alive):
                    self.heartbeat(node_id)
            kinds += self.settle()
        return kinds

    def heartbeat(
        self, node_id: int, *, draining: bool = False, node_epoch: int = 0, store_state: int = 0, wall_ms: int = 0
    ) -> controller.HeartbeatResponse:
        """A heartbeat of the present registration, unless another node_epoch is named."""
        request = controller.HeartbeatRequest(
            node_id=node_id,
            node_epoch=node_epoch or self.world.image.nodes[node_id].node_epoch,
            draining=draining,
            store_state=store_state or self.stores.get(node_id, 0),
            wall_time_ms=wall_ms,
        )
        return self.core.on_heartbeat(self.world.image, request, self.now_ms, WALL_MS + self.now_ms)

    def fenced(self) -> set[int]:
        """The fenced nodes."""
        return {node_id for node_id, node in self.world.image.nodes.items() if node.fenced}
