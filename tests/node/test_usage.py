"""A node tells what its process has used."""

from typing import Any, cast

from penstock.node.api.cluster_service import ClusterService
from penstock.node.api.reader import MetadataReader
from penstock.node.usage import StoreUsage, Usage
from penstock.raft.image import EMPTY_IMAGE
from penstock.raft.view import View
from penstock.v1 import cluster_service_pb2 as pb
from penstock.v1 import common_pb2


def test_usage_grows_and_counts_what_was_done() -> None:
    before = Usage.now()
    while Usage.now().cpu_time_ms == before.cpu_time_ms:
        pass  # which costs processor time
    held = bytearray(b"x") * (32 << 20)
    after = Usage.now()
    assert after.uptime_ms >= before.uptime_ms
    assert after.resident_bytes >= len(held)


async def test_it_is_told_by_a_node_that_does_not_serve_yet() -> None:
    nothing: Any = None
    store = StoreUsage(1, 2, 3, 4, common_pb2.STORE_STATE_NEARLY_FULL, retention_paused=True)
    reader = MetadataReader(View(EMPTY_IMAGE), lambda: False)
    service = ClusterService(7, reader, lambda: None, lambda: store, nothing, nothing)
    context: Any = None
    used = await service.GetBrokerUsage(pb.GetBrokerUsageRequest(), cast("Any", context))
    assert used.node_id == 7
    assert used.resident_bytes > 0
    assert (used.store_used_bytes, used.store_capacity_bytes, used.store_disk_bytes, used.disk_free_bytes) == (
        1,
        2,
        3,
        4,
    )
    assert used.store_state == common_pb2.STORE_STATE_NEARLY_FULL
    assert used.retention_paused
