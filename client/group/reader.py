"""A consumer's membership: holds the core, its stream, its commits and its positions together.

Owns the tasks of the membership. All that the core decides is done at once, in `changed`, on the event loop: what the
member has no more is read no more before anything else runs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.client.checks import commit_point, invalid
from penstock.client.fetcher import Fetcher
from penstock.client.group.commit_queue import Offsets
from penstock.client.group.commits import Commits, Committer, commit_failed
from penstock.client.group.coordinator import Coordinator
from penstock.client.group.holds import HoldState, Key, committed_of
from penstock.client.group.listener import Drainer, RebalanceListener
from penstock.client.group.member import MemberCore, Phase
from penstock.client.group.options import GroupConfig, Subscribed
from penstock.client.group.rebalances import Parts, Rebalances, log_failures
from penstock.client.group.starting import Starting, fetch_offsets
from penstock.client.group.stream import JoinStream
from penstock.client.group.watchdog import Beat, Watchdog
from penstock.client.options import ConsumerConfig
from penstock.client.produce_stream import end
from penstock.client.records import CommitPoint, CommittedOffset, TopicPartition
from penstock.client.seams import Seams
from penstock.client.session import ClientSession
from penstock.protocol.errors import PenstockError
from penstock.protocol.reasons import Reason
from penstock.v1 import group_service_pb2 as pb

CLOSE_TIMEOUT_S = 10.0
"""How long closing waits for the listener and the last commit."""
LEAVE_TIMEOUT_S = 3.0
"""How long closing waits for the coordinator to hear of the leaving."""
ASK_INTERVAL_MS = 100
"""Asking for records more often than that is not told to the core."""
_LOG = logging.getLogger("penstock.client")


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """What a consumer is in its group."""

    group: str
    member_id: str
    instance_id: str | None
    generation: int
    """The last one heard; 0: it has not joined yet."""
    joined: bool
    """It is in the group and connected to the coordinator."""
    assignment: tuple[TopicPartition, ...]
    """What it may read now."""
    granted: Mapping[TopicPartition, int]
    """The generation in which it was granted each; those that it is to give up included."""


class GroupReader:
    """See the module. Made inside a running event loop."""

    def __init__(
        self, group: GroupConfig, client: ConsumerConfig, seams: Seams, session: ClientSession, fetcher: Fetcher
    ) -> None:
        self.config = group
        self._client = client
        self._session = session
        self._fetcher = fetcher
        self._core = MemberCore(group, session.unique, session.clock.monotonic_ms())
        self._coordinator = Coordinator(session, group.group)
        self._stream = JoinStream(self._core, self._coordinator, session, self)
        self._commits = Commits(self._coordinator, session, self, client.request_timeout_ms)
        self._starting = Starting(group, client, session)
        parts = Parts(self._core, fetcher, self._commits, self._starting)
        self.positions = parts.positions
        fetcher.on_cut = self.positions.seek  # or what was committed stays above what comes there now
        self.rebalances = Rebalances(parts, session, self, auto_commit=group.auto_commit)
        self.rebalances.listener = group.listener
        self._wake = asyncio.Event()
        self._asked_ms = 0
        self._goes_on_until_ms = 0
        """Until when records may be given out one by one without a look at anything else, by what was heard last."""
        self._tasks: list[asyncio.Task[None]] = []
        self._watchdog: Watchdog | None = None
        if seams.watchdog is not None:
            self._watchdog = seams.watchdog(session.clock, session.connections.dial_blocking)

    def start(self) -> None:
        """Begin to join."""
        works = (self._stream.run(), self._commits.run(), self._tick(), self._commit_regularly())
        self._tasks = [asyncio.create_task(work) for work in works]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    async def finish(self, *, told: bool) -> None:
        """The first half of closing: tell the listener unless it was told, and commit what was asked past."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._finish(told=told)

    async def _finish(self, *, told: bool) -> None:
        change = self.rebalances.announced()
        try:
            if change is not None and not told:
                await self.rebalances.tell(change)
        finally:
            positions = self.positions
            points = positions.asked_past() if self.rebalances.auto_commit else positions.unsettled()
            log_failures(await self._commits.commit(points))  # and those before it

    async def depart(self, *, leave: bool) -> None:
        """The second half: leave, and end the tasks."""
        await self.rebalances.close()
        if leave and self._core.leave("closed", returning=self.config.instance_id is not None):
            self._stream.poke()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self._stream.idle()
        await end(self._tasks)
        if self._watchdog is not None:
            self._watchdog.close()

    # -- what the consumer calls

    @property
    def membership(self) -> GroupMembership:
        """What the consumer is in its group."""
        core = self._core
        held = tuple(hold.partition for hold in core.holds if hold.state is HoldState.READ)
        joined = core.phase is Phase.MEMBER
        granted = {hold.partition: hold.granted_generation for hold in core.holds}
        return GroupMembership(
            core.config.group, core.member_id, core.config.instance_id, core.generation, joined, held, granted
        )

    @property
    def is_subscribed(self) -> bool:
        """There is something to read."""
        return bool(self._core.subscription)

    async def subscribe(self, subscription: Subscribed, listener: RebalanceListener | None) -> None:
        """Read other topics from now on; a `listener` takes the place of the former one."""
        await self._starting.look()
        if listener is not None:
            self.rebalances.listener = listener
        self._core.subscribe(subscription)
        self.changed()

    def drive(self, drainer: Drainer | None) -> None:
        """Hand revocations to a drainer, which commits itself."""
        self.rebalances.drainer = drainer
        self.rebalances.auto_commit = self.config.auto_commit and drainer is None

    def ask(self) -> None:
        """The application asks for records: it is done with those it was given."""
        self.positions.ask()
        self.rebalances.asked()
        self._asked_ms = self.now_ms()
        self._core.asked(self._asked_ms)
        self.changed()
        fatal, errors = self._core.fatal, self._fetcher.errors
        if fatal is not None and not errors:  # each time, else the application would wait for records for ever
            errors.append(type(fatal)(fatal.reason, fatal.message, fatal.metadata))

    def goes_on(self) -> bool:
        """The same, once a record; False: there is more to do first."""
        if self._session.clock.monotonic_ms() >= self._goes_on_until_ms or self.rebalances.is_pending:
            return False
        self.positions.ask()
        return True

    def may_give(self) -> bool:
        """Records may be given out now."""
        return not self.rebalances.is_pending and self.now_ms() < self._core.valid_until_ms

    @property
    def is_pending(self) -> bool:
        """The application has something to hear."""
        return self.rebalances.is_pending

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The application waits for records all the while."""
        self._core.waiting = True
        try:
            yield
        finally:
            self._core.waited(self.now_ms())
            self.changed()

    async def commit(self, offsets: Mapping[TopicPartition, int | CommitPoint] | None) -> None:
        """See Consumer.commit."""
        points, errors = self._points(offsets)
        if points:
            self.positions.overrule(points)
            errors |= await self._commits.commit(points)
        raise_first(errors)

    def commit_soon(
        self,
        offsets: Mapping[TopicPartition, int | CommitPoint] | None,
        on_done: Callable[[Mapping[TopicPartition, CommitPoint], PenstockError | None], None] | None,
    ) -> None:
        """See Consumer.commit_soon."""
        points, refused = self._points(offsets)

        def settled(failed: dict[TopicPartition, PenstockError]) -> None:
            errors = refused | failed
            if on_done is None:
                log_failures(errors)
                return
            try:
                on_done(points, next(iter(errors.values()), None))
            except Exception:  # noqa: BLE001 - the application's code; its fault must not stop the consumer
                _LOG.exception("a commit callback raised")

        self._commits.check_room()
        self.positions.overrule(points)
        self._commits.add(points, settled)

    async def fetch_committed(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """See Consumer.committed."""
        wanted = [TopicPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        request = pb.FetchOffsetsRequest(group_id=self.config.group)
        asked = {}
        self._session.metadata.want(partition.topic for partition in wanted)
        for partition in wanted:
            known = await self._session.metadata.topic(partition.topic, self._client.request_timeout_ms)
            asked[known.topic_id, partition.partition] = partition
            request.partitions.add(topic_id=known.topic_id, partition=partition.partition)
        answer = await fetch_offsets(self._session, request, self._client)
        found = {asked.get((o.topic_id, o.partition)): committed_of(o.committed) for o in answer.offsets}
        return {partition: found.get(partition) for partition in wanted}

    # -- what the stream, the commits and the rebalances call

    def now_ms(self) -> int:
        """See StreamHost. What the watchdog did meanwhile is known to the core before the time is."""
        now_ms = self._session.clock.monotonic_ms()
        if self._watchdog is not None:
            self._core.acknowledged(self._watchdog.acknowledged_ms)
        return now_ms

    def changed(self) -> None:
        """See StreamHost: do what the core wants."""
        for change in self._core.take_changes():
            self.rebalances.apply(change)
        error = self._core.take_error()
        if error is not None:
            self._fetcher.errors.append(error)
        self._goes_on_until_ms = min(self._asked_ms + ASK_INTERVAL_MS, self._core.valid_until_ms)
        self._fetcher.wake()
        self._stream.poke()
        self._wake.set()

    async def before_join(self) -> None:
        """See StreamHost."""
        await self._starting.look()

    def committer(self) -> Committer:
        """See CommitHost."""
        return Committer(self.config.group, self._core.member_id, self._core.generation)

    def key_of(self, partition: TopicPartition) -> Key | None:
        """See CommitHost."""
        hold = self._core.holds.find(partition)
        return None if hold is None else hold.key

    def committed(self, offsets: Offsets) -> None:
        """See CommitHost."""
        for partition, point in offsets.items():
            self.positions.committed(partition, point.offset)

    # -- inside

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A fault of this client ends the membership, and must not do so in silence."""
        if task.cancelled() or task.exception() is None:
            return
        _LOG.critical("group %s: the membership is looked after no more", self.config.group, exc_info=task.exception())
        text = f"a fault of the client ended the membership of group {self.config.group!r}: {task.exception()!r}"
        self._core.leave("a fault of the client", returning=False)
        self._core.fail(PenstockError(Reason.INTERNAL, text))
        self.changed()

    def _points(
        self, offsets: Mapping[TopicPartition, int | CommitPoint] | None
    ) -> tuple[dict[TopicPartition, CommitPoint], dict[TopicPartition, PenstockError]]:
        """What is to be committed, and what cannot be since the member does not have it."""
        if offsets is None:
            if self.rebalances.drainer is not None:
                raise invalid(
                    "process() commits what its handlers have done: without offsets, so would what is not done"
                )
            lost = self.rebalances.lost_uncommitted
            return self.positions.handed_out(), {p: commit_failed(why, f"{p[0]}-{p[1]}") for p, why in lost.items()}
        points, errors = {}, {}
        for given, at in offsets.items():
            partition, point = TopicPartition(*given), commit_point(at)
            if self.key_of(partition) is not None:
                points[partition] = point
                continue
            never = PenstockError(Reason.PARTITION_NOT_OWNED, "the member does not have it")
            why = self.rebalances.why_lost.get(partition, never)
            errors[partition] = commit_failed(why, f"{partition.topic}-{partition.partition}")
        return points, errors

    async def _tick(self) -> None:
        while True:
            now_ms = self.now_ms()
            self._core.tick(now_ms)
            self.changed()
            self._beat(now_ms)
            self._wake.clear()
            due_ms = self._core.due_ms()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due_ms is None else max(1, due_ms - now_ms) / 1000):
                    await self._wake.wait()

    def _beat(self, now_ms: int) -> None:
        if self._watchdog is None:
            return
        core = self._core
        address = self._stream.address if core.phase is Phase.MEMBER else ""
        request = pb.HeartbeatRequest(
            group_id=core.config.group, member_id=core.member_id, generation=core.generation, polls=core.polls
        )
        self._watchdog.alive(Beat(now_ms, address, core.heartbeat_interval_ms, request.SerializeToString()))

    async def _commit_regularly(self) -> None:
        while True:
            await self._session.clock.sleep_ms(self.config.auto_commit_interval_ms)
            points = self.positions.asked_past() if self.rebalances.auto_commit else {}
            if points:
                log_failures(await self._commits.commit(points))


def raise_first(errors: Mapping[TopicPartition, PenstockError]) -> None:
    """Raise the first error, if there is one; the others are noted in it."""
    for first, error in errors.items():
        for partition, other in errors.items():
            if partition != first:
                error.add_note(f"{partition.topic}-{partition.partition}: {other}")
        raise error
