"""TopicService: changes go to the controller; lists and descriptions are answered from the applied metadata.

An answer to a change waits until this node has applied it, so that the next read here sees it.
"""

import asyncio

from penstock.node.api.admission import refuse_internal
from penstock.node.api.convert import topic_message
from penstock.node.api.locate import Locator
from penstock.node.api.paging import page
from penstock.node.api.reader import MetadataReader
from penstock.node.api.status import Context
from penstock.node.controller import ControllerClient
from penstock.node.partition import Partition
from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason
from penstock.raft.image import TopicInfo
from penstock.v1 import common_pb2
from penstock.v1 import topic_service_pb2 as pb
from penstock.v1 import topic_service_pb2_grpc as services

DEFAULT_TIMEOUT_S = 30.0


class TopicService(services.TopicServiceServicer):
    """Handlers of the service."""

    def __init__(self, locator: Locator, reader: MetadataReader, controller: ControllerClient) -> None:
        self._locator = locator
        self._reader = reader
        self._controller = controller

    async def CreateTopic(self, request: pb.CreateTopicRequest, context: Context) -> pb.CreateTopicResponse:  # noqa: N802
        """Create a topic, replicas placed by the controller where the request names none."""
        response = await self._controller.create_topic(request, _timeout(context))
        await self._reader.shows(response.metadata_version, context)
        return response

    async def AlterTopic(self, request: pb.AlterTopicRequest, context: Context) -> pb.AlterTopicResponse:  # noqa: N802
        """Change settings of a topic."""
        response = await self._controller.alter_topic(request, _timeout(context))
        await self._reader.shows(response.metadata_version, context)
        return response

    async def AddPartitions(self, request: pb.AddPartitionsRequest, context: Context) -> pb.AddPartitionsResponse:  # noqa: N802
        """Add partitions; keys are spread anew from then on."""
        response = await self._controller.add_partitions(request, _timeout(context))
        await self._reader.shows(response.metadata_version, context)
        return response

    async def DeleteTopic(self, request: pb.DeleteTopicRequest, context: Context) -> pb.DeleteTopicResponse:  # noqa: N802
        """Delete a topic and its data."""
        response = await self._controller.delete_topic(request, _timeout(context))
        await self._reader.shows(response.metadata_version, context)
        return response

    async def TrimPartitions(  # noqa: N802
        self, request: pb.TrimPartitionsRequest, context: Context
    ) -> pb.TrimPartitionsResponse:
        """Delete the oldest records of partitions that this node leads; each has its own result."""
        timeout_s = _timeout(context)
        if request.HasField("timeout"):
            timeout_s = min(timeout_s, request.timeout.ToTimedelta().total_seconds())
        if timeout_s <= 0:
            raise PenstockError(Reason.INVALID_ARGUMENT, "timeout is not positive")
        results = await asyncio.gather(*(self._trim(asked, timeout_s) for asked in request.partitions))
        return pb.TrimPartitionsResponse(results=results)

    async def _trim(self, asked: pb.PartitionTrim, timeout_s: float) -> pb.PartitionTrimResult:
        epoch = asked.leader_epoch if asked.HasField("leader_epoch") else None
        try:
            refuse_internal(self._locator.topic_of(asked.topic_id))
            partition = self._locator.leader_of(asked.topic_id, asked.partition)
            start = await partition.trim(await _trim_position(partition, asked, epoch), epoch, timeout_s)
        except PenstockError as error:
            explained = self._locator.explain(error, asked.topic_id, asked.partition)
            return pb.PartitionTrimResult(error=to_status(explained))
        return pb.PartitionTrimResult(log_start_offset=start)

    async def ListTopics(self, request: pb.ListTopicsRequest, context: Context) -> pb.ListTopicsResponse:  # noqa: N802
        """List topics by name."""
        image = await self._reader.at_least(request.min_metadata_version, context)
        names = sorted(t.name for t in image.topics.values() if request.include_internal or not t.internal)
        shown, token = page(names, request.page_size, request.page_token)
        topics = [topic_message(image.topics[image.topic_ids[name]]) for name in shown]
        return pb.ListTopicsResponse(topics=topics, next_page_token=token, metadata_version=image.version)

    async def DescribeTopic(self, request: pb.DescribeTopicRequest, context: Context) -> pb.DescribeTopicResponse:  # noqa: N802
        """Describe one topic, by name or by id."""
        image = await self._reader.at_least(request.min_metadata_version, context)
        return pb.DescribeTopicResponse(topic=topic_message(self._find(request)), metadata_version=image.version)

    def _find(self, request: pb.DescribeTopicRequest) -> TopicInfo:
        kind = request.WhichOneof("topic")
        if kind == "name":
            return self._locator.topic_named(request.name)
        if kind == "topic_id":
            return self._locator.topic_of(request.topic_id)
        raise PenstockError(Reason.INVALID_ARGUMENT, "say which topic: name or topic_id")


async def _trim_position(partition: Partition, asked: pb.PartitionTrim, epoch: int | None) -> int | None:
    """The offset that a trim names; None: all that is committed."""
    position = asked.WhichOneof("position")
    if position == "before_offset":
        return asked.before_offset
    if position == "before_timestamp_ms":
        uncommitted = common_pb2.ISOLATION_READ_UNCOMMITTED
        return (await partition.find_timestamp(asked.before_timestamp_ms, epoch, uncommitted)).offset
    if position == "everything" and asked.everything:
        return None
    text = "position is missing: one of before_offset, before_timestamp_ms, everything (true)"
    raise PenstockError(Reason.INVALID_ARGUMENT, text)


def _timeout(context: Context) -> float:
    return min(DEFAULT_TIMEOUT_S, context.time_remaining() or DEFAULT_TIMEOUT_S)
