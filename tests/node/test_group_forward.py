"""What is tried again on the way to a coordinator, and what is told at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from penstock.node.api.group_forward import CoordinatorCalls, Rpc
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

COMMIT = Rpc("CommitOffsets", repeatable=False)


class Here:
    """A coordinator on this node, which refuses calls first."""

    def __init__(self, *refusals: Reason) -> None:
        self.refusals = list(refusals)
        self.asked = 0
        coordinators: Any = SimpleNamespace(find=lambda group_id: self)
        channels: Any = None
        self.calls = CoordinatorCalls(coordinators, lambda node_id: channels)

    async def answer(self, at: Any, left_s: float) -> pb.CommitOffsetsResponse:
        assert at is self
        assert left_s > 0
        self.asked += 1
        if self.refusals:
            raise PenstockError(self.refusals.pop(0), "no")
        return pb.CommitOffsetsResponse()

    async def ask(self) -> pb.CommitOffsetsResponse:
        context: Any = SimpleNamespace(time_remaining=lambda: 60.0)
        return await self.calls.answer(COMMIT, pb.CommitOffsetsRequest(group_id="g"), context, self.answer)


async def test_a_coordinator_that_moves_is_waited_for() -> None:
    here = Here(Reason.COORDINATOR_LOADING, Reason.LEADER_NOT_AVAILABLE)
    await here.ask()
    assert here.asked == 3


@pytest.mark.parametrize("reason", [Reason.OVERLOADED, Reason.OUTCOME_UNKNOWN, Reason.GROUP_NOT_EMPTY])
async def test_what_a_repeat_makes_worse_is_told_at_once(reason: Reason) -> None:
    here = Here(reason)
    with pytest.raises(PenstockError) as caught:
        await here.ask()
    assert caught.value.reason is reason
    assert here.asked == 1
