"""Asking the controller to move replicas, as a node asks it (docs/adr/0011-reassignment.md), and emptying a node.

What is asked for is asked again where the answer was lost: the same target twice is one reassignment.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import grpc

from penstock.chaos.cluster import Action
from penstock.chaos.faults.base import FaultError, Site
from penstock.chaos.faults.targets import POLL_S, running
from penstock.client import ClusterDescription, PartitionDescription
from penstock.internal.v1 import controller_pb2, controller_pb2_grpc, metadata_pb2
from penstock.protocol.calls import from_call
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

REPLICAS = 3
"""Replicas of each partition that the workloads write to."""
ASK_TIMEOUT_S = 10.0
"""Of one request to the controller."""
ACCEPTED_TIMEOUT_S = 30.0
"""How long a controller may take to be found and to accept."""
JOINED_TIMEOUT_S = 60.0
"""How long a node may take to be registered after its start."""
DRAINED_TIMEOUT_S = 120.0
"""How long a node may take to lose its last replica."""
_AGAIN = {Reason.NO_CONTROLLER, Reason.OUTCOME_UNKNOWN, Reason.OVERLOADED}


@dataclass(frozen=True, slots=True)
class Place:
    """A partition, as it is and as it is to be."""

    topic: str
    topic_id: bytes
    partition: int
    leader: int | None
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    target: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[bytes, int]:
        """What it is known by."""
        return self.topic_id, self.partition


def missing_addresses(site: Site) -> str | None:
    """Say why the controller cannot be asked."""
    if any(site.cluster.peer_address(node_id) is None for node_id in site.cluster.node_ids):
        return "the nodes' peer addresses are not known"
    return None


def missing_spare(site: Site) -> str | None:
    """Say why replicas have no other place to be."""
    count = len(site.cluster.node_ids)
    return None if count > REPLICAS else f"{count} nodes leave no other place for {REPLICAS} replicas"


def settled(description: ClusterDescription) -> list[Place]:
    """Give the partitions that are not being reassigned, in order of topic and partition."""
    return [
        place
        for topic in sorted(description.topics, key=lambda topic: topic.name)
        for place in (_place(topic.name, topic.topic_id, partition) for partition in topic.partitions)
        if len(place.replicas) == topic.replication_factor
    ]


def held_by(description: ClusterDescription, node_id: int) -> list[tuple[Place, int]]:
    """Give the partitions with a replica on a node, each with how many replicas it should have."""
    return [
        (_place(topic.name, topic.topic_id, partition), topic.replication_factor)
        for topic in description.topics
        for partition in topic.partitions
        if node_id in partition.replicas
    ]


def _place(topic: str, topic_id: bytes, found: PartitionDescription) -> Place:
    return Place(topic, topic_id, found.partition, found.leader, found.replicas, found.isr)


def off_node(place: Place, factor: int, node_id: int, live: Sequence[int], load: Counter[int]) -> tuple[int, ...]:
    """Give the replicas without a node: the others stay, live nodes with the least `load` follow. Counts them in."""
    kept = [replica for replica in place.replicas if replica != node_id][:factor]
    others = sorted((other for other in live if other != node_id and other not in kept), key=load.__getitem__)
    added = others[: factor - len(kept)]
    load.update(added)
    return (*kept, *added)


async def describe(site: Site) -> ClusterDescription:
    """Give the newest metadata. Raises FaultError where nobody answers."""
    description = await site.roles.describe()
    if description is None:
        raise FaultError("no node answers")
    return description


def live_nodes(description: ClusterDescription) -> list[int]:
    """Give the nodes that are registered and not fenced."""
    return sorted(broker.node_id for broker in description.brokers if not broker.fenced)


async def until_live(site: Site, enough: Callable[[Collection[int]], bool]) -> ClusterDescription:
    """Wait until enough nodes are live. Raises FaultError after JOINED_TIMEOUT_S."""
    try:
        async with asyncio.timeout(JOINED_TIMEOUT_S):
            while True:
                description = await site.roles.describe()
                if description is not None and enough(live_nodes(description)):
                    return description
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise FaultError(f"not enough nodes are live after {JOINED_TIMEOUT_S:g} s") from error


async def with_spare(site: Site) -> ClusterDescription:
    """Start planned nodes where fewer than one more than REPLICAS run; wait until so many are live."""
    cluster = site.cluster
    there = await running(cluster, cluster.node_ids)
    down = [node_id for node_id in cluster.node_ids if node_id not in {*there, *cluster.voters}]
    for node_id in down[: max(0, REPLICAS + 1 - len(there))]:
        await cluster.do(Action.START, node_id)
    return await until_live(site, lambda live: len(live) > REPLICAS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the controller made of reassignments."""

    accepted: list[Place]
    refusal: str = ""
    """The first one."""


async def reassign(site: Site, places: Iterable[Place]) -> Answer:
    """Have partitions moved to their `target`. Each may be refused. Raises FaultError where nobody decides."""
    asked = list(places)
    if not asked:
        return Answer([])
    targets = [
        controller_pb2.PartitionTarget(topic_id=place.topic_id, partition=place.partition, replicas=place.target)
        for place in asked
    ]
    answer = await _accepted(site, controller_pb2.ReassignPartitionsRequest(targets=targets))
    refused = [change for change in answer.changes if change.refusal]
    names = [f"{metadata_pb2.Refusal.Name(change.refusal)}: {change.detail}" for change in refused[:1]]
    good = [place for place, change in zip(asked, answer.changes, strict=True) if not change.refusal]
    return Answer(good, "".join(names))


async def reassign_some(site: Site, places: Iterable[Place]) -> list[Place]:
    """Have partitions moved to their `target`; those that move. Raises FaultError where none does."""
    answer = await reassign(site, places)
    if not answer.accepted:
        raise FaultError(f"no partition moves: {answer.refusal or 'none can'}")
    return answer.accepted


async def _accepted(
    site: Site, request: controller_pb2.ReassignPartitionsRequest
) -> controller_pb2.ReassignPartitionsResponse:
    last = "no controller is known"
    try:
        async with asyncio.timeout(ACCEPTED_TIMEOUT_S):
            while True:
                controller = await site.roles.controller()
                address = None if controller is None else site.cluster.peer_address(controller)
                if address is not None:
                    answer = await _ask(address, request)
                    if not isinstance(answer, PenstockError):
                        return answer
                    last = str(answer)
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise FaultError(f"no controller accepted within {ACCEPTED_TIMEOUT_S:g} s: {last}") from error


async def _ask(
    address: str, request: controller_pb2.ReassignPartitionsRequest
) -> controller_pb2.ReassignPartitionsResponse | PenstockError:
    """Ask one node. An error is returned where asking again may help, raised as FaultError where not."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = controller_pb2_grpc.ControllerServiceStub(channel)
        try:
            return await stub.ReassignPartitions(request, timeout=ASK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            told = from_call(error)
            if told.reason in _AGAIN:
                return told
            raise FaultError(f"the controller refused: {told}") from error


async def drain(site: Site, node_id: int) -> int:
    """Move every replica off a node, those of new topics too; how many there were. Raises FaultError if it takes long.

    A move that is under way gets another target, if it would bring the node a replica.
    """
    moving: set[tuple[bytes, int]] = set()
    refusal = ""
    try:
        async with asyncio.timeout(DRAINED_TIMEOUT_S):
            while True:
                description = await site.roles.describe()
                if description is not None:
                    held = held_by(description, node_id)
                    if not held:
                        return len(moving)
                    fresh = [(place, factor) for place, factor in held if place.key not in moving]
                    answer = await reassign(site, _off(description, fresh, node_id))
                    moving.update(place.key for place in answer.accepted)
                    refusal = answer.refusal or refusal
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        text = f"node {node_id} has not lost its replicas after {DRAINED_TIMEOUT_S:g} s"
        raise FaultError(f"{text}; {len(moving)} moves were accepted, refused: {refusal or 'none'}") from error


def _off(description: ClusterDescription, held: list[tuple[Place, int]], node_id: int) -> Iterator[Place]:
    """Partitions for which there are too few live nodes now are left out."""
    load = Counter(replica for topic in description.topics for found in topic.partitions for replica in found.replicas)
    live = live_nodes(description)
    for place, factor in held:
        target = off_node(place, factor, node_id, live, load)
        if len(target) == factor:
            yield replace(place, target=target)
