"""ClusterService: metadata as this node has applied it, once or as a watch, brokers, health; and this node itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from penstock.node.api.convert import broker_message, metadata_message
from penstock.node.api.health import problems
from penstock.node.api.logs import LogSource, list_logs
from penstock.node.api.paging import page
from penstock.node.api.reader import MetadataReader
from penstock.node.api.status import Context
from penstock.node.usage import StoreUsage, Usage
from penstock.raft.image import MetadataImage, TopicInfo
from penstock.storage import Figures
from penstock.v1 import cluster_service_pb2 as pb
from penstock.v1 import cluster_service_pb2_grpc as services


class CompactStore(Protocol):
    """StoreCompaction.request."""

    def __call__(self, *, validate_only: bool) -> Figures:
        """Begin to compact this node's store, or only check whether it could."""
        ...


class ClusterService(services.ClusterServiceServicer):
    """Handlers of the service. `controller` tells the id of the present controller, where one is known."""

    def __init__(
        self,
        node_id: int,
        reader: MetadataReader,
        controller: Callable[[], int | None],
        store_usage: Callable[[], StoreUsage],
        compact_store: CompactStore,
        logs: LogSource,
    ) -> None:
        self._node_id = node_id
        self._reader = reader
        self._controller = controller
        self._compact_store = compact_store
        self._logs = logs
        self._store_usage = store_usage
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all watches."""
        self._closing.set()

    async def GetMetadata(self, request: pb.GetMetadataRequest, context: Context) -> pb.GetMetadataResponse:  # noqa: N802
        """Return the cluster and the topics asked for, without those that do not exist."""
        image = await self._reader.at_least(request.min_metadata_version, context)
        selection = request.topics if request.HasField("topics") else None
        return pb.GetMetadataResponse(metadata=self._metadata(image, selection))

    async def WatchMetadata(  # noqa: N802
        self, request: pb.WatchMetadataRequest, context: Context
    ) -> AsyncIterator[pb.WatchMetadataResponse]:
        """Send the state now, and again after each change; states that follow fast are sent as one."""
        await self._reader.at_least(request.min_metadata_version, context)
        selection = request.topics if request.HasField("topics") else None
        view = self._reader.view
        changed = asyncio.Event()
        unsubscribe = view.subscribe(lambda _old, _new: changed.set())
        try:
            while not self._closing.is_set():
                changed.clear()
                yield pb.WatchMetadataResponse(metadata=self._metadata(view.image, selection))
                await _first(changed, self._closing)
        finally:
            unsubscribe()

    async def ListBrokers(self, request: pb.ListBrokersRequest, context: Context) -> pb.ListBrokersResponse:  # noqa: N802
        """List brokers by id."""
        image = await self._reader.at_least(0, context)
        shown, token = page(
            [f"{node_id:010}" for node_id in sorted(image.nodes)], request.page_size, request.page_token
        )
        return pb.ListBrokersResponse(
            brokers=[broker_message(image.nodes[int(node_id)]) for node_id in shown],
            next_page_token=token,
            controller=self._controller(),
            metadata_version=image.version,
        )

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:  # noqa: N802
        """Return the problems of cluster and partitions; healthy where there is none."""
        image = await self._reader.at_least(request.min_metadata_version, context)
        found = problems(image, self._controller())
        return pb.GetHealthResponse(healthy=not found, problems=found, metadata_version=image.version)

    async def GetBrokerUsage(self, _: pb.GetBrokerUsageRequest, context: Context) -> pb.GetBrokerUsageResponse:  # noqa: N802, ARG002
        """Return what this process has used so far."""
        now, store = Usage.now(), self._store_usage()
        return pb.GetBrokerUsageResponse(
            node_id=self._node_id,
            cpu_time_ms=now.cpu_time_ms,
            resident_bytes=now.resident_bytes,
            uptime_ms=now.uptime_ms,
            store_used_bytes=store.used_bytes,
            store_capacity_bytes=store.capacity_bytes,
            store_disk_bytes=store.disk_bytes,
            disk_free_bytes=store.free_bytes,
            store_state=store.state,
            retention_paused=store.retention_paused,
        )

    async def CompactStore(self, request: pb.CompactStoreRequest, _: Context) -> pb.CompactStoreResponse:  # noqa: N802
        """Begin to give the store's free room back; the figures of now."""
        found = self._compact_store(validate_only=request.validate_only)
        return pb.CompactStoreResponse(node_id=self._node_id, used_bytes=found.used_bytes, disk_bytes=found.disk_bytes)

    async def ListLogs(self, request: pb.ListLogsRequest, context: Context) -> pb.ListLogsResponse:  # noqa: N802, ARG002
        """List the logs of this node's store."""
        return await list_logs(self._node_id, self._logs, request)

    def _metadata(self, image: MetadataImage, selection: pb.TopicSelection | None) -> pb.ClusterMetadata:
        return metadata_message(image, self._controller(), _select(image, selection))


def _select(image: MetadataImage, selection: pb.TopicSelection | None) -> list[TopicInfo]:
    if selection is None:
        return list(image.topics.values())
    ids = {image.topic_ids[name] for name in selection.names if name in image.topic_ids}
    ids.update(topic_id for topic_id in selection.topic_ids if topic_id in image.topics)
    return [image.topics[topic_id] for topic_id in ids]


async def _first(*events: asyncio.Event) -> None:
    """Wait until any of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await wait
