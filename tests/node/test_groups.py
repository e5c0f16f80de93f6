"""How groups are joined to their node."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from penstock.internal.v1 import controller_pb2 as pb
from penstock.node.config import Limits
from penstock.node.groups import Groups
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.raft.view import View


async def _no_channel(node_id: int) -> grpc.aio.Channel | None:
    del node_id
    return None


async def test_a_topic_of_offsets_that_is_made_and_not_shown_in_time_is_metadata_that_is_behind() -> None:
    async def ensure(name: str, timeout_s: float) -> pb.EnsureInternalTopicResponse:
        del name, timeout_s
        return pb.EnsureInternalTopicResponse(metadata_version=7)

    parts: Any = SimpleNamespace(
        config=SimpleNamespace(node_id=1, limits=Limits()),
        view=View(),
        replicas=None,
        locator=SimpleNamespace(check_serving=lambda: None),
        consumer=None,
        controller=SimpleNamespace(ensure_internal_topic=ensure),
        wall=None,
    )
    groups = Groups(parts, _no_channel)
    with pytest.raises(PenstockError) as caught:
        await groups.coordinators.ensure("g", 0.01)
    assert caught.value.reason is Reason.METADATA_BEHIND
