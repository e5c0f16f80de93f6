"""Errors to gRPC statuses, once for every call: an interceptor around all handlers of a server.

A handler raises PenstockError; whatever else escapes is a fault, logged with its traceback and answered INTERNAL.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from penstock.protocol.errors import PenstockError, to_status
from penstock.protocol.reasons import Reason

_log = logging.getLogger(__name__)

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that carries google.rpc.Status, as all gRPC libraries read it."""

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: Context, error: PenstockError) -> NoReturn:
    """End the call with the error's code, message and ErrorInfo."""
    details = ((DETAILS_KEY, to_status(error).SerializeToString()),)
    await context.abort(_STATUS_CODES[error.reason.code], error.message, details)
    raise AssertionError("abort returned")  # it raises; this tells the type checker


def fault(method: str) -> PenstockError:
    """Log the exception being handled and return what the caller gets to see of it."""
    _log.exception("unexpected error in %s", method)
    return PenstockError(Reason.INTERNAL, f"internal error in {method}; the node's log has the details")


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler so that its exceptions become statuses with details."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the handler of the call, wrapped; None where there is no such method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_wrap(handler.unary_unary, method), *codec)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(_wrap(handler.stream_stream, method), *codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_wrap(handler.unary_stream, method), *codec)
        return handler


def _wrap(behavior: Any, method: str) -> Any:
    """Wrap a handler; streaming ones may be generators or write to the context."""
    if inspect.isasyncgenfunction(behavior):
        return _wrap_generator(behavior, method)

    async def call(request: Any, context: Context) -> Any:
        try:
            return await behavior(request, context)
        except PenstockError as error:
            await abort(context, error)
        except (grpc.aio.AbortError, grpc.aio.InternalError):  # the latter: the caller is gone
            raise
        except Exception:  # noqa: BLE001  the boundary: everything is answered and logged
            await abort(context, fault(method))

    return call


def _wrap_generator(behavior: Any, method: str) -> Any:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in behavior(request, context):
                yield response
        except PenstockError as error:
            await abort(context, error)
        except (grpc.aio.AbortError, grpc.aio.InternalError):  # the latter: the caller is gone
            raise
        except Exception:  # noqa: BLE001  the boundary: everything is answered and logged
            await abort(context, fault(method))

    return call
