"""What follows from changes of the member's partitions, on the event loop and in the application.

What is lost or revoked is read no more at once. Then a revoked partition is settled: the application finishes and
hears of it (RebalanceListener), what was asked past is committed, and the partition is released. Where there is a
Drainer it finishes first, and what it has done is committed, nothing else. Without a listener, and with nothing in
hand, all that is done in the background; else it waits in a queue until the application asks for records. Each change
of a partition is told once, and a loss or a revocation only of what was announced.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from penstock.client.errors import is_retriable, is_unknown
from penstock.client.fetcher import Fetcher
from penstock.client.group.commits import Commits, names
from penstock.client.group.holds import Change, Hold, HoldState
from penstock.client.group.listener import Drainer, RebalanceListener
from penstock.client.group.member import MemberCore
from penstock.client.group.positions import Positions
from penstock.client.group.starting import Begin, Starting
from penstock.client.produce_stream import end
from penstock.client.records import CommitPoint, TopicPartition
from penstock.client.retry import Backoff
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason

MAX_REMEMBERED_LOSSES = 10_000
"""Partitions of which it is known why they were lost, for the errors of late commits."""
_LOG = logging.getLogger("penstock.client")


class RebalanceHost(Protocol):
    """What rebalances ask of their reader."""

    def changed(self) -> None:
        """The core was told something, or the application has something to hear."""


class Parts:
    """What rebalances work on."""

    def __init__(self, core: MemberCore, fetcher: Fetcher, commits: Commits, starting: Starting) -> None:
        self.core = core
        self.fetcher = fetcher
        self.commits = commits
        self.starting = starting
        self.positions = Positions()


class Rebalances:
    """See the module. Used from one event loop."""

    def __init__(self, parts: Parts, session: ClientSession, host: RebalanceHost, *, auto_commit: bool) -> None:
        self.listener: RebalanceListener | None = None
        self.drainer: Drainer | None = None
        self.auto_commit = auto_commit
        self.why_lost: dict[TopicPartition, PenstockError] = {}
        self.lost_uncommitted: dict[TopicPartition, PenstockError] = {}
        """Why these were lost since the application last asked for records, before what it was given was committed."""
        self.version = 0
        """Rises when something is read no more."""
        self._parts = parts
        self._session = session
        self._host = host
        self._for_application: deque[Change] = deque()
        self._begun: set[Hold] = set()
        """Their positions are known."""
        self._announced: set[Hold] = set()
        """The application knows of them."""
        self._tasks: dict[asyncio.Task[None], tuple[Hold, ...]] = {}

    # -- from the core

    def apply(self, change: Change) -> None:
        """Do what follows from a change, in the order in which they came."""
        if change.kind == "assigned":
            for hold in change.holds:
                self.why_lost.pop(hold.partition, None)
            self._run(self._prepare(change.holds), change.holds)
        elif change.kind == "revoked":
            self._revoke(change.holds)
        elif change.kind == "restored":
            self._restore(change.holds)
        else:
            self._lose(change)

    def _revoke(self, holds: tuple[Hold, ...]) -> None:
        self.version += 1
        for hold in holds:
            self._parts.fetcher.put_aside(hold.partition)
        self._parts.core.release(hold for hold in holds if hold not in self._begun)
        begun = tuple(hold for hold in holds if hold in self._begun)
        if self.drainer is not None and begun:
            self._drain_soon(begun, self.drainer)
            return
        told = tuple(hold for hold in begun if hold in self._announced and self._must_hear(hold))
        self._settle_soon(tuple(hold for hold in begun if hold not in told))
        if told:
            self._for_application.append(Change("revoked", told))

    def _must_hear(self, hold: Hold) -> bool:
        return self.listener is not None or self._parts.positions.is_in_hand(hold.partition)

    def _restore(self, holds: tuple[Hold, ...]) -> None:
        for hold in holds:
            position = self._parts.positions.position(hold.partition)
            if position is not None:
                self._parts.fetcher.go_on(hold.partition, position)

    def _lose(self, change: Change) -> None:
        self.version += 1
        partitions = tuple(hold.partition for hold in change.holds)
        why = change.why or PenstockError(Reason.PARTITION_NOT_OWNED, "the member does not have it any more")
        _LOG.warning("group %s lost %s: %s", self._parts.core.config.group, names(partitions), why.message)
        for partition in self._parts.positions.handed_out(partitions):
            self.lost_uncommitted[partition] = why
        for hold in change.holds:
            self._forget(hold)
            self.why_lost[hold.partition] = why
        while len(self.why_lost) > MAX_REMEMBERED_LOSSES:
            del self.why_lost[next(iter(self.why_lost))]
        self._parts.commits.drop(partitions, why)
        if self.drainer is not None:
            self.drainer.lost(partitions)
        announced = tuple(hold for hold in change.holds if hold in self._announced)
        self._announced.difference_update(announced)
        if announced and self.listener is not None:
            self._for_application.append(change._replace(holds=announced))
        for task, holds in list(self._tasks.items()):
            if not any(self._parts.core.holds.has(hold) for hold in holds):
                task.cancel()

    def _forget(self, hold: Hold) -> None:
        self._begun.discard(hold)
        self._parts.fetcher.remove(hold.partition)
        self._parts.positions.remove(hold.partition)

    # -- beginning

    async def _prepare(self, holds: tuple[Hold, ...]) -> None:
        backoff = Backoff(self._session.rng)
        while left := [hold for hold in holds if self._parts.core.holds.has(hold) and hold not in self._begun]:
            try:
                begins = await self._parts.starting.resolve(left, self._parts.core.first_generation or 0)
            except PenstockError as error:
                passing = is_retriable(error) or is_unknown(error)
                _LOG.log(logging.DEBUG if passing else logging.WARNING, "where to begin is not known: %s", error)
                begins = {}
            self._begin(begins)
            if len(begins) < len(left):
                await self._session.clock.sleep_ms(backoff.next_ms())

    def _begin(self, begins: dict[Hold, Begin]) -> None:
        parts = self._parts
        held = {hold: begin for hold, begin in begins.items() if parts.core.holds.has(hold)}
        for hold, begin in held.items():
            cursor = parts.fetcher.add(hold.partition, begin.offset, begin.last_epoch)
            self._begun.add(hold)
            parts.positions.add(hold.partition, begin.offset, is_settled=begin.is_settled)
            if begin.error is not None:
                parts.fetcher.stop(cursor, begin.error)
        unsettled = {h.partition: CommitPoint(begin.offset) for h, begin in held.items() if not begin.is_settled}
        if unsettled:
            parts.commits.add(unsettled, log_failures)
        if held and self.listener is not None:
            self._for_application.append(Change("assigned", tuple(held)))
        else:
            self._announced.update(held)
        self._host.changed()

    # -- settling

    def asked(self) -> None:
        """The application is done with what it had in hand."""
        self.lost_uncommitted.clear()
        if self.listener is None and self._for_application:
            for change in iter(self.next_change, None):
                self._settle_soon(change.holds)

    def next_change(self) -> Change | None:
        """Give what the application must hear next; then `tell` and `finish` it, or `put_back`."""
        while self._for_application:
            change = self._for_application.popleft()
            holds = change.holds
            if change.kind == "assigned":
                holds = tuple(h for h in holds if self._parts.core.holds.has(h) and h.state is HoldState.READ)
                self._announced.update(holds)
            elif change.kind == "revoked":
                holds = tuple(h for h in holds if self._parts.core.holds.has(h) and h.state is not HoldState.READ)
                for hold in holds:
                    hold.state = HoldState.SETTLING
            if holds:
                return change._replace(holds=holds)
        return None

    def put_back(self, change: Change) -> None:
        """The application was interrupted while it was told: it is told again."""
        self._for_application.appendleft(change)

    @property
    def is_pending(self) -> bool:
        """The application has something to hear before it is given more records."""
        return bool(self._for_application)

    async def tell_all(self) -> None:
        """Have the application hear of all changes of its partitions."""
        while (change := self.next_change()) is not None:
            try:
                await self.tell(change)
            except asyncio.CancelledError:
                self.put_back(change)
                raise
            except Exception:
                await self.finish(change)
                raise
            await self.finish(change)

    async def tell(self, change: Change) -> None:
        """Call the listener."""
        waited = call_listener(self.listener, change)
        if waited is not None:
            await waited

    async def finish(self, change: Change) -> None:
        """The application has heard of a change. Cancelling ends the waiting only."""
        if change.kind == "revoked":
            await asyncio.wait([self._run(self._settle(change.holds, self.auto_commit), change.holds)])

    def announced(self) -> Change | None:
        """Everything that the application has, as a revocation; for closing."""
        holds = tuple(hold for hold in self._parts.core.holds if hold in self._announced)
        return Change("revoked", holds) if holds else None

    def _settle_soon(self, holds: tuple[Hold, ...]) -> None:
        for hold in holds:
            hold.state = HoldState.SETTLING
        if holds:
            self._run(self._settle(holds, self.auto_commit), holds)

    def _drain_soon(self, holds: tuple[Hold, ...], drainer: Drainer) -> None:
        for hold in holds:
            hold.state = HoldState.SETTLING
            self._parts.positions.withhold(hold.partition)
        self._run(self._drain(holds, drainer), holds)

    async def _drain(self, holds: tuple[Hold, ...], drainer: Drainer) -> None:
        """Have the drainer finish, commit what was done, and have the listener hear of it before the release."""
        partitions = tuple(hold.partition for hold in holds)
        done = await drainer.drain(partitions)
        points = self._parts.positions.unsettled(partitions)
        points |= {p: at if isinstance(at, CommitPoint) else CommitPoint(at) for p, at in done.items()}
        log_failures(await self._parts.commits.commit(points))
        told = () if self.listener is None else tuple(hold for hold in holds if hold in self._announced)
        if told:
            self._for_application.append(Change("revoked", told))
            self._host.changed()
        self._settle_soon(tuple(hold for hold in holds if hold not in told))

    async def _settle(self, holds: tuple[Hold, ...], auto_commit: bool) -> None:
        """Commit what was asked past, then release."""
        positions, partitions = self._parts.positions, [hold.partition for hold in holds]
        points = positions.asked_past(partitions) if auto_commit else positions.unsettled(partitions)
        log_failures(await self._parts.commits.commit(points))  # and those before it
        for hold in self._parts.core.release(holds):
            self._announced.discard(hold)
            self._forget(hold)
        self._host.changed()

    # -- tasks

    def _run(self, work: Coroutine[Any, Any, None], holds: tuple[Hold, ...]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = holds
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a rebalance failed", exc_info=task.exception())

    async def close(self) -> None:
        """End the tasks."""
        await end(list(self._tasks))


def call_listener(listener: RebalanceListener | None, change: Change) -> Any:
    """Call the listener's method; gives what is to be awaited, or None."""
    if listener is None:
        return None
    methods = {"assigned": listener.on_assigned, "revoked": listener.on_revoked, "lost": listener.on_lost}
    result = methods[change.kind](tuple(hold.partition for hold in change.holds))
    return result if inspect.isawaitable(result) else None


def log_failures(errors: dict[TopicPartition, PenstockError]) -> None:
    """Say in the log which commits of the consumer's own failed, a line for each cause."""
    by_cause: dict[str, list[TopicPartition]] = {}
    for partition, error in errors.items():
        by_cause.setdefault(str(error), []).append(partition)
    for cause, partitions in by_cause.items():
        _LOG.warning("not committed: %s: %s", names(partitions), cause)
