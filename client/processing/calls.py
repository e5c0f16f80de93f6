"""Calls handlers: coroutine functions on the event loop, plain ones in threads of its own, so that the loop lives."""

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from penstock.client.processing.options import Handler, Parse
from penstock.client.records import Record

_inside: contextvars.ContextVar["HandlerCalls | None"] = contextvars.ContextVar("inside", default=None)
"""Of a plain handler, and of what it has the event loop do for it: the calls that it is one of."""


class UnparsableError(Exception):
    """`parse` raised; the cause is `__cause__`."""


def is_asynchronous(handler: Handler) -> bool:
    """Say whether it is a coroutine function, or an object whose call is one."""
    call = getattr(handler, "__call__", None)  # noqa: B004 - the call itself is looked at
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


class HandlerCalls:
    """See the module. Made and used on the event loop."""

    def __init__(self, handler: Handler, parse: Parse | None, concurrency: int) -> None:
        self._handler = handler
        self._parse = parse
        self.is_async = is_asynchronous(handler)
        self._pool = None if self.is_async else ThreadPoolExecutor(concurrency, "penstock-handler")

    async def call(self, record: Record) -> None:
        """Call the handler for this record. Raises what it raises, UnparsableError where `parse` raised."""
        if self._pool is None:
            await cast("Awaitable[object]", self._handler(self._value(record)))
            return
        context = contextvars.copy_context()
        result = await asyncio.wrap_future(self._pool.submit(context.run, self._both, record))
        if inspect.isawaitable(result):
            await result

    def close(self) -> None:
        """End the threads, each when its handler has returned."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def are_waiting(self) -> bool:
        """The caller is a plain handler, or works for one that waits."""
        return _inside.get() is self

    def _both(self, record: Record) -> object:
        _inside.set(self)
        try:
            return self._handler(self._value(record))
        except StopIteration as error:  # no future can hold one
            raise RuntimeError("the handler raised StopIteration") from error

    def _value(self, record: Record) -> object:
        if self._parse is None:
            return record
        try:
            return self._parse(record)
        except Exception as error:
            raise UnparsableError from error
