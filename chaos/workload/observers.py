"""Observers: one a node, past all proxies; note the metadata that this very node shows, whenever it has changed.

The hash covers what is replicated: everything but the version itself and the controller, which is the node's own
knowledge. So two nodes that show one version with two hashes have diverged.
"""

import asyncio
import hashlib
from typing import Any

import grpc

from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Common, Process
from penstock.v1 import cluster_service_pb2 as pb
from penstock.v1 import cluster_service_pb2_grpc, topic_service_pb2

RETRY_S = 0.25
SILENT_S = 30.0
"""A stream that says nothing for so long is begun anew: the node may have been frozen, or replaced."""
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 32 * 1024 * 1024),
)


class Observer(Process):
    """See the module."""

    def __init__(self, common: Common, node_id: int, address: str) -> None:
        super().__init__(common, "observer", "node", node_id, Access(address))
        self._node_id = node_id
        self._last: tuple[object, ...] = ()

    async def run(self) -> None:
        """See Process."""
        async with grpc.aio.insecure_channel(self.access.bootstrap, CHANNEL_OPTIONS) as channel:
            stub: Any = cluster_service_pb2_grpc.ClusterServiceStub(channel)
            stopping = asyncio.create_task(self.common.stopping.wait())
            try:
                while await self.pause(RETRY_S):
                    await self._watch(stub, stopping)
            finally:
                stopping.cancel()

    async def _watch(self, stub: Any, stopping: "asyncio.Task[bool]") -> None:
        """Follow one stream until it breaks, says nothing for long, or the workload stops."""
        call = stub.WatchMetadata(pb.WatchMetadataRequest())
        try:
            while True:
                began = self.recorder.now()
                answer = await _next(call, stopping)
                if answer is None:
                    return
                self._note(began, answer.metadata)
        except grpc.aio.AioRpcError:
            return
        finally:
            call.cancel()

    def _note(self, began: float, metadata: pb.ClusterMetadata) -> None:
        controller = metadata.controller if metadata.HasField("controller") else None
        content = content_hash(metadata)
        seen = (metadata.metadata_version, content, controller)
        if seen == self._last:
            return
        self._last = seen
        self.recorder.read(
            self.name,
            "view",
            began,
            node=self._node_id,
            version=metadata.metadata_version,
            hash=content,
            controller=controller,
            partitions=[_row(topic, partition) for topic in metadata.topics for partition in topic.partitions],
        )


def content_hash(metadata: pb.ClusterMetadata) -> str:
    """Give the hash of what is replicated."""
    content = pb.ClusterMetadata()
    content.CopyFrom(metadata)
    content.ClearField("controller")
    content.ClearField("metadata_version")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()


async def _next(call: Any, stopping: "asyncio.Task[bool]") -> pb.WatchMetadataResponse | None:
    """Give what the node says next; None where the stream has ended, is silent for long, or the workload stops."""
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait((reading, stopping), timeout=SILENT_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait((reading,))
    if reading.cancelled():
        return None
    answer = reading.result()
    return answer if isinstance(answer, pb.WatchMetadataResponse) else None


def _row(topic: topic_service_pb2.Topic, partition: topic_service_pb2.Partition) -> list[Any]:
    return [
        topic.name,
        topic.topic_id.hex(),
        partition.partition,
        partition.leader if partition.HasField("leader") else None,
        partition.leader_epoch,
        partition.partition_epoch,
        list(partition.isr),
        list(partition.elr),
        list(partition.replicas),
    ]
