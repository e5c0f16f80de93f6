"""Fixtures: a reference cluster on the test's event loop, or in a thread of its own for the blocking face."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from penstock.client.clock import SystemClock
from tests.client.reference_server import Cluster, reference_cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with reference_cluster() as made:
        yield made


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop run until something holds; the test's timeout is the bound."""
    while not holds():  # noqa: ASYNC110 - what is awaited belongs to the code under test and has no event
        await asyncio.sleep(0.001)


class SkippingClock(SystemClock):
    """The machine's clock; where a test wants a timeout to be over, it skips it, and nothing else is short of time."""

    def __init__(self) -> None:
        self.skipped_ms = 0

    def skip(self, duration_ms: int) -> None:
        self.skipped_ms += duration_ms

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self.skipped_ms


class ServedCluster:
    """A reference cluster whose event loop runs in another thread; state is read from here when all is quiet."""

    def __init__(self) -> None:
        self.cluster: Cluster
        self.loop: asyncio.AbstractEventLoop
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "ServedCluster":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with reference_cluster() as self.cluster:
            self._ready.set()
            await self._stop.wait()


@pytest.fixture
def served() -> Iterator[ServedCluster]:
    with ServedCluster() as made:
        yield made
