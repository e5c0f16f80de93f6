"""Listeners for blocking applications, called from the background thread's event loop in threads of their own."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from penstock.client.group.listener import RebalanceListener
from penstock.client.records import TopicPartition


class _InThreads(RebalanceListener):
    """Calls another listener, which may wait for its blocking consumer."""

    def __init__(self, listener: RebalanceListener) -> None:
        self._listener = listener

    async def on_assigned(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        await _call(self._listener.on_assigned, partitions)

    async def on_revoked(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        await _call(self._listener.on_revoked, partitions)

    async def on_lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See RebalanceListener."""
        await _call(self._listener.on_lost, partitions)


async def _call(method: Callable[[tuple[TopicPartition, ...]], Any], partitions: tuple[TopicPartition, ...]) -> None:
    result = await asyncio.to_thread(method, partitions)
    if inspect.isawaitable(result):
        await result


def in_threads(listener: RebalanceListener | None) -> RebalanceListener | None:
    """Give a listener that calls this one in threads; none where there is none."""
    return None if listener is None else _InThreads(listener)
