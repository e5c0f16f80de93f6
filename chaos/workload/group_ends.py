"""What a group has committed, and where the logs end: asked in the end, of a cluster that is whole."""

from collections.abc import Sequence

import grpc

from penstock.chaos.workload.options import Access
from penstock.chaos.workload.process import Process
from penstock.client import Admin, PenstockError
from penstock.v1 import group_service_pb2 as pb
from penstock.v1 import group_service_pb2_grpc

TIMEOUT_S = 5.0
Unread = list[tuple[str, int, int, int]]
"""Topic, partition, what is committed, and the end."""


class GroupEnds:
    """See the module."""

    def __init__(self, access: Access, group: str, topics: Sequence[str]) -> None:
        self._access = access
        self._group = group
        self._topics = topics

    async def unread(self) -> Unread | None:
        """Give the partitions that the group has not committed to the end; None where nobody says."""
        committed = await self.committed()
        if committed is None:
            return None
        found: Unread = []
        try:
            async with Admin(
                self._access.bootstrap, timeout_ms=int(TIMEOUT_S * 1000), address_map=self._access.address_map
            ) as admin:
                for topic in self._topics:
                    for end in await admin.list_offsets(topic, "latest"):
                        at = committed.get((topic, end.partition), 0)
                        if at < end.offset:
                            found.append((topic, end.partition, at, end.offset))
        except PenstockError:
            return None
        return found

    async def committed(self) -> dict[tuple[str, int], int] | None:
        """Give the committed offsets; None where nobody says."""
        for advertised in self._access.bootstrap.split(","):
            address = self._access.address_map.get(advertised, advertised)
            async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = group_service_pb2_grpc.GroupServiceStub(channel)
                try:
                    answer = await stub.FetchOffsets(pb.FetchOffsetsRequest(group_id=self._group), timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError:
                    continue
                return {(one.topic, one.partition): one.committed.offset for one in answer.offsets}
        return None

    async def note_committed(self, process: Process) -> None:
        """Note what is committed in the history, if somebody says."""
        began = process.recorder.now()
        for (topic, partition), offset in sorted((await self.committed() or {}).items()):
            where = {"group": self._group, "topic": topic, "partition": partition}
            process.recorder.read(process.name, "group_offset", began, offset=offset, **where)
