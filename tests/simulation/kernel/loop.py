"""An asyncio event loop in virtual time: one for each simulated process, so that a process can pause, lag and die.

It has no selector, no thread and no clock of its own. Work in an "executor" runs a little later, in one piece. When the
process dies its tasks are closed at once and in order, and whatever they still call on the loop does nothing.
"""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from tests.simulation.kernel.scheduler import Scheduler

if TYPE_CHECKING:
    _Base = asyncio.BaseEventLoop  # for the type checker: it has all that is abstract
else:
    _Base = asyncio.AbstractEventLoop

TURN_HANDLES = 2_000
"""Handles of one turn, after which time goes on a little: a loop that spins is seen in the trace, not as a hang."""
SPIN_S = 1e-4
CLOSINGS = 100
"""Awaits in the `finally` blocks of one task."""


class ProcessGone(BaseException):
    """Thrown into the tasks of a process that is gone, at each await that their `finally` blocks still come to."""


class SimHandle(asyncio.TimerHandle):
    """A handle without what only a real loop needs: most of what a world does are handles."""

    __slots__ = ()

    def __init__(  # the base's would note a traceback, and more
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None, when: float = 0.0
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        """See asyncio.Handle."""
        self._cancelled = True
        self._callback, self._args = _nothing_to_do, ()


class SimTask(asyncio.Task[Any]):
    """Hashed by its number, so that sets of tasks have the same order in every run."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], loop: "SimLoop", name: str, context: Context | None, number: int
    ) -> None:
        self.number = number
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(_Base):
    """`lag()` draws how long after an event a turn begins; `offset` is what this process's monotonic clock is ahead."""

    def __init__(self, scheduler: Scheduler, name: str, lag: Callable[[], float], offset: float = 0.0) -> None:
        self.name = name
        self.offset = offset
        self.paused_until = 0.0
        self.after_turn: Callable[[], None] | None = None
        """Called after each turn, outside the loop."""
        self.errors: list[dict[str, Any]] = []
        """Contexts that nobody handled: an exception of a callback, or of a task that nobody awaited."""
        self._scheduler = scheduler
        self._lag = lag
        self._ready: deque[SimHandle] = deque()
        self._is_due = False
        self._closed = False
        self._running = False
        self._tasks: list[asyncio.Task[Any]] = []  # in the order of their making; those done are taken out in bulk
        self._many_tasks = 32

    # ---- time

    def time(self) -> float:
        """Monotonic seconds of this process."""
        return self._scheduler.now + self.offset

    def pause(self, until: float) -> None:
        """Run nothing before a time of the world, as a stopped process; what is due then runs late."""
        self.paused_until = max(self.paused_until, until)

    # ---- what asyncio needs

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        handle = SimHandle(callback, args, context)
        if not self._closed:
            self._ready.append(handle)
            if not self._is_due and not self._running:
                self._is_due = True
                self._scheduler.after(self._lag(), self._turn)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        when = self._scheduler.now + self.offset + delay
        handle = SimHandle(callback, args, context, when)
        if not self._closed:
            self._scheduler.at(when - self.offset, self._fire, handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = SimHandle(callback, args, context, when)
        if not self._closed:
            self._scheduler.at(when - self.offset, self._fire, handle)
        return handle

    def _fire(self, handle: SimHandle) -> None:
        if handle._cancelled or self._closed:
            return
        self._ready.append(handle)
        if not self._is_due and not self._running:
            self._is_due = True
            self._scheduler.at(self._scheduler.now, self._turn)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> "asyncio.Task[Any]":
        if self._closed:
            coro.close()
            coro = _nothing()
        task = SimTask(coro, self, name or "task", context, self._scheduler.number())
        if self._closed:
            _dispose(self._scheduler, task)
        else:
            self._tasks.append(task)
            if len(self._tasks) > self._many_tasks:
                self._tasks = [task for task in self._tasks if not task.done()]
                self._many_tasks = 32 + 2 * len(self._tasks)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        future = self.create_future()
        if not self._closed:
            self._scheduler.after(self._lag() + 1e-4, self._execute, future, func, args)
        return future

    def _execute(self, future: "asyncio.Future[Any]", func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._closed or future.done():
            return
        if self._scheduler.now < self.paused_until:
            self._scheduler.at(self.paused_until, self._execute, future, func, args)
            return
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001  it goes to whoever awaits
            future.set_exception(error)
        else:
            future.set_result(result)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._closed:
            self.errors.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """Signals do not reach a simulated process."""

    # ---- running

    def _turn(self) -> None:
        self._is_due = False
        scheduler = self._scheduler
        if self._closed:
            return
        if scheduler.now < self.paused_until:
            self._is_due = True
            scheduler.at(self.paused_until, self._turn)
            return
        self._running = True
        events._set_running_loop(self)
        try:
            self._drain()
        finally:
            events._set_running_loop(None)
            self._running = False
        if self.is_closed():  # meanwhile
            return
        if self._ready:
            self._is_due = True
            scheduler.after(SPIN_S, self._turn)
        if self.after_turn is not None:
            self.after_turn()

    def _drain(self) -> None:
        ready = self._ready
        left = TURN_HANDLES
        while ready and left:
            left -= 1
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                if handle._context is None:
                    handle._callback(*handle._args)
                else:
                    handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001  as asyncio.Handle
                self.call_exception_handler(
                    {"message": f"Exception in callback {handle._callback}", "exception": error}
                )

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function as this process: with this loop as the running one."""
        former, was = events._get_running_loop(), self._running
        events._set_running_loop(self)
        self._running = True
        try:
            return function(*arguments)
        finally:
            self._running = was
            events._set_running_loop(former)
            if self._ready and not self._is_due and not was and not self._closed:
                self._is_due = True
                self._scheduler.after(self._lag(), self._turn)

    def close(self) -> None:
        """The process is gone: nothing of it runs any more."""
        if self._closed:
            return
        self._closed = True
        self._ready.clear()
        tasks, self._tasks = [task for task in self._tasks if not task.done()], []
        self.run(_dispose_all, self._scheduler, tasks)


def _nothing_to_do() -> None:
    """Stand in for a callback that was cancelled."""


def _dispose_all(scheduler: Scheduler, tasks: "list[asyncio.Task[Any]]") -> None:
    for task in tasks:
        _dispose(scheduler, task)


def _dispose(scheduler: Scheduler, task: "asyncio.Task[Any]") -> None:
    """End a task of a dead process without a word. Its `finally` blocks run; they reach nothing."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine: Any = task.get_coro()
    for _ in range(CLOSINGS):
        try:
            coroutine.throw(ProcessGone)
        except ValueError:  # it is running: it ended its own process
            scheduler.after(0.0, _dispose, scheduler, task)
            return
        except BaseException:  # noqa: BLE001  nobody is left whom it could tell
            return


async def _nothing() -> None:
    """Stand in for the work of a process that is gone."""
