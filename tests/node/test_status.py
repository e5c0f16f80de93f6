"""What leaves a handler: statuses; and in the log, faults alone."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from penstock.node.api.status import StatusInterceptor


class Context:
    """Notes the answer."""

    def __init__(self) -> None:
        self.codes: list[grpc.StatusCode] = []

    async def abort(self, code: grpc.StatusCode, *_: object) -> None:
        self.codes.append(code)
        raise grpc.aio.AbortError


async def run(error: Exception | None, *, streaming: bool) -> Context:
    """Have a handler fail with this error."""

    async def unary(request: Any, context: Any) -> None:
        if error is not None:
            raise error

    async def stream(request: Any, context: Any) -> AsyncIterator[None]:
        if error is not None:
            raise error
        yield

    async def continuation(_: Any) -> Any:
        if streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    class Details:
        method = "/a/b"

    details: Any = Details()
    context = Context()
    handler: Any = await StatusInterceptor().intercept_service(continuation, details)
    answer = anext(handler.unary_stream(None, context)) if streaming else handler.unary_unary(None, context)
    with pytest.raises(grpc.aio.BaseError):
        await answer
    return context


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_fault_is_logged_and_answered(streaming: bool, caplog: pytest.LogCaptureFixture) -> None:
    context = await run(ZeroDivisionError(), streaming=streaming)
    assert context.codes == [grpc.StatusCode.INTERNAL]
    assert "unexpected error in /a/b" in caplog.text


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_caller_that_is_gone_is_no_fault(streaming: bool, caplog: pytest.LogCaptureFixture) -> None:
    context = await run(grpc.aio.InternalError(), streaming=streaming)
    assert (context.codes, caplog.text) == ([], "")
