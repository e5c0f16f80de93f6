"""The background event loop under the blocking clients: one thread a process, while any of them is open.

Other threads reach the loop only through `run` and `call_soon`. A wait that is interrupted (Ctrl-C) cancels what it
waits for and lets the interrupt through.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class LoopThread:
    """See the module; get it by `acquire`, give it back by `release`."""

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _shared: ClassVar["LoopThread | None"] = None

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self.users = 0
        """Clients that have acquired it; changed under the lock only."""
        self._thread = threading.Thread(target=self._run, name="penstock-client", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls) -> "LoopThread":
        """Give the process's loop thread, started if need be."""
        with cls._lock:
            shared = cls._shared
            if shared is None:
                shared = cls._shared = cls()
            shared.users += 1
            return shared

    def release(self) -> None:
        """Give it back; the last one stops it."""
        with LoopThread._lock:
            self.users -= 1
            if self.users:
                return
            LoopThread._shared = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its end. Not from the loop's own callbacks."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            message = "a blocking client must not be waited for inside its own callback"
            raise RuntimeError(message)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # without effect where it is done: only an interrupted wait gets here before
            raise

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Have the loop call this."""
        self._loop.call_soon_threadsafe(callback)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
