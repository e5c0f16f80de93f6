"""Producer ids from blocks that the controller allocates, so that an id costs no Raft command."""

import asyncio
from collections.abc import Awaitable, Callable

BLOCK = 1000
DEFAULT_TIMEOUT_S = 30.0


class ProducerIds:
    """Hands out ids that no node ever gave before. What is left of a block at a restart is never used."""

    def __init__(self, allocate: Callable[[int, float], Awaitable[range]]) -> None:
        self._allocate = allocate
        self._block: range = range(0)
        self._lock = asyncio.Lock()

    async def next(self, timeout_s: float | None) -> int:
        """Return a new producer id. Raises PenstockError when the controller cannot be asked within the time."""
        async with self._lock:
            if not self._block:
                self._block = await self._allocate(BLOCK, DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)
            producer_id, self._block = self._block[0], self._block[1:]
            return producer_id
