"""This node's controllership in one term: what runs in it, and whether the event loop stood still meanwhile."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from penstock.node.controller.core import ControllerCore

_log = logging.getLogger(__name__)

TICK_S = 0.05
"""Longest time between two looks at the sessions; how often the event loop shows that it runs."""


class Reign:
    """Everything that ends with the leadership. `loop_ms`: the event loop's time."""

    def __init__(self, term: int, loop_ms: Callable[[], int]) -> None:
        self.term = term
        self.core: ControllerCore | None = None
        """None: not ready yet, or over."""
        self.wake = asyncio.Event()
        self.tasks: dict[asyncio.Task[None], None] = {}
        self._loop_ms = loop_ms
        self._ticked_ms = loop_ms()
        self._pause_ms = 0

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something that ends with the reign at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self._done)

    def end(self) -> None:
        """Stop everything."""
        self.core = None
        for task in list(self.tasks):
            task.cancel()

    async def tick(self) -> None:
        """Show regularly that the event loop runs."""
        while True:
            await asyncio.sleep(TICK_S)
            self._look()

    def take_pause_ms(self) -> int:
        """Return for how long the event loop stood still since the last call."""
        self._look()
        pause_ms, self._pause_ms = self._pause_ms, 0
        return pause_ms

    def _look(self) -> None:
        now_ms = self._loop_ms()
        self._pause_ms += max(0, now_ms - self._ticked_ms - int(TICK_S * 1000))
        self._ticked_ms = now_ms

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the controller failed", exc_info=error)
