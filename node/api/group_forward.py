"""Calls about groups, to their coordinator wherever it is: here, or at another node's peer listener.

Owns what is tried again. A call goes on at most once: what came from another node is answered here or not at all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import grpc
from google.protobuf.message import Message

from penstock.node.api.status import Context
from penstock.node.clock import loop_s
from penstock.node.group.coordinator import Coordinator
from penstock.node.group.coordinators import Coordinators
from penstock.protocol.calls import answer_of
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Outcome, Reason
from penstock.v1 import group_service_pb2_grpc as services

DEFAULT_TIMEOUT_S = 30.0
"""Of a call that names no deadline."""
MOVING_S = 10.0
"""A coordinator that moves or loads is waited for so long, within the call's deadline."""
RETRY_S = 0.05
CONNECT_S = 0.5
_MOVING = {  # not OVERLOADED: who tries that again here only waits in another place
    Reason.NOT_COORDINATOR,
    Reason.COORDINATOR_LOADING,
    Reason.LEADER_NOT_AVAILABLE,
    Reason.NOT_LEADER,
    Reason.NOT_SERVING,
}

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Rpc(NamedTuple):
    """One of the service's unary calls, and how to treat it."""

    name: str
    repeatable: bool
    """Twice is harmless."""
    creates: bool = False
    """It may be the first thing that is heard of groups."""


class CoordinatorCalls:
    """`channel_to`: to a node's peer listener; None: on the peer listener itself, where nothing is passed on."""

    def __init__(
        self,
        coordinators: Coordinators,
        channel_to: Callable[[int], Awaitable[grpc.aio.Channel | None]] | None,
    ) -> None:
        self._coordinators = coordinators
        self._channel_to = channel_to

    async def answer(
        self, rpc: Rpc, request: Any, context: Context, here: Callable[[Coordinator, float], Awaitable[Response]]
    ) -> Response:
        """Answer a call with `group_id`: `here`, given the coordinator and the seconds left, or where it is."""
        timeout_s = min(DEFAULT_TIMEOUT_S, context.time_remaining() or DEFAULT_TIMEOUT_S)
        deadline = loop_s() + timeout_s
        if self._channel_to is None:
            return await here(self._coordinators.find(request.group_id), timeout_s)
        if rpc.creates:
            await self._coordinators.ensure(request.group_id, timeout_s)
        patience = loop_s() + min(MOVING_S, 0.9 * timeout_s)
        while True:
            try:
                return await self._once(rpc, request, deadline, here)
            except PenstockError as error:
                if not _worth_repeating(error, rpc) or loop_s() + RETRY_S >= patience:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _once(
        self, rpc: Rpc, request: Any, deadline: float, here: Callable[[Coordinator, float], Awaitable[Response]]
    ) -> Response:
        try:
            coordinator = self._coordinators.find(request.group_id)
        except PenstockError as error:
            node_id = error.metadata.get("coordinator")
            if error.reason is not Reason.NOT_COORDINATOR or node_id is None:
                raise
            return await self._there(int(node_id), rpc, request, deadline)  # type: ignore[no-any-return]
        return await here(coordinator, deadline - loop_s())

    async def _there(self, node_id: int, rpc: Rpc, request: Any, deadline: float) -> Any:
        """Ask another node. What was surely never sent is LEADER_NOT_AVAILABLE."""
        if self._channel_to is None:
            raise PenstockError(Reason.NOT_COORDINATOR, "this node does not coordinate the group")
        channel = await self._channel_to(node_id)
        if channel is None:
            raise _unreachable(node_id, "its address is not known")
        try:
            if channel.get_state() is not grpc.ChannelConnectivity.READY:
                async with asyncio.timeout(max(0.0, min(CONNECT_S, deadline - loop_s()))):
                    await channel.channel_ready()
        except TimeoutError:
            raise _unreachable(node_id, "it cannot be reached") from None
        method = getattr(services.GroupServiceStub(channel), rpc.name)
        return await answer_of(method(request, timeout=max(0.001, deadline - loop_s())))


def _worth_repeating(error: PenstockError, rpc: Rpc) -> bool:
    if error.reason in _MOVING:
        return True
    return error.outcome is Outcome.UNKNOWN and error.reason is not Reason.INTERNAL and rpc.repeatable


def _unreachable(node_id: int, text: str) -> PenstockError:
    return PenstockError(Reason.LEADER_NOT_AVAILABLE, f"the group's coordinator, node {node_id}: {text}")
