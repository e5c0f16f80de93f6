"""What the blocking consumer does otherwise in a group: the listener is called, and records are handed out, by the
application's own thread, while membership and heartbeats go on in the background.
"""

import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from penstock.client import consumer as _consumer
from penstock.client.blocking.face import soon
from penstock.client.blocking.listening import in_threads
from penstock.client.cursor import Cursor
from penstock.client.group.reader import GroupReader
from penstock.client.group.rebalances import call_listener
from penstock.client.records import Record, TopicPartition

T = TypeVar("T")
LOOKAHEAD_RECORDS = 500
"""Records that iterating takes from the background thread at once."""
ITERATION_WAIT_S = 60.0


class Run(Protocol):
    """Runs a coroutine on the background loop and waits for it."""

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """See the class."""


class InGroup:
    """See the module. Used from the application's thread; `lookahead` is shared with the face."""

    def __init__(self, inner: _consumer.Consumer, group: GroupReader, run: Run) -> None:
        self._inner = inner
        self._group = group
        self._run = run
        self._lookahead: deque[Record] = deque()
        self._cursors: dict[TopicPartition, Cursor] = {}
        """Where the lookahead's records come from."""
        self._version = 0
        inner._tells_changes = False  # noqa: SLF001 - its other face

    def next(self) -> Record:
        """Give the next record, however long it takes."""
        while True:
            if self._lookahead and self._version == self._group.rebalances.version and self._group.goes_on():
                record = self._lookahead.popleft()
                partition = TopicPartition(record.topic, record.partition)
                self._group.positions.hand_out(partition, record.offset + 1, record.leader_epoch)
                return record
            self._run(soon(self._look_again))
            self.tell_changes()
            if not self._lookahead:
                self._run(self._fill())

    def poll(self, read: Callable[[float], Coroutine[Any, Any, list[T]]], timeout_s: float) -> list[T]:
        """Give what `read` gives within that time; it ends early when there is something to be told."""
        self._run(soon(self._rewind))  # asks: what is given up is committed as far as that was handed out
        until_s = time.monotonic() + timeout_s
        while True:
            self.tell_changes()
            try:
                found = self._run(read(max(0.0, until_s - time.monotonic())))
            except BaseException:
                self._run(soon(self._take_back))  # what was read for who was interrupted just then
                raise
            if found or (time.monotonic() >= until_s and not self._group.is_pending):
                return found

    def tell_changes(self) -> None:
        """Have the application hear of all changes of its partitions, in this thread."""
        rebalances = self._group.rebalances
        while (change := self._run(soon(rebalances.next_change))) is not None:
            try:
                waited = call_listener(rebalances.listener, change)
                if waited is not None:
                    self._run(waited)
            except Exception:
                self._run(rebalances.finish(change))
                raise
            except BaseException:
                self._run(soon(partial(rebalances.put_back, change)))
                raise
            self._run(rebalances.finish(change))

    def tell_closing(self) -> None:
        """Have the application hear that it gives up everything."""
        change = self._run(soon(self._group.rebalances.announced))
        if change is not None:
            waited = call_listener(self._group.rebalances.listener, change)
            if waited is not None:
                self._run(waited)

    @contextmanager
    def processing(self) -> Iterator[None]:
        """While process() runs nobody polls in this thread: the listener is called in threads of their own."""
        rebalances, inner = self._group.rebalances, self._inner
        former, rebalances.listener = rebalances.listener, in_threads(rebalances.listener)
        inner._tells_changes = True  # noqa: SLF001 - its other face
        try:
            yield
        finally:
            inner._tells_changes = False  # noqa: SLF001 - its other face
            rebalances.listener = former

    def first_ahead(self, partition: TopicPartition) -> int | None:
        """Give the offset of the first record of a partition that was not handed out."""
        return next((record.offset for record in self._lookahead if record[:2] == tuple(partition)), None)

    def drop(self, partition: TopicPartition) -> None:
        """Forget what was taken of a partition."""
        self._lookahead = deque(record for record in self._lookahead if record[:2] != tuple(partition))

    def put_back(self) -> None:
        """Read again, later, what was taken from the background thread and not handed out."""
        if self._lookahead:
            self._run(soon(self._rewind))

    # -- on the loop

    async def _fill(self) -> None:
        """Put what is read where an interrupted wait leaves it for the next one."""
        records = await self._inner._poll_ahead(LOOKAHEAD_RECORDS, ITERATION_WAIT_S)  # noqa: SLF001 - its other face
        self._cursors = dict(self._inner._fetcher.cursors)  # noqa: SLF001 - its other face
        self._version = self._group.rebalances.version
        self._lookahead.extend(records)

    def _look_again(self) -> None:
        """Drop what is the member's no more; the application asks for records."""
        self._version = self._group.rebalances.version
        present = self._inner._fetcher.cursors  # noqa: SLF001 - its other face
        kept = [record for record in self._lookahead if self._is_from(record, present)]
        self._lookahead = deque(kept)
        self._group.positions.send_ahead({TopicPartition(*record[:2]) for record in kept})
        self._group.ask()

    def _is_from(self, record: Record, present: dict[TopicPartition, Cursor]) -> bool:
        partition = TopicPartition(record.topic, record.partition)
        cursor = self._cursors.get(partition)
        return cursor is not None and present.get(partition) is cursor

    def _take_back(self) -> None:
        for partition, offset in self._group.positions.take_back().items():
            self._inner._rewind(partition, offset)  # noqa: SLF001 - its other face

    def _rewind(self) -> None:
        self._look_again()
        firsts: dict[TopicPartition, int] = {}
        for record in self._lookahead:
            firsts.setdefault(TopicPartition(record.topic, record.partition), record.offset)
        for partition, offset in firsts.items():
            self._inner._rewind(partition, offset)  # noqa: SLF001 - its other face
        self._lookahead.clear()
        self._group.positions.send_ahead(())
