"""One bench from beginning to end: topic, warm-up, what is measured, what nodes and client used for it.

Whatever happens, a topic that was made for it is deleted again. A stop while it is under way ends the measuring early
and lets the run finish; cancelling it ends it at once, apart from that deletion.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from penstock.client import Admin, BrokerUsage, PenstockError, TopicDescription, TopicPartition, UnknownTopicError
from penstock.client.bench.crew import Crew, make_crew
from penstock.client.bench.machine import ProcessUsage, now_ns
from penstock.client.bench.plan import Phase, Plan
from penstock.client.bench.read import Arrivals, Form, TopicReader
from penstock.client.bench.report import NOTHING_USED, Latency, NodeUse, Report, Verb, node_uses
from penstock.client.bench.tally import Tally
from penstock.client.errors import make_error
from penstock.protocol.reasons import Outcome, Reason

PROGRESS_S = 1.0
DELETE_TIMEOUT_S = 10.0


class FreshTopic(NamedTuple):
    """A topic to be made. None: the cluster's default."""

    name: str
    partitions: int
    replication_factor: int | None


class Progress(NamedTuple):
    """What a run is doing, told each second."""

    stage: str
    """ "warm-up", "filling" or "measuring"."""
    elapsed_s: float
    """In this stage."""
    tally: Tally


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run. `plan.topic` exists already unless it is the fresh one's name."""

    verb: Verb
    servers: str
    timeout_s: float
    plan: Plan
    fresh: FreshTopic | None
    form: Form = "records"


class Bench:
    """One run."""

    def __init__(self, job: Job, tell: Callable[[Progress], None], note: Callable[[str], None]) -> None:
        """`tell` is called each second, `note` with what else people should know."""
        self.stopped = asyncio.Event()
        """Set it to end the measuring early."""
        self.is_under_way = False
        """There is something that `stopped` can end; before, only cancelling ends it."""
        self._job = job
        self._plan = job.plan
        self._tell = tell
        self._note = note
        self._topic: TopicDescription
        self._nodes: list[NodeUse] = []
        self._own = NOTHING_USED
        self._watched_s = 0.0

    async def run(self) -> Report:
        """Run it. Raises PenstockError where it could not be done; failed records are counted in the report."""
        job = self._job
        async with Admin(job.servers, timeout_ms=int(job.timeout_s * 1000)) as admin, self._made(admin) as topic:
            self._topic = topic
            self.is_under_way = True
            self._plan = replace(job.plan, partitions=len(topic.partitions))
            if job.verb == "consume":
                return await self._consume(admin)
            async with make_crew(job.servers, self._plan) as crew, self._stopping(crew.stop):
                return await (self._produce(admin, crew) if job.verb == "produce" else self._follow(admin, crew))

    @asynccontextmanager
    async def _made(self, admin: Admin) -> AsyncIterator[TopicDescription]:
        """Give the topic; the fresh one is deleted at the end, also where nobody knows whether it was made."""
        fresh, may_exist = self._job.fresh, True
        if fresh is None:
            yield await admin.describe_topic(self._plan.topic)
            return
        try:
            try:
                topic = await admin.create_topic(fresh.name, fresh.partitions, fresh.replication_factor)
            except PenstockError as error:
                may_exist = error.outcome is Outcome.UNKNOWN
                raise
            yield topic
        finally:
            if may_exist:
                await self._delete(admin, fresh.name)

    async def _delete(self, admin: Admin, name: str) -> None:
        try:
            async with asyncio.timeout(DELETE_TIMEOUT_S):
                with suppress(UnknownTopicError):
                    await admin.delete_topic(name)
        except (PenstockError, TimeoutError, asyncio.CancelledError) as error:
            self._note(f"topic {name} may be there still: {str(error) or 'no answer to its deletion'}")
            if isinstance(error, asyncio.CancelledError):
                raise

    @asynccontextmanager
    async def _stopping(self, act: Callable[[], None]) -> AsyncIterator[None]:
        """Act on the stop, whenever it comes."""

        async def wait() -> None:
            await self.stopped.wait()
            act()

        task = asyncio.create_task(wait())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _telling(self, stage: str, tally: Callable[[], Tally]) -> AsyncIterator[None]:
        began = now_ns()

        async def tell() -> None:
            while True:
                await asyncio.sleep(PROGRESS_S)
                self._tell(Progress(stage, (now_ns() - began) / 1e9, tally()))

        task = asyncio.create_task(tell())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _measuring(self, admin: Admin, tally: Callable[[], Tally]) -> AsyncIterator[None]:
        """Take what nodes and this process use meanwhile."""
        before, own, began = await self._usage(admin), ProcessUsage.now(), now_ns()
        async with self._telling("measuring", tally):
            yield
        self._watched_s = (now_ns() - began) / 1e9
        self._own = ProcessUsage.now().since(own)
        self._nodes = node_uses(before, await self._usage(admin), self._watched_s)

    async def _usage(self, admin: Admin) -> list[BrokerUsage]:
        try:
            return await admin.broker_usage()
        except PenstockError as error:
            self._note(f"what the nodes use is not known: {error}")
            return []

    # -- produce and e2e

    async def _warm_up(self, crew: Crew) -> Tally:
        async with self._telling("warm-up", lambda: crew.tally):
            return await crew.warm_up()

    async def _produce(self, admin: Admin, crew: Crew) -> Report:
        warmed = await self._warm_up(crew)
        async with self._measuring(admin, lambda: crew.tally):
            measured = await crew.measure()
        return self._report(measured.tally, warmed, [self._acknowledged(measured.tally)], measured.workers)

    async def _follow(self, admin: Admin, crew: Crew) -> Report:
        plan = self._plan
        async with Arrivals(self._job.servers, plan.topic, plan.run_id, self._job.timeout_s) as arrivals:
            warmed = await self._warm_up(crew)
            await arrivals.wait(warmed.done)
            arrivals.begin()
            async with self._measuring(admin, lambda: arrivals.tally):
                measured = await crew.measure()
                came = await arrivals.wait(measured.tally.done)
        sent = measured.tally
        latencies = [self._acknowledged(sent), Latency(self._start, "consumed", came.latency)]
        report = self._report(sent, warmed, latencies, measured.workers)
        seen = replace(sent, done=came.done, bytes=came.bytes, last_ns=came.last_ns or sent.last_ns)
        return replace(report, tally=seen, not_consumed=max(0, sent.done - came.done))

    @property
    def _start(self) -> str:
        return "due" if self._plan.rate else "sent"

    def _acknowledged(self, tally: Tally) -> Latency:
        end = "written" if self._plan.options.get("acks") == "none" else "acknowledged"
        return Latency(self._start, end, tally.latency)

    # -- consume

    async def _consume(self, admin: Admin) -> Report:
        job, plan = self._job, self._plan
        if job.fresh is not None:
            await self._fill()
        partitions = [TopicPartition(plan.topic, index) for index in range(plan.partitions)]
        reader = TopicReader(job.servers, partitions, job.form, job.timeout_s)
        async with self._stopping(reader.stop.set):
            if plan.warmup_s:
                async with self._telling("warm-up", lambda: reader.tally):
                    await reader.read(seconds=plan.warmup_s)
            async with self._measuring(admin, lambda: reader.tally):
                tally = await reader.read(seconds=plan.phase.seconds, records=plan.phase.records)
        return replace(self._report(tally, Tally(), [], ()), form=job.form)

    async def _fill(self) -> None:
        """Put the records in that are read afterwards; it must be all of them."""
        plan = self._plan
        whole = replace(plan, warmup_s=0.0, phase=Phase(records=plan.phase.records))
        async with (
            make_crew(self._job.servers, whole) as crew,
            self._stopping(crew.stop),
            self._telling("filling", lambda: crew.tally),
        ):
            tally = (await crew.measure()).tally
        if tally.failed or tally.unknown:
            reason = Reason[next(iter(tally.failures), Reason.OUTCOME_UNKNOWN.name)]
            message = f"the topic could not be filled: {tally.sent - tally.done} of {tally.sent} records failed"
            raise make_error(reason, message, {"topic": plan.topic})

    def _report(
        self, tally: Tally, warmed: Tally, latencies: Sequence[Latency], workers: Sequence[ProcessUsage]
    ) -> Report:
        own = self._own
        client = ProcessUsage(
            own.cpu_s + sum(used.cpu_s for used in workers),
            own.resident_bytes + sum(used.resident_bytes for used in workers),
        )
        failures = Counter(warmed.failures)
        if warmed.unknown:
            failures[Reason.OUTCOME_UNKNOWN.name] += warmed.unknown
        return Report(
            verb=self._job.verb,
            plan=self._plan,
            replication=self._topic.replication_factor,
            is_fresh=self._job.fresh is not None,
            tally=tally,
            latencies=latencies,
            nodes=self._nodes,
            client=client,
            watched_s=self._watched_s,
            warmup_failures=failures,
            interrupted=self.stopped.is_set(),
        )
