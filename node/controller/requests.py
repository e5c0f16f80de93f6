"""What nodes ask of the controller, each request checked, planned on the newest image and submitted.

A plan that was overtaken by another command is made again, a bounded number of times. Owns the way from a refusal of
`apply` to the error that the caller gets.
"""

from collections.abc import Callable, Collection

from penstock.internal.v1 import controller_pb2 as pb
from penstock.internal.v1 import metadata_pb2 as metadata
from penstock.node.api.convert import topic_message
from penstock.node.controller.group_changes import commands_for, too_large
from penstock.node.controller.internal_topics import Seed, plan_internal
from penstock.node.controller.leaders import resignation
from penstock.node.controller.reassignments import reassignment
from penstock.node.controller.shell import ControllerShell, Outcome
from penstock.node.controller.topics import Plan, plan_add, plan_alter, plan_create, plan_delete
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.command import GROUP_LEVEL, REASSIGNMENT_LEVEL, level_of
from penstock.raft.core import MAX_COMMAND_BYTES
from penstock.raft.image import MetadataImage
from penstock.v1 import topic_service_pb2 as v1

ATTEMPTS = 10
"""Plans made for one request before it is answered that the controller is busy."""
MAX_CHANGES = 10_000
"""Changes of partitions in one request."""
MAX_GROUP_CHANGES = 10_000
"""Changes of groups in one request."""
MAX_PRODUCER_IDS = 100_000
"""Producer ids in one block."""
TOPIC_ID_BYTES = 16

_OVERTAKEN = {metadata.REFUSAL_STALE, metadata.REFUSAL_UNKNOWN_NODE}
_MADE = _OVERTAKEN | {metadata.REFUSAL_TOPIC_EXISTS}
"""Also overtaken is who creates what need only be there."""
_REASONS = {
    metadata.REFUSAL_UNSUPPORTED: Reason.UNSUPPORTED,
    metadata.REFUSAL_FOREIGN_CLUSTER: Reason.INVALID_ARGUMENT,
    metadata.REFUSAL_UNKNOWN_TOPIC: Reason.UNKNOWN_TOPIC,
    metadata.REFUSAL_TOPIC_EXISTS: Reason.TOPIC_EXISTS,
    metadata.REFUSAL_REQUEST_REUSED: Reason.INVALID_ARGUMENT,
    metadata.REFUSAL_MALFORMED: Reason.INVALID_ARGUMENT,
}


class Controller(ControllerShell):
    """The controller with all that is asked of it: `service.ControllerCalls`."""

    # ---- nodes

    async def register(self, request: pb.RegisterRequest, timeout_s: float) -> pb.RegisterResponse:
        """Give a node its node_epoch. Compare-and-set on the one before, so that a repeat does no harm."""
        registration = request.registration
        node_id = registration.node_id

        def plan(image: MetadataImage) -> metadata.MetadataCommand:
            self.active().check_registration(image, registration, self.clock())
            known = image.nodes.get(node_id)
            command = metadata.RegisterNode(
                registration=registration,
                previous_node_epoch=0 if known is None else known.node_epoch,
                voter=node_id in self.raft.voters or (known is not None and known.voter),
            )
            return metadata.MetadataCommand(register_node=command)

        outcome = await self._decide(plan, timeout_s)
        self.active().on_registered(outcome.image, node_id, self.clock())
        self.wake()
        return pb.RegisterResponse(node_epoch=outcome.index, kept_places=outcome.result.kept_places)

    async def heartbeat(self, request: pb.HeartbeatRequest, timeout_s: float) -> pb.HeartbeatResponse:
        """Note that a node lives."""
        del timeout_s
        core, image = self.active(), self.view.image
        answer = core.on_heartbeat(image, request, self.clock(), self.wall_clock())
        if request.draining or core.has_notes(image):
            self.wake()
        return answer

    async def leave(self, request: pb.LeaveRequest, timeout_s: float) -> pb.LeaveResponse:
        """Fence a node that serves no longer; one that has registered again since stays."""
        self.active()
        fence = metadata.FenceNode(node_id=request.node_id, node_epoch=request.node_epoch)
        await self.submit(metadata.MetadataCommand(fence_node=fence), timeout_s)
        return pb.LeaveResponse()

    async def report_unreachable(
        self, request: pb.ReportUnreachableRequest, timeout_s: float
    ) -> pb.ReportUnreachableResponse:
        """Look whether a node is there; if not it is fenced."""
        del timeout_s
        self.active()
        self.probe(request.node_id)
        return pb.ReportUnreachableResponse()

    # ---- partitions, producers

    async def alter_partitions(
        self, request: pb.AlterPartitionsRequest, timeout_s: float
    ) -> pb.AlterPartitionsResponse:
        """Change ISRs and leaders as leaders ask; each has its own result."""
        self.active()
        if len(request.changes) + len(request.resignations) > MAX_CHANGES:
            text = f"{len(request.changes)} changes and {len(request.resignations)} resignations, {MAX_CHANGES} may be"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        response = pb.AlterPartitionsResponse()
        if request.changes:
            alter = metadata.AlterIsr(changes=request.changes)
            outcome = await self.submit(metadata.MetadataCommand(alter_isr=alter), timeout_s)
            _raise_refusal(outcome)
            response.changes.extend(outcome.result.changes)
        if request.resignations:
            response.resignations.extend(await self._resign(request, timeout_s))
        response.metadata_version = self.view.image.version
        return response

    async def _resign(self, request: pb.AlterPartitionsRequest, timeout_s: float) -> list[metadata.ChangeResult]:
        results: list[metadata.ChangeResult] = []
        for _ in range(ATTEMPTS):
            planned = [resignation(self.view.image, asked) for asked in request.resignations]
            elections = [plan for plan in planned if isinstance(plan, metadata.Election)]
            elect = metadata.ElectLeaders(elections=elections)
            outcome = await self.submit(metadata.MetadataCommand(elect_leaders=elect), timeout_s)
            _raise_refusal(outcome)
            answers = iter(outcome.result.changes)
            results = [plan if isinstance(plan, metadata.ChangeResult) else next(answers) for plan in planned]
            if not any(result.refusal == metadata.REFUSAL_STALE for result in results):
                break
        return results

    async def reassign_partitions(
        self, request: pb.ReassignPartitionsRequest, timeout_s: float
    ) -> pb.ReassignPartitionsResponse:
        """Begin reassignments, change or turn them back; each has its own result. They go on after the answer.

        The first one that a cluster is asked for raises its feature level; UNSUPPORTED while a node is too old.
        """
        self.active()
        if len(request.targets) > MAX_CHANGES:
            text = f"{len(request.targets)} reassignments are asked for, {MAX_CHANGES} may be"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        await self._reach_level(REASSIGNMENT_LEVEL, timeout_s)
        waiting = list(range(len(request.targets)))
        results: dict[int, metadata.ChangeResult] = {}
        for _ in range(ATTEMPTS):
            planned = [reassignment(self.view.image, request.targets[place]) for place in waiting]
            command = metadata.ReassignPartitions(reassignments=planned)
            outcome = await self.submit(metadata.MetadataCommand(reassign_partitions=command), timeout_s)
            _raise_refusal(outcome)
            results.update(zip(waiting, outcome.result.changes, strict=True))
            waiting = [place for place in waiting if results[place].refusal == metadata.REFUSAL_STALE]
            if not waiting:
                break
        changes = [results[place] for place in range(len(request.targets))]
        return pb.ReassignPartitionsResponse(changes=changes, metadata_version=self.view.image.version)

    async def _reach_level(self, level: int, timeout_s: float) -> None:
        """Raise the cluster's feature level where it is lower. Raises UNSUPPORTED where a node does not know it."""
        if self.view.image.feature_level >= level:
            return
        command = metadata.RaiseFeatureLevel(feature_level=level)
        outcome = await self.submit(metadata.MetadataCommand(raise_feature_level=command), timeout_s)
        if outcome.result.refusal != metadata.REFUSAL_STALE:  # else it was raised meanwhile
            _raise_refusal(outcome)

    async def allocate_producer_ids(
        self, request: pb.AllocateProducerIdsRequest, timeout_s: float
    ) -> pb.AllocateProducerIdsResponse:
        """Give out a block of producer ids; never the same twice."""
        self.active()
        if not 0 < request.count <= MAX_PRODUCER_IDS:
            text = f"{request.count} producer ids are asked for; 1 to {MAX_PRODUCER_IDS} may be"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        allocate = metadata.AllocateProducerIds(count=request.count)
        outcome = await self.submit(metadata.MetadataCommand(allocate_producer_ids=allocate), timeout_s)
        _raise_refusal(outcome)
        return pb.AllocateProducerIdsResponse(first_producer_id=outcome.result.first_producer_id, count=request.count)

    # ---- groups

    async def alter_groups(self, request: pb.AlterGroupsRequest, timeout_s: float) -> pb.AlterGroupsResponse:
        """Change groups as their coordinators ask; each change has its own result, and none is made again here.

        The first one that a cluster is asked for raises its feature level; UNSUPPORTED while a node is too old.
        """
        self.active()
        if len(request.changes) > MAX_GROUP_CHANGES:
            text = f"{len(request.changes)} changes of groups are asked for, {MAX_GROUP_CHANGES} may be"
            raise PenstockError(Reason.INVALID_ARGUMENT, text)
        await self._reach_level(GROUP_LEVEL, timeout_s)
        results = [too_large(change, MAX_COMMAND_BYTES) for change in request.changes]
        fitting = [change for change, refusal in zip(request.changes, results, strict=True) if refusal is None]
        applied: list[metadata.ChangeResult] = []
        for command in commands_for(fitting, MAX_COMMAND_BYTES):
            outcome = await self.submit(metadata.MetadataCommand(alter_groups=command), timeout_s)
            _raise_refusal(outcome)
            applied += outcome.result.changes
        answers = iter(applied)
        changes = [next(answers) if refusal is None else refusal for refusal in results]
        return pb.AlterGroupsResponse(changes=changes, metadata_version=self.view.image.version)

    async def ensure_internal_topic(
        self, request: pb.EnsureInternalTopicRequest, timeout_s: float
    ) -> pb.EnsureInternalTopicResponse:
        """Create an internal topic where it is not there yet; whoever asks gets the one that is there."""
        self.active()
        seed = Seed(self.rng.randbytes(TOPIC_ID_BYTES), self.rng.getrandbits(32))
        await self._reach_level(GROUP_LEVEL, timeout_s)
        topic, version = await self._change_topic(
            lambda image: plan_internal(image, request.name, self.limits, seed, self.raft.voters),
            timeout_s,
            overtaken=_MADE,
        )
        return pb.EnsureInternalTopicResponse(topic_id=topic.topic_id, metadata_version=version)

    # ---- topics

    async def create_topic(self, request: pb.CreateTopicRequest, timeout_s: float) -> pb.CreateTopicResponse:
        """Create a topic; the same request_id again answers with the first call's."""
        topic_id, seed = self.rng.randbytes(TOPIC_ID_BYTES), self.rng.getrandbits(32)
        topic, version = await self._change_topic(
            lambda image: plan_create(image, request.request, topic_id, seed), timeout_s, request.request.validate_only
        )
        return pb.CreateTopicResponse(response=v1.CreateTopicResponse(topic=topic, metadata_version=version))

    async def alter_topic(self, request: pb.AlterTopicRequest, timeout_s: float) -> pb.AlterTopicResponse:
        """Change settings of a topic."""
        topic, version = await self._change_topic(
            lambda image: plan_alter(image, request.request), timeout_s, request.request.validate_only
        )
        return pb.AlterTopicResponse(response=v1.AlterTopicResponse(topic=topic, metadata_version=version))

    async def add_partitions(self, request: pb.AddPartitionsRequest, timeout_s: float) -> pb.AddPartitionsResponse:
        """Add partitions to a topic."""
        seed = self.rng.getrandbits(32)
        topic, version = await self._change_topic(
            lambda image: plan_add(image, request.request, seed), timeout_s, request.request.validate_only
        )
        return pb.AddPartitionsResponse(response=v1.AddPartitionsResponse(topic=topic, metadata_version=version))

    async def delete_topic(self, request: pb.DeleteTopicRequest, timeout_s: float) -> pb.DeleteTopicResponse:
        """Delete a topic."""
        topic, version = await self._change_topic(
            lambda image: plan_delete(image, request.request), timeout_s, request.request.validate_only
        )
        response = v1.DeleteTopicResponse(topic_id=topic.topic_id, metadata_version=version)
        return pb.DeleteTopicResponse(response=response)

    # ---- inside

    async def _change_topic(
        self,
        plan: Callable[[MetadataImage], Plan],
        timeout_s: float,
        validate_only: bool = False,
        overtaken: Collection[int] = _OVERTAKEN,
    ) -> tuple[v1.Topic, int]:
        """Plan and submit; the topic afterwards (as planned, where it is only validated or gone) and the version."""
        self.active()
        for _ in range(ATTEMPTS):
            image = self.view.image
            planned = plan(image)
            if planned.command is None:
                return topic_message(planned.topic), image.version
            level = level_of(planned.command)
            if validate_only:
                _check_level(image, level)
                return topic_message(planned.topic), image.version
            await self._reach_level(level, timeout_s)
            outcome = await self.submit(planned.command, timeout_s)
            if outcome.result.refusal in overtaken:
                continue
            _raise_refusal(outcome)
            topic = outcome.image.topics.get(outcome.result.topic_id, planned.topic)
            return topic_message(topic), outcome.index
        raise _busy()

    async def _decide(self, plan: Callable[[MetadataImage], metadata.MetadataCommand], timeout_s: float) -> Outcome:
        self.active()
        for _ in range(ATTEMPTS):
            outcome = await self.submit(plan(self.view.image), timeout_s)
            if outcome.result.refusal not in _OVERTAKEN:
                _raise_refusal(outcome)
                return outcome
        raise _busy()


def _check_level(image: MetadataImage, level: int) -> None:
    """Raise UNSUPPORTED where the cluster's feature level is lower and cannot be raised: as `_reach_level` would."""
    behind = [node.node_id for node in image.nodes.values() if node.supported_level < level]
    if image.feature_level < level and behind:
        raise PenstockError(Reason.UNSUPPORTED, f"nodes {sorted(behind)} do not know level {level}")


def _raise_refusal(outcome: Outcome) -> None:
    refusal = outcome.result.refusal
    if refusal != metadata.REFUSAL_UNSPECIFIED:
        raise PenstockError(_REASONS.get(refusal, Reason.INTERNAL), outcome.result.detail)


def _busy() -> PenstockError:
    return PenstockError(Reason.OVERLOADED, f"overtaken by other changes {ATTEMPTS} times; try again")
