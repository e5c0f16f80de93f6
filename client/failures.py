"""From a failed gRPC call to the client's errors. A write whose answer was lost is of unknown outcome, never failed."""

import grpc
from grpc_status import rpc_status

from penstock.client.errors import RequestTimeoutError, UnavailableError, error_of, is_retriable, make_error
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

_BY_CODE = {
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNSUPPORTED,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
}
"""Codes that gRPC itself answers with before any handler ran, so that nothing happened."""


_BREAKS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
"""Codes without a reason that a connection or a server in its end has."""


def fault_of_stream(failure: grpc.aio.AioRpcError) -> PenstockError | None:
    """Make the error of a stream that broke for a reason that may well be there next time; None: it just broke."""
    status = rpc_status.from_call(failure)
    if status is not None and status.details:
        error = error_of(status)
        return None if is_retriable(error) else error
    code = failure.code()
    if code in _BREAKS:
        return None
    return PenstockError(_BY_CODE.get(code, Reason.INTERNAL), f"{code.name}: {failure.details() or 'no details'}")


def error_of_call(failure: grpc.aio.AioRpcError | grpc.Call, *, write: bool) -> PenstockError:
    """Make the error of a failed call. Without a reason from the server, a `write` is of unknown outcome."""
    status = rpc_status.from_call(failure)
    if status is not None and status.details:
        return error_of(status)
    code, details = failure.code(), failure.details() or "no details"
    if code in _BY_CODE:
        return make_error(_BY_CODE[code], details)
    if write:
        return make_error(Reason.OUTCOME_UNKNOWN, f"{code.name}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestTimeoutError(Reason.NOT_SERVING, f"no answer within the deadline: {details}")
    return UnavailableError(Reason.NOT_SERVING, f"{code.name}: {details}")
