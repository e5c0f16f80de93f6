"""The one thread that writes: drains its queue, commits the round as a group, tells all outcomes in one call.

Group commit: however many partitions wrote since the last round, they share one fsync.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable

from penstock.storage.commit import Committer
from penstock.storage.writes import Outcome, Write

_log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
"""How full the store is is looked at this often, also when nothing is written."""


class Writer:
    """Owns the committer while it runs."""

    def __init__(
        self,
        committer: Committer,
        on_commit: Callable[[list[Outcome]], None],
        on_fatal: Callable[[BaseException], None],
        sync_interval_ms: int = 0,
    ) -> None:
        """`on_commit` and `on_fatal` are called on the writer's thread. `sync_interval_ms`: fsync at most that rarely,
        for a store whose commits are not durable by themselves; 0: at the end only."""
        self._committer = committer
        self._on_commit = on_commit
        self._on_fatal = on_fatal
        self._sync_interval_s = sync_interval_ms / 1000
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        """None: stop."""
        self._stopping = False
        """Of the writer's thread: None was taken."""
        self._is_durable = False
        self._thread = threading.Thread(target=self._run, name="penstock-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def submit(self, write: Write) -> None:
        """Queue a write. Any thread; never blocks; the callers' credits bound the queue."""
        self._queue.put(write)

    def stop(self) -> bool:
        """Write what is queued, then end the thread; whether everything that was ever submitted is durable now.

        What is submitted afterwards is never written, nor answered.
        """
        self._queue.put(None)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        return self._is_durable

    def _run(self) -> None:
        try:
            more = True
            synced = looked = time.monotonic()
            self._committer.look()
            while (writes := self._next(idle_wait=not more)) is not None:
                if writes:
                    self._on_commit(self._committer.commit(writes))
                more = self._committer.sweep()
                if time.monotonic() - looked >= LOOK_INTERVAL_S:
                    self._committer.look()
                    looked = time.monotonic()
                if self._sync_interval_s and time.monotonic() - synced >= self._sync_interval_s:
                    self._committer.sync()
                    synced = time.monotonic()
            self._committer.sync()  # at every level: the mark of an orderly stop says so
            self._is_durable = True
        except BaseException as error:  # noqa: BLE001  whatever it is, nothing may be written after it
            _log.critical("the store's writer has stopped: %s", error, exc_info=True)
            self._on_fatal(error)

    def _next(self, *, idle_wait: bool) -> list[Write] | None:
        """Take what is queued, waiting for something unless there is other work; None: stopped and drained."""
        taken: list[Write] = []
        waits = idle_wait
        with contextlib.suppress(queue.Empty):
            while not self._stopping:
                write = self._queue.get(waits, min(self._sync_interval_s or LOOK_INTERVAL_S, LOOK_INTERVAL_S))
                waits = False
                if write is None:
                    self._stopping = True
                else:
                    taken.append(write)
        return None if self._stopping and not taken else taken
