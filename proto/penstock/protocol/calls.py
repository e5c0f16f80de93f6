"""What a failed gRPC call says: the error model's one meeting with the gRPC library, shared by client and server."""

import grpc
from grpc_status import rpc_status

from penstock.protocol.errors import PenstockError, from_status
from penstock.protocol.reasons import Reason


def from_call(error: grpc.RpcError) -> PenstockError:
    """The error of a failed unary call. A call that broke without an answer of the server has an unknown outcome."""
    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    code, details = error.code(), error.details() or ""
    reason = Reason.UNSUPPORTED if code is grpc.StatusCode.UNIMPLEMENTED else Reason.OUTCOME_UNKNOWN
    return PenstockError(reason, f"{code.name}: {details}", {"code": code.name})
