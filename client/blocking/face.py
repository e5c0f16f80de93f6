"""What the blocking faces share: the loop thread, and waiting for it."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from penstock.client.errors import ClientClosedError
from penstock.client.loop_thread import LoopThread
from penstock.protocol.reasons import Reason

T = TypeVar("T")


class Face:
    """What the three faces share: the loop thread, and the context manager."""

    def __init__(self) -> None:
        self._thread: LoopThread | None = None

    def _start(self, opening: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._thread = LoopThread.acquire()
        try:
            self._run(opening())
        except BaseException:
            self._stop()
            raise

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            coroutine.close()
            raise ClientClosedError(Reason.NOT_SERVING, "the client is not open")
        return self._thread.run(coroutine)

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.release()


async def soon(act: Callable[[], T]) -> T:
    """Run on the loop what must not run beside it."""
    return act()
