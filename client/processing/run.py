"""The shell of process(): feeds records to handlers, commits what is done, and ends in order.

Owns the tasks: `concurrency` workers, one that feeds them by polling, one that commits. The core decides; what is done
is committed after that, never before. Ends when told (`stop`), at the first failure that stops, or when cancelled; then
no handler begins any more, those that run end (asynchronous ones are cancelled where process() was), what is done is
committed, and the consumer stands at the first record that is not done.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from penstock.client.clock import Clock
from penstock.client.errors import CommitFailedError
from penstock.client.processing.calls import HandlerCalls
from penstock.client.processing.core import Limits, ProcessingCore
from penstock.client.processing.failing import Failures
from penstock.client.processing.options import ProcessConfig
from penstock.client.processing.policies import Again, HandlerError
from penstock.client.processing.progress import Work
from penstock.client.processing.source import Source
from penstock.client.processing.statistics import Counters, ProcessingStatistics
from penstock.client.produce_stream import end
from penstock.client.records import CommitPoint, TopicPartition
from penstock.protocol.errors import PenstockError

TICK_S = 0.25
"""How long a poll waits, and how often polling goes on where there is no room for records."""
POLL_RECORDS = 500
TURN_MS = 10
"""How long handlers may keep the event loop for themselves, one after the other."""
_LOG = logging.getLogger("penstock.client")


class Processing:
    """See the module. One run, on one event loop. Is the consumer's Drainer meanwhile."""

    def __init__(
        self, source: Source, config: ProcessConfig, calls: HandlerCalls, failures: Failures, clock: Clock
    ) -> None:
        self._source = source
        self._config = config
        self._calls = calls
        self._failures = failures
        self._clock = clock
        self.counters = Counters()
        failures.counters = self.counters
        self._core = ProcessingCore(Limits(config.max_in_flight, config.keyless))
        self._workers: dict[Work, asyncio.Task[None]] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._interrupted: dict[Work, None] = {}
        """Works whose handlers were cancelled from here."""
        self._settling: dict[Work, None] = {}
        """Works whose handlers have failed: what follows of it is under way."""
        self._watchers: list[asyncio.Future[None]] = []
        self._ended = asyncio.Event()
        self._is_cut = False
        """No handler begins any more."""
        self._is_cancelled = False
        self._error: BaseException | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._turn_ms = 0
        """When a worker let the event loop run last, for no other reason."""
        self.finished = asyncio.Event()
        """Set by who made it, once it is at its end."""

    @property
    def statistics(self) -> ProcessingStatistics:
        """The counts as they are now."""
        return self.counters.snapshot(len(self._workers), self._core.in_flight)

    def stop(self) -> None:
        """End in order: what was begun is finished and committed."""
        self._core.drain(self._core.partitions)
        self._ended.set()
        self._notify()

    def is_within(self) -> bool:
        """The caller is a handler of this run, or works for one."""
        return asyncio.current_task() in self._workers.values() or self._calls.are_waiting()

    def is_feeding(self) -> bool:
        """The caller is the one that polls for this run."""
        return asyncio.current_task() is self._feeding

    async def run(self) -> ProcessingStatistics:
        """Run until the end. Raises HandlerError, and what polling raises."""
        self._source.drive(self)
        feeding = self._feeding = asyncio.create_task(self._feed())
        others = [asyncio.create_task(self._work()) for _ in range(self._config.concurrency)]
        others.append(asyncio.create_task(self._commit_often()))
        for task in (feeding, *others):
            task.add_done_callback(self._task_ended)
        try:
            await self._ended.wait()
            await asyncio.wait([feeding])  # soon; not cancelled, for a listener may be running in it
            await self._finish()
        except asyncio.CancelledError:
            await self._cancel(feeding)
            raise
        finally:
            await end([feeding, *others])
            self._rewind()
            self._source.drive(None)
            self._calls.close()
            await self._failures.close()
        return self.statistics

    # -- records in

    async def _feed(self) -> None:
        while not self._ended.is_set():
            await self._take()

    async def _take(self) -> None:
        core, low = self._core, max(1, self._config.max_in_flight // 4)
        if core.room < low:
            await self._until(lambda: core.room >= low or self._ended.is_set(), TICK_S)
        self._balance()
        if self._is_stuck():
            await self._until(self._ended.is_set, TICK_S)
            return
        room = core.room
        records = await self._source.poll(max(0, min(room, POLL_RECORDS)), TICK_S if room > 0 else 0)
        core.add(records, self._clock.monotonic_ms())
        self._wake(len(records))

    def _balance(self) -> None:
        """Let no partition starve the others."""
        assigned = len(self._source.assignment())
        for partition in self._core.set_aside(self._clock.monotonic_ms(), assigned):
            self._source.pause(partition)
        for partition in self._core.take_back(assigned):
            self._source.resume(partition)

    def _is_stuck(self) -> bool:
        """A handler has not returned for so long that polling must end: the member gives its partitions up.

        Half the interval, as the coordinator counts it from the last poll: a handler that takes no longer than
        max_poll_interval_ms costs nothing, one that takes half as much again always does.
        """
        began_ms = self._core.oldest_begun_ms
        limit_ms = self._source.max_poll_interval_ms / 2
        return bool(self._source.group) and began_ms is not None and self._clock.monotonic_ms() - began_ms > limit_ms

    # -- records through

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while (work := await self._next()) is not None:
            self._workers[work] = task
            try:
                await self._handle(work, task)
            finally:
                del self._workers[work]
                self._notify()
            await self._take_turns()

    async def _take_turns(self) -> None:
        """Handlers that wait for nothing leave the event loop to others now and then."""
        former_ms = self._turn_ms
        if self._clock.monotonic_ms() - former_ms >= TURN_MS:
            await asyncio.sleep(0)
            if self._turn_ms == former_ms:  # the first worker of this turn of the loop
                self._turn_ms = self._clock.monotonic_ms()

    async def _next(self) -> Work | None:
        """Wait for a record that may begin; None: none will."""
        while not self._is_cut:
            now_ms = self._clock.monotonic_ms()
            work = self._core.next(now_ms)
            due_ms = self._core.next_due_ms
            if work is not None:
                if self._core.has_ready or due_ms is not None:
                    self._wake(1)  # somebody is to look after the rest
                return work
            await self._sleep(None if due_ms is None else (due_ms - now_ms) / 1000)
        return None

    async def _sleep(self, timeout_s: float | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(turn)
        try:
            async with asyncio.timeout(timeout_s):
                await turn
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ValueError):
                self._idle.remove(turn)  # where nobody woke it

    def _wake(self, count: int) -> None:
        while count > 0 and self._idle:
            turn = self._idle.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    async def _handle(self, work: Work, task: "asyncio.Task[None]") -> None:
        try:
            await self._attempt(work)
        except asyncio.CancelledError:
            if work not in self._interrupted:
                raise
        finally:
            self._core.give_up(work)
            if work in self._interrupted:
                del self._interrupted[work]
                task.uncancel()

    async def _attempt(self, work: Work) -> None:
        """Call the handler, do what its failure asks for; what is neither done nor due again is given up after this."""
        error = await self._call(work)
        if error is None:
            if not work.progress.is_lost:
                self.counters.processed += 1
            self._core.finish(work, self._clock.monotonic_ms())
            return
        self.counters.failed += 1
        if work.progress.is_lost or self._error is not None or work in self._interrupted:
            return  # it comes again, elsewhere or the next time; and what comes of being cancelled is no failure
        self._settling[work] = None
        try:
            outcome = await self._failures.settle(work.record, work.attempts, error)
        finally:
            del self._settling[work]
        if isinstance(outcome, Again):
            self._core.postpone(work, self._clock.monotonic_ms() + outcome.delay_ms)  # `_next` looks after it
        elif outcome is None:
            self._core.finish(work, self._clock.monotonic_ms())
        else:
            self._fail(outcome)

    async def _call(self, work: Work) -> BaseException | None:
        """Give what the handler raised."""
        try:
            await self._calls.call(work.record)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # of the handler's own making
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the application's code; see decide
            return error
        return None

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._is_cut = True
        self._ended.set()

    # -- the consumer's Drainer

    async def drain(self, partitions: tuple[TopicPartition, ...]) -> Mapping[TopicPartition, CommitPoint]:
        """See Drainer. Records that lie before one that was begun are finished too, for half the time there is."""
        self._core.drain(partitions)
        await self._drained(partitions)
        points = self._core.to_commit(partitions)
        self._core.lose(partitions)
        return points

    async def _drained(self, partitions: Sequence[TopicPartition]) -> None:
        def is_drained() -> bool:
            return self._core.is_drained(partitions)

        await self._until(is_drained, self._source.rebalance_timeout_ms / 2000)
        self._core.cut(partitions)
        await self._until(is_drained, None)

    def lost(self, partitions: tuple[TopicPartition, ...]) -> None:
        """See Drainer."""
        running = self._core.lose(partitions)
        self.counters.lost += len(running)
        if self._config.cancel_lost:
            self._interrupt(running)
        self._notify()

    def _interrupt(self, works: Sequence[Work]) -> None:
        """Cancel asynchronous handlers, and what follows of failures; plain handlers cannot be."""
        for work in works:
            if (self._calls.is_async or work in self._settling) and work not in self._interrupted:
                self._interrupted[work] = None
                self._workers[work].cancel()

    # -- commits

    async def _commit_often(self) -> None:
        while True:
            await self._clock.sleep_ms(self._config.commit_interval_ms)
            try:
                await self._commit()
            except PenstockError as error:
                _LOG.warning("committing what was processed failed and is tried again: %s", error)

    async def _commit(self) -> None:
        points = self._core.to_commit()
        try:
            if points and self._source.group:
                await self._source.commit(points)
        except CommitFailedError as error:  # others are committed; they may be so again
            _LOG.warning("some of what was processed comes again, to another member: %s", error)
        else:
            self._core.committed(points)

    # -- the end

    async def _cancel(self, feeding: "asyncio.Task[None]") -> None:
        """Process() was cancelled. What goes wrong now is logged only."""
        self._is_cancelled = self._is_cut = True
        self._interrupt(self._core.running)
        feeding.cancel()
        await asyncio.wait([feeding])
        try:
            await self._finish()
        except (PenstockError, HandlerError) as error:
            _LOG.warning("process() was cancelled; then: %s", error)

    async def _finish(self) -> None:
        """Finish what was begun, and commit. Raises the cause of the end."""
        everything = self._core.partitions
        if self._error is None and not self._is_cancelled:
            self._core.drain(everything)
        else:
            self._core.cut(everything)
        await self._drained(everything)
        self._is_cut = True
        self._wake(len(self._idle))
        try:
            await self._commit()
        except PenstockError as error:
            if self._error is None:
                raise
            self._error.add_note(f"what was processed before could not be committed: {error}")
        if self._error is not None:
            raise self._error

    def _rewind(self) -> None:
        """Have the consumer stand at the first record of each partition that is not done: no other commits past it."""
        for partition, offset in self._core.positions().items():
            try:
                self._source.move(partition, offset)
            except PenstockError as error:
                _LOG.warning("%s-%d cannot be read from offset %d again: %s", *partition, offset, error)
        self._core.lose(self._core.partitions)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    # -- waiting

    async def _until(self, holds: Callable[[], bool], timeout_s: float | None) -> None:
        """Return when something holds that records' ends bring about, or after the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._watchers.append(watcher)
                    await watcher
        except TimeoutError:
            pass

    def _notify(self) -> None:
        if not self._watchers:
            return
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)
