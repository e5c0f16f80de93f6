"""What a failed gRPC call says: the error model's one meeting with the gRPC library, shared by client and server."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import grpc
from grpc_status import rpc_status

from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Reason

Response = TypeVar("Response")


async def answer_of(call: Awaitable[Response]) -> Response:
    """What a unary call answers. Raises the PenstockError that it fails with, see `from_call`.

    A channel that is closed cancels its calls: that is a call that broke, not the caller's cancellation.
    """
    try:
        return await call
    except grpc.RpcError as error:
        raise from_call(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise PenstockError(Reason.OUTCOME_UNKNOWN, "the connection was closed under the call") from None


def from_call(error: grpc.RpcError) -> PenstockError:
    """The error of a failed unary call. A call that broke without an answer of the server has an unknown outcome."""
    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    code, details = error.code(), error.details() or ""
    reason = Reason.UNSUPPORTED if code is grpc.StatusCode.UNIMPLEMENTED else Reason.OUTCOME_UNKNOWN
    return PenstockError(reason, f"{code.name}: {details}", {"code": code.name})
